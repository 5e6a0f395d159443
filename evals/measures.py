"""What is measured beside the answers, for `distill eval` and `distill compare`: latency under load, electricity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evals import energy, load

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from distill.config import Energy, Load
    from distill.query.store import Store
    from evals.analysis import Arm
    from evals.load import Subject, Swept
    from evals.meter import Meter


def swept(settings: Load | None, subjects: Sequence[Subject], store: Store, path: Path, machine: str) -> list[Swept]:
    """The load sweep, where one is wanted."""
    return [] if settings is None else load.sweep(settings, subjects, store, path, machine)


def parts(
    loading: Load | None,
    electricity: Energy | None,
    found: Sequence[Swept],
    subjects: Sequence[Subject],
    arms: Sequence[Arm],
    meter: Meter | None,
) -> dict[str, Any]:
    """`load` and `energy` of report.json; null where they are off."""
    best = {}
    if loading is not None:
        levels = {one.name: load.best_level(loading, one) for one in found}
        best = {name: level for name, level in levels.items() if level is not None}
    systems = {subject.name: subject.settings for subject in subjects}
    return {
        "load": load.report(loading, found, subjects) if loading is not None else None,
        "energy": energy.statement(electricity, arms, systems, best, meter) if electricity is not None else None,
    }
