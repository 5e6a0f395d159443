"""A target file = one form in which the student leaves the house: ``Config``, ``NEEDS`` and one verb.

``export(job, config) -> Export`` writes files into ``job.bundle``. An export of weights also says how to load them
back and how far their logits may be from the student's; the stage does the comparison and fails the release when it
does not hold. ``NEEDS`` names the targets whose files this one refers to. Heavy imports go inside ``export``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from distill.plugins import PluginConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from distill.records import Message
    from distill.release.llamacpp import Engine
    from distill.release.record import Record


class TargetConfig(PluginConfig):
    """Base of a target's settings."""

    @property
    def label(self) -> str:
        """What this form is called in the card; a release holds one of each."""
        return self.kind


@dataclass(frozen=True)
class Job:
    """What every target is made from. The paths are of this machine: none of them may enter a file of the bundle."""

    base: Path
    """Folder of the base model: config.json, safetensors, tokenizer."""
    student: Path
    """The run's `student/` folder: the tokenizer, and all weights when there is no adapter."""
    adapter: Path | None
    """Its adapter folder in peft's format."""
    bundle: Path
    """The folder being built."""
    name: str
    """Name and version of the release."""
    base_name: str
    """Public name of the base model."""
    head: tuple[Message, ...] = ()
    """What stands before every question: the system message and the worked examples."""
    record: Record | None = None
    """The run's own records, for targets that show them."""

    @property
    def weights(self) -> Path:
        """The folder whose weights the adapter, if any, is added to."""
        return self.base if self.adapter else self.student


@dataclass(frozen=True)
class Export:
    """What a target wrote. ``load`` is None where there are no weights to compare."""

    files: tuple[str, ...]
    """Paths in the bundle."""
    load: Callable[[str], tuple[Any, Any]] | None = None
    """Loads what a client would load, computing in the named type: (model, tokenizer)."""
    engine: Callable[[int], Engine] | None = None
    """Opens the file, for so many tokens, in the engine that clients run: then that engine is judged."""
    tolerance: float = 0.0
    """Largest relative distance of the logits from the student's, at the worst position."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What the card says about this form: precision, size."""
