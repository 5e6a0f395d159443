"""Stage 1: prompts + teacher -> run.db -> data/*.parquet (+ signals/). Kept + each rejection = asked."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from distill import artifacts, gates, prompts, rows
from distill.errors import TooManyRejected
from distill.generate import capture, card, dataset, mix, page, sieve, writing
from distill.generate.desk import Desk
from distill.progress import say
from distill.records import Request, Sampling

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from distill.artifacts import RunFolder
    from distill.config import RunConfig
    from distill.generate.filters._base import FilterConfig
    from distill.query.ask import Outcome
    from distill.records import Message, Prompt

VERSION = 2
SETTINGS = ("seed", "prompts", "teacher", "generate", "student", "policy")
AFTER: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asked:
    """What which teacher (its place in ``config.teachers()``) was asked for which prompt, and what came back."""

    teacher: int
    prompt: Prompt
    request: Request
    outcome: Outcome


def inputs(config: RunConfig) -> list[Path]:
    """The prompt file, and the files that filters compare with."""
    paths = [config.resolve(path) for item in filters(config) for path in item.files()]
    return [file for path in [*writing.inputs(config), *paths] for file in rows.files(path)]


def filters(config: RunConfig) -> list[FilterConfig]:
    """The filters, with what they leave to the rest of the configuration."""
    return [cast("FilterConfig", item).completed(config) for item in config.generate.filters]


def run(config: RunConfig, folder: RunFolder) -> Sequence[Path]:
    """Ask, judge, split, write. Raises Refused, DataError, TooManyRejected, and what the teacher raises."""
    gates.check(config)  # licence and region, before anything is loaded or sent
    with Desk(config, folder) as desk:
        desk.check()
        top = config.generate.signals_top_k
        if top:
            capture.require(desk.provider(config.teacher), top, config.generate.signals_kind)
        made = writing.build(config, folder, desk)
        asked = _ask(desk, config, made.built.prompts)
        candidates = [_candidate(item, config) for item in asked]
        reasons = sieve.sift(candidates, filters(config), config.generate.verifiers, config.resolve, desk)
        reasons = sieve.select(candidates, reasons, config.generate.select)
        kept = [pair for pair, reason in zip(zip(asked, candidates, strict=True), reasons, strict=True) if not reason]
        held = dataset.split((row["cluster"] for _, row in kept), config.generate.holdout, config.seed)
        written = [folder.made_prompts] if config.prompts.source else []
        written += _write(folder, candidates, reasons, held)
        _refuse_if_too_many(config, folder, reasons)
        if top:
            answers = [(a.outcome.key, a.prompt.messages, row["answer"], a.outcome.completion) for a, row in kept]
            written += capture.write(desk.provider(config.teacher), config, folder, answers)
        facts = card.facts(config, desk, made, reasons, asked, folder.data_card)
        holdout = sum(row["cluster"] in held for _, row in kept)
        facts["rows"] |= {"train": len(kept) - holdout, "holdout": holdout}
        if config.generate.mix:
            said = (f"{one['kept']} of {one['asked']} of {one.get('model', one['kind'])}" for one in facts["teachers"])
            say(f"generate: kept {', '.join(said)}")
        artifacts.write_json(folder.data_card, facts)
        artifacts.write_bytes(folder.data_readme, page.readme(config.name, facts).encode("utf-8"))
        return [*written, folder.data_readme, folder.data_card]


# -- asking ------------------------------------------------------------------------------------------------------


def requests(
    config: RunConfig, items: Sequence[Prompt], choices: tuple[str, ...], top_logprobs: int, schema: str = ""
) -> list[tuple[Prompt, Request]]:
    """Each prompt with each of its requests, samples of a prompt side by side."""
    pairs = []
    for item in items:
        for sample in range(config.generate.samples):
            sampling = config.generate.sampling(sampling_seed(config, sample))
            pairs.append((item, Request(item.messages, sampling, choices, top_logprobs, sample, schema)))
    return pairs


def sampling_seed(config: RunConfig, sample: int) -> int:
    """The seed of a prompt's n-th answer, from the run's seed. Greedy answers depend on none: 0.

    Prompts share it: the same text under two ids is one request, paid once, and like requests fit in one batch.
    """
    if config.generate.temperature == 0:
        return Sampling().seed
    digest = hashlib.sha256(f"{config.seed}/{sample}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _ask(desk: Desk, config: RunConfig, items: Sequence[Prompt]) -> list[Asked]:
    """Every prompt's answers, in order, one teacher after the other."""
    whose = mix.assign(config, items)
    asked: dict[str, list[Asked]] = {}
    for number, settings in enumerate(config.teachers()):
        own = [item for item, teacher in zip(items, whose, strict=True) if teacher == number]
        if not own:
            continue
        provider = desk.provider(settings)
        choices = config.prompts.choices if provider.capabilities.choices else ()
        if config.prompts.choices and not choices:
            say("generate: this teacher cannot be held to prompts.choices; any other answer is rejected")
        schema = sieve.schema(config.generate.verifiers) if provider.capabilities.schema else ""
        pairs = requests(config, own, choices, capture.top_logprobs(provider, config.generate.signals_top_k), schema)
        title = f"generate: {_model(settings)}" if config.generate.mix else "generate"
        for pair, outcome in zip(pairs, desk.ask(settings, [r for _, r in pairs], title, "answers"), strict=True):
            asked.setdefault(pair[0].id, []).append(Asked(number, *pair, outcome))
    return [answer for item in items for answer in asked[item.id]]


def _model(settings: Any) -> str:
    return str(getattr(settings, "model", settings.kind))


def _candidate(item: Asked, config: RunConfig) -> dict[str, Any]:
    """What filters and verifiers see; the data set holds most of it."""
    completion, choices = item.outcome.completion, config.prompts.choices
    answer = completion.text.strip() if choices else completion.text
    return {
        "id": item.prompt.id,
        "sample": item.request.sample,
        "cluster": item.prompt.cluster,
        "lang": item.prompt.lang,
        "messages": [{"role": m.role, "content": m.content} for m in _students_messages(item.prompt, config)],
        "answer": answer,
        "reasoning": completion.reasoning,
        "finish": completion.finish,
        "reject": completion.reject or ("not_a_choice" if choices and answer not in choices else ""),
        "teacher": completion.model or _model(config.teachers()[item.teacher]),
        "request_key": item.outcome.key,
        "score": None,
        "meta": item.prompt.meta,
    }


def _students_messages(prompt: Prompt, config: RunConfig) -> tuple[Message, ...]:
    """The question as the student will read it: the data set is the student's."""
    if config.student.prompt is None:
        return prompt.messages
    own = config.student_prompts()
    return prompts.render(prompt.meta, own.system, own.template, own.examples)


# -- writing -----------------------------------------------------------------------------------------------------


def _write(folder: RunFolder, candidates: list[dict[str, Any]], reasons: list[str], held: set[str]) -> list[Path]:
    """train, holdout and rejects: together they are everything that was asked."""
    ready = [{**row, "meta": dataset.meta_text(row["meta"])} for row in candidates]
    kept = [row for row, reason in zip(ready, reasons, strict=True) if not reason]
    rejected = [{**row, "reason": reason} for row, reason in zip(ready, reasons, strict=True) if reason]
    parts = {
        folder.train_data: dataset.parquet([row for row in kept if row["cluster"] not in held]),
        folder.holdout_data: dataset.parquet([row for row in kept if row["cluster"] in held]),
        folder.rejects: dataset.parquet(rejected, rejected=True),
    }
    for path, data in parts.items():
        artifacts.write_bytes(path, data)
    return list(parts)


def _refuse_if_too_many(config: RunConfig, folder: RunFolder, reasons: list[str]) -> None:
    counts, most = sieve.count(reasons), config.generate.max_reject_rate
    if all(reasons) or sieve.share_rejected(reasons) > most:
        worst = ", ".join(f"{reason} {number}" for reason, number in list(counts.items())[:3])
        raise TooManyRejected(
            f"{sum(counts.values())} of {len(reasons)} answers rejected (max_reject_rate {most}): {worst}",
            where=str(folder.rejects),
            safe="every answer, in run.db",
            next="read the rejected answers, change prompts or filters, run the same command",
        )
