"""Which answers are kept: the teacher's own failures, then the filters, then the verifiers."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from distill import plugins
from distill.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from distill.plugins import PluginConfig

FILTERS, VERIFIERS = "distill.generate.filters", "distill.generate.verifiers"


def sift(
    rows: Sequence[dict[str, Any]],
    filters: Sequence[PluginConfig],
    verifiers: Sequence[PluginConfig],
    resolve: Callable[[str], Path],
) -> list[str]:
    """For each row "" when it is kept, else ``who/reason``; the first that objects is the one counted.

    ``row["reject"]`` holds the reason the provider gave, "" for a usable answer. A filter sees only the rows that
    are still standing, so a duplicate of a rejected row is not lost.
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
        check = plugins.load(VERIFIERS, config.kind).check
        for number, row in enumerate(rows):
            if not reasons[number] and (reason := check(row, config)):
                reasons[number] = f"{config.kind}/{reason}"
    return reasons


def count(reasons: Sequence[str]) -> dict[str, int]:
    """Rejections by reason, the commonest first."""
    return dict(Counter(reason for reason in reasons if reason).most_common())
