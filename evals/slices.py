"""Accuracy and paired difference in each language, each task and each value of the further fields a task names.

Exploratory: one family of p-values, adjusted together (Holm 1979), however many ways the same items are cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distill.errors import DataError
from evals import stats

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evals.samples import Sample

MOST = 50
"""Values of a field; one that names the items is no slice."""


def sliced(
    samples: Mapping[str, Sequence[Sample]], clusters: Sequence[Any], candidate: str, reference: str
) -> dict[str, Any]:
    """`languages` and `tasks`, each a list of rows, and `slices`: field -> rows. Raises DataError for over MOST values.

    The fields are those of the reference's samples; items without a value belong to no row.
    """
    first = samples[reference]

    def rows(values: Sequence[str]) -> list[dict[str, Any]]:
        return [
            _row(samples, clusters, candidate, reference, value, [n for n, v in enumerate(values) if v == value])
            for value in sorted(set(values) - {""})
        ]

    fields = {name: [s.slices.get(name, "") for s in first] for name in sorted({n for s in first for n in s.slices})}
    for name, values in fields.items():
        if len(set(values) - {""}) > MOST:
            raise DataError(
                f"the field {name!r} has {len(set(values))} values, at most {MOST} can be told apart",
                where="slices",
                next="name a field of few values",
            )
    langs, tasks = rows([s.lang for s in first]), rows([s.task for s in first])
    further = {name: rows(values) for name, values in fields.items()}
    family = [*langs, *tasks, *(row for part in further.values() for row in part)]
    for row, adjusted in zip(family, stats.holm([row["p"] for row in family]), strict=True):
        row["p_holm"] = adjusted
    return {"languages": langs, "tasks": tasks, "slices": further}


def _row(
    samples: Mapping[str, Sequence[Sample]],
    clusters: Sequence[Any],
    candidate: str,
    reference: str,
    value: str,
    index: Sequence[int],
) -> dict[str, Any]:
    scores = {name: [rows[n].correct for n in index] for name, rows in samples.items()}
    inside = [clusters[n] for n in index]
    difference = stats.paired_difference(scores[candidate], scores[reference], inside)
    return {
        "name": value,
        "n": len(index),
        "arms": {name: {"accuracy": stats.accuracy(found, inside).as_dict()} for name, found in scores.items()},
        "difference": difference.finite(),
        "p": stats.p_value(difference),
    }
