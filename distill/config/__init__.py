"""One YAML file = one run. Parsing, overrides, validation; nothing heavy is imported here.

The file is YAML 1.2 (``no`` is text, ``2e-4`` is a number), without tags, anchors or duplicate keys.
Overrides (``train.lr=2e-5``) go through the same parser. Every problem is reported at once, each with file,
dotted path and the nearest known name. Paths in the file are relative to the file.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, PrivateAttr, model_validator

from distill.config.evaluation import Eval, Serving
from distill.config.generate import Generate, Mixed
from distill.config.measured import Energy, Load, Objective
from distill.config.policy import Policy, Waiver
from distill.config.prompts import Example, Prompts
from distill.config.release import Declared, Release
from distill.config.section import Provider, Section, Task, problems, validate
from distill.config.student import Adapter, Prune, Student, StudentPrompt
from distill.config.train import LIVE_METHODS, SERVED_METHODS, Train
from distill.records import canonical_json
from distill.strict_yaml import apply_override, read_yaml

if TYPE_CHECKING:
    from distill.plugins import PluginConfig

__all__ = [
    "LIVE_METHODS",
    "Adapter",
    "Declared",
    "Energy",
    "Eval",
    "Example",
    "Generate",
    "Load",
    "Mixed",
    "Objective",
    "Policy",
    "Prompts",
    "Provider",
    "Prune",
    "Release",
    "RunConfig",
    "Section",
    "Serving",
    "Student",
    "StudentPrompt",
    "Task",
    "Train",
    "Waiver",
    "load",
    "problems",
    "validate",
]


class RunConfig(Section):
    """One run, from prompts to client bundle."""

    name: Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z._-]*$", max_length=80)]
    """Name of the run; its folder is `runs/<name>`."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of everything: draws, splits, initialisation, row order, bootstrap."""
    prompts: Prompts
    """Where the prompts come from."""
    teacher: Provider
    """Who is asked."""
    generate: Generate = Field(default_factory=Generate)
    """How the teacher is asked."""
    student: Student
    """The model that will be yours."""
    train: Train = Field(default_factory=Train)
    """How it learns."""
    eval: Eval = Field(default_factory=Eval)
    """How student and teacher are compared."""
    release: Release = Field(default_factory=Release)
    """What the client receives."""
    policy: Policy = Field(default_factory=Policy)
    """What the student is for, and where prompts may go."""

    _folder: Path = PrivateAttr(default=Path())

    @model_validator(mode="after")
    def _the_teacher_can_serve_the_method(self) -> RunConfig:
        method, kind = self.train.method, self.teacher.kind
        served = kind == "openai" and method in SERVED_METHODS
        if method in LIVE_METHODS and kind != "transformers" and not served:
            raise ValueError(
                f"train.method {method!r} needs the teacher's weights in this process, and teacher.kind is {kind!r}; "
                "use teacher.kind: transformers, or train.method: offline_topk or sft"
            )
        if served and (not getattr(self.teacher, "top_logprobs", 0) or self.train.temperature != 1):
            raise ValueError(
                f"train.method {method!r} with a teacher on a vLLM server learns from teacher.top_logprobs (20, for "
                "example) of each token, at train.temperature 1; set both, or use teacher.kind: transformers"
            )
        if method == "offline_topk" and not self.generate.signals_top_k:
            raise ValueError(
                "train.method 'offline_topk' learns from stored log-probabilities, and none are stored; "
                "set generate.signals_top_k (20, for example), or train.method: sft"
            )
        return self

    @model_validator(mode="after")
    def _a_server_can_have_the_students_weights(self) -> RunConfig:
        kind, pruned = self.student.adapter.kind, self.student.prune is not None
        if self.train.rollout_engine is not None and (kind != "lora" or pruned):
            what = "a pruned student" if pruned else f"student.adapter.kind {kind!r}"
            raise ValueError(
                f"train.rollout_engine loads a LoRA adapter into a server that has the student's base, which {what} "
                "does not allow; use student.adapter.kind: lora without student.prune, or leave rollout_engine out"
            )
        return self

    @model_validator(mode="after")
    def _the_source_can_be_served(self) -> RunConfig:
        source = self.prompts.source
        if source is not None and getattr(source, "LOCAL", False) and self.teacher.kind == "openai":
            raise ValueError(
                f"prompts.source {source.kind!r} continues the chat template itself, which needs the teacher's weights "
                "in this process; use teacher.kind: transformers or vllm, or another source"
            )
        return self

    @model_validator(mode="after")
    def _one_teacher_where_its_numbers_are_learnt(self) -> RunConfig:
        if self.generate.mix and self.train.method in LIVE_METHODS:
            raise ValueError(
                f"train.method {self.train.method!r} learns from one live teacher, and generate.mix names more; "
                "leave generate.mix out, or use train.method: sft"
            )
        if self.generate.mix and self.generate.signals_top_k:
            raise ValueError(
                "generate.signals_top_k stores the log-probabilities of one teacher's tokens, and generate.mix names "
                "more teachers; leave one of the two out"
            )
        return self

    @model_validator(mode="after")
    def _one_prompt_where_the_teacher_reads_the_student(self) -> RunConfig:
        if self.student.prompt is not None and self.train.method not in ("auto", "sft", "offline_topk"):
            raise ValueError(
                f"student.prompt differs from the teacher's, and train.method {self.train.method!r} lets the teacher "
                "score the student's own prompt; use sft or offline_topk, or leave student.prompt out"
            )
        return self

    def teachers(self) -> tuple[PluginConfig, ...]:
        """Every teacher whose answers become training text: the main one first, then those of `generate.mix`."""
        return (self.teacher, *(other.teacher for other in self.generate.mix))

    def student_prompts(self) -> Prompts:
        """`prompts`, as the student is asked."""
        own = self.student.prompt
        if own is None:
            return self.prompts
        template = self.prompts.template if own.template is None else own.template
        return self.prompts.model_copy(update={"system": own.system, "examples": own.examples, "template": template})

    def with_method(self, method: str) -> RunConfig:
        """The same run with another `train.method`. Raises ConfigError when the other settings do not allow it."""
        values = self.resolved()
        values["train"]["method"] = method
        other = validate(RunConfig, values, f"train.method: {method}")
        other._folder = self._folder
        return other

    def resolve(self, path: str) -> Path:
        """A path of this file as an absolute path (relative paths start at the configuration file)."""
        return (self._folder / Path(path).expanduser()).resolve()

    def resolved(self) -> dict[str, Any]:
        """Every setting, defaults included, as JSON values."""
        return self.model_dump(mode="json")

    def settings(self, *sections: str) -> dict[str, Any]:
        """The named top-level settings as JSON values: what a stage's key is made of."""
        return {name: value for name, value in self.resolved().items() if name in sections}

    def hash(self) -> str:
        """SHA-256 of the resolved configuration."""
        return hashlib.sha256(canonical_json(self.resolved())).hexdigest()


def load(path: Path, overrides: list[str] | None = None) -> RunConfig:
    """Read, override and validate a configuration file. Raises ConfigError listing every problem."""
    values = read_yaml(path)
    for override in overrides or []:
        apply_override(values, override)
    config = validate(RunConfig, values, str(path))
    config._folder = path.resolve().parent
    return config
