"""The data set's card: counts, reasons, tokens, money, speed, and whose answers these are."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from distill import artifacts, gates, models, rows
from distill.generate import sieve
from distill.generate.desk import IN_PROCESS
from distill.records import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from distill.config import RunConfig
    from distill.generate.desk import Desk
    from distill.generate.run import Asked
    from distill.generate.writing import Made
    from distill.prompts import Built
    from distill.query.ask import Outcome

NANO = 10**9
COUNTS = ("asked", "kept", "cost")


def facts(
    config: RunConfig, desk: Desk, made: Made, reasons: Sequence[str], asked: Sequence[Asked], earlier: Path
) -> dict[str, Any]:
    """The card as JSON values. Asking nothing new keeps the ``earlier`` card's speed: it is a fact of the answers."""
    unique, built, path = desk.booked["answers"], made.built, made.path
    usage = sum((outcome.completion.usage for outcome in unique.values()), Usage())
    rejected = sieve.count(reasons)
    every = teachers(config, desk, reasons, asked)
    return {
        "schema": 1,
        "rows": _rows(built, len(reasons), sum(rejected.values())),
        "rejected": rejected,
        "skipped": built.skipped[:100],
        "languages": dict(sorted(Counter(prompt.lang for prompt in built.prompts).items())),
        "clusters": len({prompt.cluster for prompt in built.prompts}),
        "answers": len(unique),
        "tokens": {
            "prompt": usage.prompt,
            "completion": usage.completion,
            "cached": usage.cached,
            "reasoning": usage.reasoning,
        },
        "cost": cost(unique.values()),
        "spent": {part: cost(booked.values()) for part, booked in desk.booked.items()},
        "speed": _speed(unique.values(), desk.seconds["answers"], every, earlier),
        "teacher": {name: value for name, value in every[0].items() if name not in COUNTS},
        "teachers": every,
        "sampling": {
            "samples": config.generate.samples,
            "max_new_tokens": config.generate.max_new_tokens,
            "temperature": config.generate.temperature,
            "top_p": config.generate.top_p,
        },
        "filters": [item.model_dump(mode="json") for item in config.generate.filters],
        "verifiers": [item.model_dump(mode="json") for item in config.generate.verifiers],
        "prompts": {
            "file": config.prompts.path if config.prompts.path.startswith("hub:") else path.name,
            **made.facts,
            "sha256": [artifacts.sha256_file(file) for file in rows.files(path)],
        },
        "seed": config.seed,
        "permission": gates.as_json(gates.verdicts(config)),
    }


def _rows(built: Built, asked: int, rejected: int) -> dict[str, int]:
    return {
        "read": built.read,
        "skipped": len(built.skipped),
        "prompts": len(built.prompts),
        "masked": built.masked,
        "asked": asked,
        "kept": asked - rejected,
        "rejected": rejected,
    }


def teachers(config: RunConfig, desk: Desk, reasons: Sequence[str], asked: Sequence[Asked]) -> list[dict[str, Any]]:
    """Each teacher that answered: who it is, what its answers are under, how many were asked for and kept, the cost."""
    found = []
    for number, settings in enumerate(config.teachers()):
        own = [(item, reason) for item, reason in zip(asked, reasons, strict=True) if item.teacher == number]
        if own or number == 0:
            counts = {
                "asked": len(own),
                "kept": sum(not reason for _, reason in own),
                "cost": cost({item.outcome.key: item.outcome for item, _ in own}.values()),
            }
            found.append({**desk.identity(settings), "licence": licence(config, number), **counts})
    return found


def cost(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """What the answers cost: whole nano-EUR and EUR as exact text; None when any of them has no known price."""
    nano = 0
    for outcome in outcomes:
        if outcome.cost_nano is None:
            return {"nano_eur": None, "eur": None}
        nano += outcome.cost_nano
    return {"nano_eur": nano, "eur": f"{nano // NANO}.{nano % NANO:09d}"}


def _speed(
    outcomes: Iterable[Outcome], seconds: float, every: list[dict[str, Any]], earlier: Path
) -> dict[str, Any] | None:
    """Answers and tokens per second of the answers asked for now; None when there were none and no card says."""
    fresh = [outcome for outcome in outcomes if not outcome.cached]
    if not fresh:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            before = json.loads(earlier.read_text("utf-8"))
            if [_who(one) for one in before["teachers"]] == [_who(one) for one in every]:
                return dict(before["speed"]) if before["speed"] else None
        return None
    usage = sum((outcome.completion.usage for outcome in fresh), Usage())
    return {
        "answers": len(fresh),
        "seconds": round(seconds, 3),
        "prompt_tokens_per_s": round(usage.prompt / seconds, 3),
        "completion_tokens_per_s": round(usage.completion / seconds, 3),
    }


def _who(teacher: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in teacher.items() if name not in COUNTS and name != "licence"}


def licence(config: RunConfig, number: int = 0) -> str | None:
    """What a teacher's answers are under: the licence stated with local weights, else the catalogue's; None = unknown.

    ``number`` is its place in ``config.teachers()``.
    """
    settings = config.teachers()[number]
    if settings.kind in IN_PROCESS:
        model = str(getattr(settings, "model", ""))
        if stated := models.resolve(model, config.resolve(".")).licence:
            return stated
    role = gates.teacher_role(number + 1)
    found = next(verdict for verdict in gates.verdicts(config) if (verdict.kind, verdict.role) == ("licence", role))
    return ", ".join(found.rows) or None
