"""Samples that lm-evaluation-harness wrote with `--log_samples`, as rows of ours; the harness itself is not needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distill.errors import DataError
from distill.progress import say

if TYPE_CHECKING:
    from collections.abc import Sequence

MARKS = {"doc_id", "filtered_resps", "metrics"}
PREFERRED = ("acc", "exact_match", "em", "f1", "acc_norm")


def translated(rows: Sequence[dict[str, Any]], where: str) -> list[dict[str, Any]]:
    """The rows as they are, or translated when they are lm-eval's. Raises DataError."""
    if not rows or not rows[0].keys() >= MARKS:
        return list(rows)
    filters = list(dict.fromkeys(str(row.get("filter", "none")) for row in rows))
    if len(filters) > 1:
        say(f"{where}: read with the filter {filters[0]!r}; left out: {', '.join(filters[1:])}")
    kept = [row for row in rows if str(row.get("filter", "none")) == filters[0]]
    found = []
    for row in kept:
        place = f"{where}, doc {row.get('doc_id')}"
        try:
            found.append(_row(row, place))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DataError(f"not a logged sample of lm-eval: {error!r:.80}", where=place) from None
    return found


def _row(row: dict[str, Any], where: str) -> dict[str, Any]:
    """One document: the same document has the same id in every run."""
    metric = _metric(row)
    if metric is None:
        raise DataError("no metric between 0 and 1", where=where, next="give rows with 'id' and 'correct' instead")
    asked, options = _arguments(row)
    answer, gold = row["filtered_resps"], row.get("target")
    if isinstance(answer, list) and answer and isinstance(answer[0], list):
        best = max(range(len(answer)), key=lambda i: float(answer[i][0]))
        text = options[best] if best < len(options) else str(best)
        gold = options[gold] if isinstance(gold, int) and 0 <= gold < len(options) else gold
    else:
        text = str(answer[0]) if isinstance(answer, list) and answer else str(answer)
    return {
        "id": f"{row['doc_id']}:{str(row.get('doc_hash', ''))[:12]}",
        "gold": str(gold),
        "prompt": asked,
        "text": text,
        "correct": metric,
    }


def _metric(row: dict[str, Any]) -> float | None:
    """The row's own score: accuracy or exact match before any other."""
    names = [name for name in row["metrics"] if isinstance(name, str)]
    for name in [*(n for n in PREFERRED if n in names), *names]:
        value = row.get(name)
        if isinstance(value, int | float) and 0 <= value <= 1:
            return float(value)
    return None


def _arguments(row: dict[str, Any]) -> tuple[str, list[str]]:
    """(context, continuations); the written file and the one in memory differ in shape."""
    found = row.get("arguments") or []
    groups = list(found.values()) if isinstance(found, dict) else list(found)
    pairs = [list(g.values()) if isinstance(g, dict) else list(g) for g in groups]
    texts = [[str(part) for part in pair if isinstance(part, str)] for pair in pairs]
    return (texts[0][0] if texts and texts[0] else ""), [t[1].strip() for t in texts if len(t) > 1]
