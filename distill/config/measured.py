"""`eval.load` and `eval.energy`: what is measured on machines beside the answers. Off unless written."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from distill.config.section import Section


class Objective(Section):
    """What a request must meet to count as served well. What is not given is not asked for."""

    ttft_s: Annotated[float, Field(gt=0)] | None = None
    """Longest time to the first token, in seconds. Needs an engine whose answers are streamed."""
    tpot_s: Annotated[float, Field(gt=0)] | None = None
    """Longest time per output token after the first, in seconds."""
    e2e_s: Annotated[float, Field(gt=0)] | None = None
    """Longest time from the send to the end of the answer, in seconds."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Share of all requests that must meet it before a concurrency counts as good."""


class Load(Section):
    """Latency under load: the evaluation's own items, sent again and again with a fixed number in flight."""

    concurrency: Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(min_length=1)] = (1, 4, 16)
    """Requests in flight, one level each. For an engine in this process: prompts of a batch."""
    requests: Annotated[int, Field(ge=2, le=1_000_000)] = 64
    """Requests counted at each level, after a round that is not. At least the highest concurrency."""
    arms: tuple[str, ...] = ()
    """Which arms or systems. Empty: teacher, student and alternatives; with `distill compare` every model."""
    objective: Objective = Field(default_factory=Objective)
    """What counts as served well."""
    paid: bool = False
    """Also measure systems whose calls cost money. Every call is then reserved under the cap before it leaves."""

    @model_validator(mode="after")
    def _levels(self) -> Load:
        if len(set(self.concurrency)) < len(self.concurrency):
            raise ValueError("each concurrency once")
        if self.requests < max(self.concurrency):
            raise ValueError(f"requests: at least the highest concurrency, {max(self.concurrency)}")
        return self


class Energy(Section):
    """Electricity of the answers and its CO2e: measured where this machine has counters, else estimated and said so."""

    zone: str = ""
    """Electricity grid this machine hangs on, as in `distill catalog grid` (FRA, DEU ...). Empty: no CO2e."""
    pue: Annotated[float, Field(ge=1, le=3)] = 1.5
    """Electricity of the whole site for each unit the machine takes. 1: a machine under a desk."""
    gpu: str = ""
    """Accelerator the models run on, as in `distill catalog gpus`: for the CO2e of making it, and for an estimate where
    its counter cannot be read."""
    gpus: Annotated[int, Field(ge=1, le=1024)] = 1
    """How many of them."""
    watts: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] | None = None
    """[least, most] watts of the whole machine at work: for an estimate where no counter can be read."""

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        from distill import catalog

        return _listed(value, [row.zone for row in catalog.grid()], "grid")

    @field_validator("gpu")
    @classmethod
    def _known_gpu(cls, value: str) -> str:
        from distill import catalog

        return _listed(value, [row.id for row in catalog.gpus()], "gpus")

    @field_validator("watts")
    @classmethod
    def _in_order(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and value[0] > value[1]:
            raise ValueError("the least first")
        return value


def _listed(value: str, known: list[str], table: str) -> str:
    if value and value not in known:
        raise ValueError(f"{value!r} is not in `distill catalog {table}`; known: {', '.join(sorted(known))}")
    return value
