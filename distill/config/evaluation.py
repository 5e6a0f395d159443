"""The `eval` section: how student and teacher are compared."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distill.config.measured import Energy, Load
from distill.config.section import Provider, Section, Task


class Serving(Section):
    """What running a model on your own machine costs. Stated by you, printed in the report."""

    eur_per_hour: Annotated[float, Field(ge=0)] | None = None
    """Price of the machine per hour, in EUR. Unknown stays unknown: no cost is then claimed."""
    utilisation: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Share of the paid hours in which the machine really answers."""
    amortise_months: Annotated[int, Field(ge=1, le=120)] = 12
    """Months over which the one-off bill of the distillation is spread in the break-even."""
    source: str = ""
    """Where the price comes from, and its date."""


class Eval(Section):
    """How student and teacher are compared."""

    tasks: tuple[Task, ...] = ()
    """Task files with their settings."""
    arms: tuple[Literal["teacher", "base", "base_forced", "base_prompted", "student", "baseline"], ...] = (
        "teacher",
        "base",
        "base_forced",
        "student",
        "baseline",
    )
    """Who answers. `base_forced`: the untouched student held to the legal answers. `base_prompted`: the same with the
    teacher's prompt, where the student has a shorter one. `baseline`: TF-IDF and logistic regression on the same
    teacher labels."""
    alternatives: tuple[Provider, ...] = ()
    """Further systems to judge beside the student: the cheap API that may make the distillation needless."""
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Non-inferiority margin: the student may lose at most this much accuracy against the teacher."""
    gate: Literal["none", "teacher", "base"] = "none"
    """`teacher`: exit 20/21 unless the student is non-inferior. `base`: unless it beats the base student."""
    draws: Annotated[int, Field(ge=1000)] = 10_000
    """Cluster-bootstrap draws, seeded."""
    self_consistency: Annotated[int, Field(ge=2, le=64)] | None = None
    """Answers drawn from the student to each item, at temperature 0.7. The cascade then gives what most of them say, is
    as sure as the share that agree, and pays for all of them. null: it gives the greedy answer, and is as sure as its
    tokens were likely."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Items answered at once by local models."""
    serving: Serving = Field(default_factory=Serving)
    """Cost of the machine the local arms run on."""
    teacher_serving: Serving | None = None
    """Cost of the machine a self-hosted teacher server runs on. A teacher in this process costs `serving`."""
    examples: Annotated[int, Field(ge=0)] = 50
    """Lost, gained and copied-error items shown in the report, each."""
    languages: Annotated[tuple[Literal["en", "fr"], ...], Field(min_length=1)] = ("en", "fr")
    """Languages of the report: `report.html` in English, `report.fr.html` in French."""
    pdf: bool = False
    """The report as PDF too, beside each page."""
    load: Load | None = None
    """Latency under load, at several concurrencies. Left out: not measured."""
    energy: Energy | None = None
    """Electricity and CO2e per answer. Left out: not measured."""

    @model_validator(mode="after")
    def _measured_arms(self) -> Eval:
        models = [a for a in self.arms if a != "baseline"]
        known = [*models, *(f"alternative-{n}" for n in range(1, len(self.alternatives) + 1))]
        for name in self.load.arms if self.load else ():
            if name not in known:
                raise ValueError(f"load.arms: {name!r} is none of the models asked: {', '.join(known)}")
        return self
