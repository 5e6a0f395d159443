"""What is measured beside the answers, for `distill eval` and `distill compare`: latency under load, electricity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evals import energy, load
from evals.load import Subject, Swept  # noqa: TC001 - a dataclass's fields
from evals.meter import Meter  # noqa: TC001 - a dataclass's field

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from distill.config import Energy, Load
    from distill.query.store import Store
    from evals.analysis import Arm


@dataclass(frozen=True)
class Measured:
    """The models that were asked here, what the load sweep found, and the meter."""

    subjects: Sequence[Subject] = ()
    swept: Sequence[Swept] = ()
    meter: Meter | None = None


def taken(
    settings: Load | None, subjects: Sequence[Subject], meter: Meter | None, store: Store, path: Path, machine: str
) -> Measured:
    """The load sweep, where one is wanted. ``path``: of the finished levels."""
    swept = [] if settings is None else load.sweep(settings, subjects, store, path, machine)
    return Measured(subjects, swept, meter)


def parts(loading: Load | None, electricity: Energy | None, found: Measured, arms: Sequence[Arm]) -> dict[str, Any]:
    """`load` and `energy` of report.json; null where they are off."""
    best = {}
    if loading is not None:
        levels = {one.name: load.best_level(loading, one) for one in found.swept}
        best = {name: level for name, level in levels.items() if level is not None}
    systems = {subject.name: subject.settings for subject in found.subjects}
    return {
        "load": load.report(loading, found.swept, found.subjects) if loading is not None else None,
        "energy": energy.statement(electricity, arms, systems, best, found.meter) if electricity is not None else None,
    }
