"""The cascade of a report: of the candidate's own answers, or of what most of several sampled ones say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evals import cascade, crossfit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from evals.analysis import Arm, Question
    from evals.bootstrap import Draws
    from evals.cascade import Confidence, Records
    from evals.samples import Sample


@dataclass(frozen=True)
class Deferral:
    """The records, and the choice that was made on each half of them."""

    records: Records
    confidence: Confidence
    margin: float
    fit: tuple[list[float | None], NDArray[np.bool_]] | None

    @classmethod
    def of(
        cls,
        arms: Sequence[Arm],
        samples: Mapping[str, Sequence[Sample]],
        costs: Mapping[str, Sequence[float] | None],
        clusters: Sequence[Any],
        question: Question,
    ) -> Deferral | None:
        """``samples``, ``costs``: of each arm, in one order. None when the candidate's answers have no confidence."""
        candidate = next(arm for arm in arms if arm.name == question.candidate)
        teacher = samples[question.reference]
        student, own = samples[question.candidate], costs[question.candidate]
        if candidate.voted:
            place = {(s.task, s.id): n for n, s in enumerate(candidate.voted)}
            if any((s.task, s.id) not in place for s in teacher):
                return None  # a task that is read and not answered has nothing to vote on
            index = [place[s.task, s.id] for s in teacher]
            student = [candidate.voted[n] for n in index]
            own = None if candidate.voted_costs is None else [candidate.voted_costs[n] for n in index]
        found = cascade.records(student, teacher, clusters, own, costs[question.reference])
        if found is None:
            return None
        confidence: Confidence = "self_consistency" if candidate.voted else "logprob"
        return cls(found, confidence, question.margin, crossfit.fitted(found, question.margin, question.seed))

    def columns(self) -> dict[str, Any]:
        """What the bootstrap draws with everything else."""
        return cascade.columns(self.records, self.fit[1] if self.fit else None)

    def report(self, drawn: Draws) -> dict[str, Any]:
        """`report["cascade"]`."""
        held_out = crossfit.held_out(self.records, self.fit, self.margin, drawn)
        return cascade.cascade(self.records, self.margin, drawn, self.confidence, held_out)
