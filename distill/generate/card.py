"""The data set's card: counts, reasons, tokens, money, speed, and whose answers these are."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from distill import artifacts, gates, models, rows
from distill.generate import sieve
from distill.records import Usage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from distill.config import RunConfig
    from distill.prompts import Built
    from distill.providers._base import Provider
    from distill.query.ask import Outcome

NANO = 10**9
LOCAL = ("transformers", "vllm")


def facts(
    config: RunConfig,
    provider: Provider,
    built: Built,
    reasons: Sequence[str],
    outcomes: Sequence[Outcome],
    seconds: float,
    earlier: Path,
) -> dict[str, Any]:
    """The card as JSON values. Asking nothing new keeps the ``earlier`` card's speed: it is a fact of the answers."""
    identity = provider.identity()
    unique = {outcome.key: outcome for outcome in reversed(outcomes)}  # the first of a key says whether it was asked
    usage = sum((outcome.completion.usage for outcome in unique.values()), Usage())
    rejected = sieve.count(reasons)
    path = config.resolve(config.prompts.path)
    return {
        "schema": 1,
        "rows": {
            "read": built.read,
            "skipped": len(built.skipped),
            "prompts": len(built.prompts),
            "asked": len(reasons),
            "kept": len(reasons) - sum(rejected.values()),
            "rejected": sum(rejected.values()),
        },
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
        "speed": _speed(unique.values(), seconds, identity, earlier),
        "teacher": {**identity, "licence": licence(config)},
        "sampling": {
            "samples": config.generate.samples,
            "max_new_tokens": config.generate.max_new_tokens,
            "temperature": config.generate.temperature,
            "top_p": config.generate.top_p,
        },
        "filters": [item.model_dump(mode="json") for item in config.generate.filters],
        "verifiers": [item.model_dump(mode="json") for item in config.generate.verifiers],
        "prompts": {
            "file": path.name,
            "sha256": [artifacts.sha256_file(file) for file in rows.files(path)],
        },
        "seed": config.seed,
    }


def cost(outcomes: Any) -> dict[str, Any]:
    """What the answers cost: whole nano-EUR and EUR as exact text; None when any of them has no known price."""
    parts = [outcome.cost_nano for outcome in outcomes]
    if any(part is None for part in parts):
        return {"nano_eur": None, "eur": None}
    nano = sum(parts)
    return {"nano_eur": nano, "eur": f"{nano // NANO}.{nano % NANO:09d}"}


def _speed(outcomes: Any, seconds: float, identity: dict[str, Any], earlier: Path) -> dict[str, Any] | None:
    """Answers and tokens per second of the answers asked for now; None when there were none and no card says."""
    fresh = [outcome for outcome in outcomes if not outcome.cached]
    if not fresh:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            before = json.loads(earlier.read_text("utf-8"))
            if {**before["teacher"], "licence": None} == {**identity, "licence": None}:
                return dict(before["speed"]) if before["speed"] else None
        return None
    usage = sum((outcome.completion.usage for outcome in fresh), Usage())
    return {
        "answers": len(fresh),
        "seconds": round(seconds, 3),
        "prompt_tokens_per_s": round(usage.prompt / seconds, 3),
        "completion_tokens_per_s": round(usage.completion / seconds, 3),
    }


def licence(config: RunConfig) -> str | None:
    """What the answers are under: the licence stated with local weights, else the catalogue's rows; None = unknown."""
    if config.teacher.kind in LOCAL:
        model = str(getattr(config.teacher, "model", ""))
        if stated := models.resolve(model, config.resolve(".")).licence:
            return stated
    found = next(verdict for verdict in gates.verdicts(config) if verdict.kind == "licence")
    return ", ".join(found.rows) or None
