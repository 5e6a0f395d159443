"""May this teacher's answers train this student, and where do the prompts go? Asked before anything is sent.

Fails closed: what the catalogue does not know is refused until a person takes it upon them (``policy.waivers``).
What is forbidden needs the owner's permission, written into the user's own catalogue. Not legal advice.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from distill.catalog.route import route_of
from distill.errors import Refused
from distill.gates.licences import base_licence, data_licences, student_licence, teacher_licence
from distill.gates.regions import expand, name, region
from distill.gates.verdict import Verdict
from distill.providers._base import ProviderConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distill.config import RunConfig

__all__ = [
    "FAKE",
    "Verdict",
    "as_json",
    "asked",
    "check",
    "check_regions",
    "expand",
    "refuse",
    "teacher_role",
    "verdicts",
]

FAKE = "fake"


def check(config: RunConfig) -> list[Verdict]:
    """Every finding. Raises Refused (exit 5) when one of them stops the run, with what would unblock it."""
    found = verdicts(config)
    refuse(found)
    return found


def check_regions(config: RunConfig) -> None:
    """Raise Refused (exit 5) when a question would go where it may not: asked again before the evaluation."""
    every = [*asked(config), *examined(config)]
    refuse([region(role, route_of(other), config.policy) for role, other in every if other.kind != FAKE])


def refuse(found: list[Verdict]) -> None:
    """Raise Refused for the first finding that stops the run."""
    stopping = [verdict for verdict in found if not verdict.passes]
    if stopping:
        more = f" (and {len(stopping) - 1} more: distill plan shows all)" if len(stopping) > 1 else ""
        raise Refused(f"{stopping[0]}{more}", safe="nothing was sent", next=stopping[0].unblock)


def as_json(found: list[Verdict]) -> list[dict[str, Any]]:
    """The findings as JSON values, for data set card, model card and bundle."""
    return [{**asdict(verdict), "passes": verdict.passes} for verdict in found]


def verdicts(config: RunConfig) -> list[Verdict]:
    """Licence of everything that writes training text, regions of all that read a prompt, the base, and the name."""
    found: list[Verdict] = []
    for role, provider in asked(config):
        route = route_of(provider)
        if provider.kind == FAKE:
            made_up = "no model: the settings make its answers up"
            found.append(Verdict("licence", role, route.model, "allowed", made_up))
            continue
        found.append(teacher_licence(role, route, config))
        found.append(region(role, route, config.policy))
    found += data_licences(config)
    found += [region(role, route_of(other), config.policy) for role, other in examined(config) if other.kind != FAKE]
    base = base_licence(config)
    return [*found, base, *name(config, [*found, base]), *student_licence(config, base)]


def asked(config: RunConfig) -> Iterator[tuple[str, Any]]:
    """(role, settings) of each model whose text or judgement reaches the data: every teacher, and any judge."""
    for number, teacher in enumerate(config.teachers(), start=1):
        yield teacher_role(number), teacher
    for part in ("filters", "verifiers"):
        for plugin in getattr(config.generate, part):
            for provider in _providers_in(plugin):
                yield f"{part.removesuffix('s')} {plugin.kind}", provider


def examined(config: RunConfig) -> Iterator[tuple[str, Any]]:
    """(role, settings) of each engine that reads prompts and teaches nothing: the evaluation's, and the rollouts'."""
    if config.train.rollout_engine is not None:
        yield "rollout engine", config.train.rollout_engine
    for number, other in enumerate(config.eval.alternatives, start=1):
        yield f"alternative {number}", other
    for task in config.eval.tasks:
        for provider in _providers_in(task):
            yield f"task {task.kind}", provider


def teacher_role(number: int) -> str:
    """What the verdicts call the n-th teacher."""
    return "teacher" if number == 1 else f"teacher {number}"


def _providers_in(settings: BaseModel) -> Iterator[ProviderConfig]:
    for value in (getattr(settings, field) for field in type(settings).model_fields):
        for item in value if isinstance(value, list | tuple) else (value,):
            if isinstance(item, ProviderConfig):
                yield item
            elif isinstance(item, BaseModel):
                yield from _providers_in(item)
