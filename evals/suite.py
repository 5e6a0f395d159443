"""A suite: the tasks that `distill compare` puts to its systems, in one YAML file.

name: sections
system: Answer with one word.
template: "{{ text }}"
choices: [games, mail]
tasks:
  - {kind: classification, path: test.jsonl, licence: CC-BY-4.0}
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import Field, PrivateAttr

from distill import config as configuration
from distill import strict_yaml
from distill.config import Energy, Load, Prompts, Section, Serving, Task
from distill.errors import ConfigError, Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evals.asking import Exam
    from evals.tasks._base import TaskConfig

SHIPPED = Path(__file__).with_name("suites")
UNPINNED = re.compile(r"hub:(?P<id>[^@:]+)@PIN(?P<split>:.*)?$")
NON_COMMERCIAL = re.compile(r"(^|[\s_-])nc([\s_.-]|$)|non-?\s?commercial", re.IGNORECASE)


class Suite(Section):
    """What is asked, how, and on whose money."""

    name: str = ""
    """Shown in the report; default: the file's name."""
    profile: Literal["internal", "client"] = "internal"
    """`client`: a report that is sold. A set whose licence forbids commercial use is then refused."""
    tasks: Annotated[tuple[Task, ...], Field(min_length=1)]
    """Task files with their settings."""
    system: str = ""
    """System message."""
    template: str = "{{ prompt }}"
    """Jinja template of the user message."""
    choices: tuple[str, ...] = ()
    """The legal answers."""
    cluster_field: str | None = None
    """Field of what was sampled together."""
    lang_field: str | None = None
    """Field that holds the language code."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 256
    """Longest answer in tokens."""
    serving: Serving = Field(default_factory=Serving)
    """Cost of this machine, for models that run in this process."""
    load: Load | None = None
    """Latency under load of the systems that are models. Left out: not measured."""
    energy: Energy | None = None
    """Electricity and CO2e per answer. Left out: not measured."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of the items drawn and of the bootstrap."""

    _folder: Path = PrivateAttr(default=Path())

    @property
    def folder(self) -> Path:
        """Relative paths start here."""
        return self._folder

    @property
    def task_configs(self) -> tuple[TaskConfig, ...]:
        """The tasks, as what they are."""
        return cast("tuple[TaskConfig, ...]", self.tasks)

    def prompts(self) -> Prompts:
        """What the tasks leave open."""
        return Prompts(
            path=".",
            system=self.system,
            template=self.template,
            choices=self.choices,
            cluster_field=self.cluster_field,
            lang_field=self.lang_field,
        )


def load(path: Path, pins: Mapping[str, str] | None = None) -> Suite:
    """Read and validate a suite: a file, or the name of a shipped one. ``pins``: data set of a hub -> its commit.

    Raises ConfigError, and Refused for a set that a client report may not use.
    """
    if not path.exists() and (shipped := SHIPPED / f"{path}.yaml").is_file():
        path = shipped
    suite = configuration.validate(
        Suite, _pinned(strict_yaml.read_yaml(path), {} if pins is None else pins, path), str(path)
    )
    suite._folder = path.resolve().parent
    if suite.profile == "client":
        for task in suite.task_configs:
            if NON_COMMERCIAL.search(task.licence):
                raise Refused(
                    f"the licence {task.licence!r} of {task.path} forbids commercial use",
                    where=str(path),
                    next="leave the set out, or profile: internal",
                )
    return suite


def _pinned(values: dict[str, Any], pins: Mapping[str, str], path: Path) -> dict[str, Any]:
    """The suite with commits in place of `PIN`. Raises ConfigError for a data set without one."""
    tasks = values.get("tasks")
    if not isinstance(tasks, list):
        return values
    found = []
    for task in tasks:
        source = task.get("path") if isinstance(task, dict) else None
        match = UNPINNED.match(source) if isinstance(source, str) else None
        if match is None:
            found.append(task)
            continue
        name = match["id"]
        if name not in pins:
            raise ConfigError(
                f"no commit of {name} is pinned: what is examined would change from one day to the next",
                where=str(path),
                next=f"--pin {name}=COMMIT (the data set's page lists its commits)",
            )
        found.append({**task, "path": f"hub:{name}@{pins[name]}{match['split'] or ''}"})
    return {**values, "tasks": found}


def questions(suite: Suite) -> list[Exam]:
    """Everything that a suite asks, in a fixed order."""
    from evals.asking import exams

    return exams(suite.tasks, suite.prompts(), suite.max_new_tokens, suite.folder, suite.seed)
