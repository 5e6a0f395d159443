"""Which answers are kept: the teacher's own failures, then the filters, then the verifiers."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from distill import plugins
from distill.errors import ConfigError
from distill.records import canonical_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from distill.generate.desk import Desk
    from distill.plugins import PluginConfig

FILTERS, VERIFIERS = "distill.generate.filters", "distill.generate.verifiers"
SELECT = "select/"


def sift(
    rows: Sequence[dict[str, Any]],
    filters: Sequence[PluginConfig],
    verifiers: Sequence[PluginConfig],
    resolve: Callable[[str], Path],
    desk: Desk | None = None,
) -> list[str]:
    """For each row "" when it is kept, else ``who/reason``; the first that objects is the one counted.

    ``row["reject"]`` holds the reason the provider gave, "" for a usable answer. A filter sees only the rows that
    are still standing, so a duplicate of a rejected row is not lost. ``row["score"]`` becomes the sum of the scores
    that verifiers gave it; ``desk`` is where those ask that need a model.
    """
    reasons = [f"teacher/{row['reject']}" if row["reject"] else "" for row in rows]
    for config in filters:
        module = plugins.load(FILTERS, config.kind)
        standing = [number for number, reason in enumerate(reasons) if not reason]
        located = config.located(resolve)  # type: ignore[attr-defined]
        found = module.keep([rows[number] for number in standing], located)
        if len(found) != len(standing):
            raise ConfigError(f"the filter {config.kind!r} gave {len(found)} verdicts on {len(standing)} rows")
        for number, reason in zip(standing, found, strict=True):
            reasons[number] = f"{config.kind}/{reason}" if reason else ""
    for config in verifiers:
        module = plugins.load(VERIFIERS, config.kind)
        standing = [number for number, reason in enumerate(reasons) if not reason]
        if hasattr(module, "check_all"):
            verdicts = module.check_all([rows[number] for number in standing], config, desk)
        else:
            verdicts = [(module.check(rows[number], config), None) for number in standing]
        for number, (reason, score) in zip(standing, verdicts, strict=True):
            reasons[number] = f"{config.kind}/{reason}" if reason else ""
            if score is not None:
                rows[number]["score"] = score + (rows[number].get("score") or 0.0)
    return reasons


def schema(verifiers: Sequence[PluginConfig]) -> str:
    """The JSON Schema that answers will be held to, as text: an engine that can is told at once. "" = none."""
    shapes = [getattr(config, "shape", None) for config in verifiers if config.kind == "json_schema"]
    return canonical_json(shapes[0]).decode("utf-8", "surrogatepass") if shapes and shapes[0] else ""


def select(rows: Sequence[dict[str, Any]], reasons: Sequence[str], how: str) -> list[str]:
    """``reasons`` with all but one kept answer of each prompt rejected, as ``generate.select`` says.

    Answers are the same when they differ in case and spacing only.
    """
    chosen = list(reasons)
    groups: dict[str, list[int]] = {}
    for number, (row, reason) in enumerate(zip(rows, reasons, strict=True)):
        if not reason and how != "all":
            groups.setdefault(row["id"], []).append(number)
    for numbers in groups.values():
        texts = [" ".join(rows[number]["answer"].casefold().split()) for number in numbers]
        if how == "best":
            best = max(numbers, key=lambda number: rows[number].get("score") or 0.0)  # the earliest of equals
            winner = texts[numbers.index(best)]
        else:
            # most_common keeps the order of first appearance among equals.
            winner = Counter(texts).most_common(1)[0][0] if how == "majority" else texts[0]
            best = numbers[texts.index(winner)]
        for number, text in zip(numbers, texts, strict=True):
            if number != best:
                chosen[number] = SELECT + ("same" if text == winner else "other")
    return chosen


def share_rejected(reasons: Sequence[str]) -> float:
    """Share of the answers that are unusable; answers passed over by :func:`select` were usable."""
    unusable = sum(bool(reason) and not reason.startswith(SELECT) for reason in reasons)
    return unusable / len(reasons)


def count(reasons: Sequence[str]) -> dict[str, int]:
    """Rejections by reason, the commonest first."""
    return dict(Counter(reason for reason in reasons if reason).most_common())
