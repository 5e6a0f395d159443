"""Self-consistency: several answers drawn from the same system, what most of them say, and how many agree.

Wang et al. 2022 (arXiv 2203.11171). Answers are equal when the task's own normal form is. A broken answer agrees with
nobody. Every draw has its own key in the store: what was drawn once is neither drawn nor paid again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill.records import Request
    from evals.samples import Sample


TEMPERATURE = 0.7


def drawn(requests: Sequence[Request], answers: int, seed: int = 0) -> list[Request]:
    """``answers`` requests for each one, next to each other, without log-probabilities."""
    return [
        replace(
            request,
            sampling=replace(request.sampling, temperature=TEMPERATURE, seed=seed),
            sample=number,
            top_logprobs=0,
        )
        for request in requests
        for number in range(answers)
    ]


def tallied(samples: Sequence[Sample], answers: int) -> list[Sample]:
    """One sample for each ``answers`` of one item: the first that says what most say, with what all of them took.

    Its confidence is the share of the answers asked for that say so. Of equally many the earliest wins.
    """
    return [_tally(samples[start : start + answers]) for start in range(0, len(samples), answers)]


def _tally(group: Sequence[Sample]) -> Sample:
    forms = ["" if s.broken else s.predicted for s in group]
    votes = Counter(form for form in forms if form)
    best = max(votes, key=lambda form: (votes[form], -forms.index(form))) if votes else ""
    whole = (n for n, s in enumerate(group) if not s.broken)
    winner = group[forms.index(best) if votes else next(whole, 0)]
    return replace(
        winner,
        confidence=None if winner.broken else votes[best] / len(group) if votes else 0.0,
        prompt_tokens=_total([s.prompt_tokens for s in group]),
        completion_tokens=_total([s.completion_tokens for s in group]),
        cached_tokens=_total([s.cached_tokens for s in group]),
        cost_nano=_total([s.cost_nano for s in group]),
        latency_s=None,
        request_key="",
    )


def _total(values: Sequence[int | None]) -> int | None:
    """The sum; unknown when one is."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def per_item(costs: Sequence[float] | None, answers: int) -> tuple[float, ...] | None:
    """What the answers to each item cost together."""
    if costs is None:
        return None
    return tuple(sum(costs[start : start + answers]) for start in range(0, len(costs), answers))
