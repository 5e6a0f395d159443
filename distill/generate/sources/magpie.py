"""Prompts that an open teacher makes up by itself: it continues its chat template where the user would begin to write.

The model was tuned on such turns, so what it writes there is what it was tuned on (Magpie, Xu et al. 2024). Needs the
weights in this process; a system message steers topic and language.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from distill.generate.sources._base import Wanted, WriterConfig, name_of
from distill.records import Message

if TYPE_CHECKING:
    from distill.generate.sources._base import Bench


class Config(WriterConfig):
    """How many, and under which system messages."""

    LOCAL: ClassVar[bool] = True
    kind: Literal["magpie"] = "magpie"
    number: Annotated[int, Field(ge=1)]
    """User turns to sample. Equal ones are kept once."""
    systems: Annotated[tuple[str, ...], Field(min_length=1)] = ("",)
    """System messages, sampled in equal numbers; "" = none, or the template's own."""
    temperature: Annotated[float, Field(gt=0, le=2)] = 1.0
    """Sampling temperature."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 128
    """Longest prompt, in tokens. A longer one is cut off, and dropped."""


def make(config: Config, bench: Bench) -> list[dict[str, Any]]:
    """One row for each distinct text; ``system`` says under which message it was sampled."""
    systems = [config.systems[number % len(config.systems)] for number in range(config.number)]
    wanted = [
        Wanted((Message("system", system),) if system else (), sample=number) for number, system in enumerate(systems)
    ]
    bench.found = len(wanted)
    rows: dict[str, dict[str, Any]] = {}
    for system, texts in zip(systems, bench.write(wanted), strict=True):
        for text in texts:
            identity = name_of("m", text.text)
            row = {"id": identity, "cluster": identity, "prompt": text.text, "system": system, "request_key": text.key}
            rows.setdefault(identity, row)
    return list(rows.values())
