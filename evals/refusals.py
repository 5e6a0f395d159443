"""How often each system declines to answer, on tasks whose answers are text.

A guess by the openings that distill/refusals.py lists for 24 languages: a refusal in other words is not seen. An answer
that never came (a provider's content filter, a broken call) is no refusal: it is counted among the arm's rejects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distill.refusals import refused
from evals.stats import accuracy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evals.samples import Sample


def refusals(
    candidate: Sequence[Sample], reference: Sequence[Sample], clusters: Sequence[Any], texts: Sequence[str]
) -> dict[str, Any] | None:
    """Share of refusals of both systems with its interval over clusters, and how many items both refuse.

    ``texts``: the tasks whose answers are text. None when no item belongs to one.
    """
    index = [n for n, sample in enumerate(reference) if sample.task in texts]
    if not index:
        return None
    inside = [clusters[n] for n in index]
    ours = [bool(refused(candidate[n].text)) for n in index]
    theirs = [bool(refused(reference[n].text)) for n in index]
    return {
        "candidate": {"n": len(index), "share": accuracy(ours, inside).as_dict()},
        "reference": {"n": len(index), "share": accuracy(theirs, inside).as_dict()},
        "both": sum(a and b for a, b in zip(ours, theirs, strict=True)),
    }
