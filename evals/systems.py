"""What stands on the command line of `distill compare`: a file of answers, settings of a provider, or a model."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill import config as configuration
from distill import plugins, strict_yaml
from distill.errors import ConfigError
from evals import samples
from evals.analysis import Arm
from evals.economics import billed
from evals.tasks._base import sliced

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evals.asking import Exam

NAMED = re.compile(r"^([A-Za-z][\w.-]{0,39})=(.+)$")
SETTINGS = (".yaml", ".yml")


@dataclass(frozen=True)
class System:
    """One argument: ``path`` of a file of answers, or the ``settings`` of a provider."""

    name: str
    path: Path | None = None
    settings: plugins.PluginConfig | None = None
    folder: Path = Path()


def parse(arguments: Sequence[str]) -> list[System]:
    """Systems with distinct names. Raises ConfigError."""
    found: list[System] = []
    for argument in arguments:
        system = _parse(argument)
        taken = {other.name for other in found}
        if system.name in taken:
            number = next(n for n in range(2, len(arguments) + 2) if f"{system.name}-{n}" not in taken)
            system = replace(system, name=f"{system.name}-{number}")
        found.append(system)
    return found


def _parse(argument: str) -> System:
    named = None if Path(argument).exists() else NAMED.match(argument)
    name, value = (named[1], named[2]) if named else ("", argument)
    path = Path(value)
    if path.suffix in samples.SUFFIXES:
        return System(name or path.stem, path=path)
    if path.suffix in SETTINGS:
        return System(name or path.stem, settings=_settings(path), folder=path.resolve().parent)
    if path.exists() and not path.is_dir():
        raise ConfigError(
            f"not a system: {value!r}", next="NAME.jsonl, NAME.parquet, NAME.yaml with a provider, or a model"
        )
    model = f"path:{path.resolve()}" if path.is_dir() else value
    module = plugins.load("distill.providers", "transformers")
    return System(
        name or (path.name if path.is_dir() else value), settings=module.Config(kind="transformers", model=model)
    )


def _settings(path: Path) -> plugins.PluginConfig:
    """The provider settings in a YAML file."""
    values = strict_yaml.read_yaml(path)
    kind = values.get("kind")
    if not isinstance(kind, str):
        names = ", ".join(plugins.available("distill.providers"))
        raise ConfigError(
            "'kind' is missing: a system's file holds the settings of one provider",
            where=str(path),
            next=f"kind: one of {names}",
        )
    made: plugins.PluginConfig = configuration.validate(
        plugins.load("distill.providers", kind).Config, values, str(path)
    )
    return made


def recorded(system: System, questions: Sequence[Exam] = ()) -> Arm:
    """The arm of a file of answers: nothing is loaded and nothing is asked.

    ``questions``: what the suite asks. Rows without `correct` are scored by it; rows without `task` are its only one's.
    """
    assert system.path is not None
    lone = only_task(questions)
    rows = samples.read(system.path, lone, scorer(questions, lone) if questions else None)
    cut = {(q.config.title, q.item.id): sliced(q.item, q.config) for q in questions if q.config.slices}
    rows = [replace(row, slices=found) if (found := cut.get((row.task, row.id))) else row for row in rows]
    costs = billed(rows)
    known = sum(row.cost_nano is not None for row in rows)
    note = "" if costs or not known else f"cost known for {known} of {len(rows)} items"
    return Arm(
        system.name,
        system.name,
        rows,
        costs=costs,
        cost_source="stated in the file" if costs else "no price is known",
        note=note,
    )


def only_task(questions: Sequence[Exam]) -> str:
    """The name of the task, when there is one alone; else ""."""
    titles = {q.config.title for q in questions}
    return titles.pop() if len(titles) == 1 else ""


def scorer(questions: Sequence[Exam], lone: str) -> samples.Score:
    """``score(row)`` by the task that asks the row's item; None for an item that nobody asks."""
    known = {(q.config.title, q.item.id): q for q in questions}

    def score(row: Mapping[str, Any]) -> float | None:
        question = known.get((str(row.get("task") or lone), str(row.get("id"))))
        if question is None:
            return None
        text = row.get("text")
        return 0.0 if text is None else question.module.score(question.item, str(text), question.config)

    return score
