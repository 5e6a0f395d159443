"""Where the prompts of a run come from: a file, or a source that makes them, with the teacher's help if it asks for it.

What was made is written to data/prompts.jsonl, each row with the request behind it, and read from there like any other
file. Requests of both steps share the run's store and budget.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill import artifacts, models, plugins, prompts
from distill.errors import ConfigError, DataError
from distill.generate.sources._base import Bench, Text, Wanted, WriterConfig, read_list
from distill.progress import say
from distill.prompts import personal_data
from distill.records import Message, Request, Sampling
from distill.rows import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from distill.artifacts import RunFolder
    from distill.config import Prompts, RunConfig
    from distill.generate.desk import Desk
    from distill.query.ask import Outcome

SOURCES = "distill.generate.sources"
STAND_IN_WORDS = 60
"""How long a plan takes a prompt to be that is not written yet."""


@dataclass(frozen=True)
class Made:
    """The prompts, the file they were read from, and what their source read and left out."""

    built: prompts.Built
    path: Path
    facts: dict[str, Any]


def inputs(config: RunConfig) -> list[Path]:
    """The files and folders that prompts are read or made from."""
    source = config.prompts.source
    names = (config.prompts.path,) if source is None else source.files()  # type: ignore[attr-defined]
    return [prompts.locate(name, config.resolve) for name in names]


def build(config: RunConfig, folder: RunFolder, desk: Desk) -> Made:
    """The prompts to ask. Raises DataError for broken rows before anything is asked, and what asking raises."""
    source: Any = config.prompts.source
    if source is None:
        path = prompts.locate(config.prompts.path, config.resolve)
        return Made(prompts.scan(config.prompts, path, config.seed), path, {})
    written: list[Outcome] = []

    def ask(requests: Sequence[Request]) -> list[Outcome]:
        _can_begin_a_users_turn(config, desk, requests)
        outcomes = desk.ask(config.teacher, requests, "prompts", "prompts")
        written.extend(outcomes)
        return outcomes

    bench = _bench(config, _writer(config, ask))
    rows = plugins.load(SOURCES, source.kind).make(source, bench)
    unusable = sum(bool(outcome.completion.reject) for outcome in written)
    if not rows:
        raise DataError(
            f"the source {source.kind!r} made no prompt: {unusable} of {len(written)} answers were unusable",
            safe="every answer, in run.db",
        )
    lines = (json.dumps({**row, "made_by": source.kind}, ensure_ascii=False, sort_keys=True) for row in rows)
    artifacts.write_bytes(folder.made_prompts, "".join(f"{line}\n" for line in lines).encode("utf-8"))
    if "passage" in rows[0] and "passage" not in config.prompts.template:
        say("prompts: prompts.template does not show {{ passage }}: the answers will not rest on it")
    facts = {
        "source": source.kind,
        "read": bench.found,
        "left_out": [f"{file}:{line}: {reason}" for file, line, reason in bench.bad[:100]],
        "requests": len(written),
        "unusable": unusable,
        "made": len(rows),
    }
    return Made(
        prompts.scan(_of_made_rows(config.prompts), folder.made_prompts, config.seed), folder.made_prompts, facts
    )


def preview(config: RunConfig, settings: Prompts | None = None) -> tuple[prompts.Built, list[Request]]:
    """What a plan counts: the prompts (rendered as ``settings`` say), and the requests that would write them.

    Nothing is asked: a prompt that the teacher would write is taken to have 60 words, and every one to be new.
    """
    source: Any = config.prompts.source
    settings = settings or config.prompts
    if source is None:
        return prompts.scan(settings, prompts.locate(config.prompts.path, config.resolve), config.seed), []
    asked: list[Request] = []

    def write(wanted: Sequence[Wanted]) -> list[list[Text]]:
        first = len(asked)
        asked.extend(_requests(config, wanted))
        return [
            [
                Text(f"{place}.{number} " + f"{place}x{number} " * STAND_IN_WORDS, "")
                for number in range(one.number or 1)
            ]
            for place, one in enumerate(wanted, start=first)
        ]

    rows = plugins.load(SOURCES, source.kind).make(source, _bench(config, write))
    numbered = [Row(number, row) for number, row in enumerate(rows, start=1)]
    return prompts.scan_rows(_of_made_rows(settings), numbered, [], source.kind, config.seed), asked


def _of_made_rows(settings: Prompts) -> Prompts:
    """The settings, for rows that name themselves and their cluster."""
    return settings.model_copy(update={"id_field": "id", "cluster_field": settings.cluster_field or "cluster"})


def _bench(config: RunConfig, write: Callable[[Sequence[Wanted]], list[list[Text]]]) -> Bench:
    def tokenizer() -> Any:
        return models.load_tokenizer(models.resolve(config.student.model, config.resolve(".")).path)

    return Bench(config.seed, config.resolve, config.prompts.on_error, write, tokenizer)


def _writer(
    config: RunConfig, ask: Callable[[Sequence[Request]], list[Outcome]]
) -> Callable[[Sequence[Wanted]], list[list[Text]]]:
    """``Bench.write``: what is wanted, asked and read; personal data treated as ``prompts.personal_data`` says."""

    def write(wanted: Sequence[Wanted]) -> list[list[Text]]:
        may = [_may_be_sent(one, config) for one in wanted]
        sent = [one for one, allowed in zip(wanted, may, strict=True) if allowed]
        if not all(may):
            what = f"{may.count(False)} of {len(wanted)} texts to be sent hold personal data"
            if config.prompts.on_error == "refuse":
                raise DataError(what, safe="they were not sent", next="prompts.personal_data: mask replaces it")
            say(f"prompts: {what}; they are left out")
        outcomes = iter(ask(_requests(config, sent)) if sent else ())
        return [_texts(next(outcomes), one) if allowed else [] for one, allowed in zip(wanted, may, strict=True)]

    return write


def _may_be_sent(one: Wanted, config: RunConfig) -> bool:
    text = "\n".join(message.content for message in one.messages)
    return config.prompts.personal_data != "block" or not personal_data.kinds_in(text)


def _requests(config: RunConfig, wanted: Sequence[Wanted]) -> list[Request]:
    source = config.prompts.source
    if not isinstance(source, WriterConfig):
        raise ConfigError("a source that asks must be a WriterConfig", where="prompts.source")
    sampling = Sampling(source.max_new_tokens, source.temperature, source.top_p, config.seed)
    mask = config.prompts.personal_data == "mask"
    return [
        Request(
            tuple(Message(m.role, personal_data.masked(m.content)) if mask else m for m in one.messages),
            sampling,
            sample=one.sample,
        )
        for one in wanted
    ]


def _texts(outcome: Outcome, one: Wanted) -> list[Text]:
    completion = outcome.completion
    if completion.reject:
        return []
    texts = read_list(completion.text)[: one.number] if one.number else [completion.text.strip()]
    return [Text(text, outcome.key) for text in texts]


def _can_begin_a_users_turn(config: RunConfig, desk: Desk, requests: Sequence[Request]) -> None:
    """Refuse a template whose user turns end where the engine would not stop. Raises ConfigError."""
    if not any(models.is_users_turn(request.messages) for request in requests):
        return
    tokenizer = getattr(desk.provider(config.teacher), "tokenizer", None)
    if tokenizer is not None and not models.users_turn_ends(tokenizer):
        raise ConfigError(
            "this model's chat template ends a user's turn with a token that the engine does not stop at",
            where="prompts.source",
            next="another teacher, or another source: self_instruct, expand",
        )
