"""A source file: ``Config`` and ``make(config, bench) -> list[dict]``: rows of which prompts are rendered.

A row has an ``id`` that depends on its content alone, a ``cluster`` (what must stay on one side of the split), and
the fields that templates use. What a source asks goes through ``bench.write``: the teacher, store and budget of the
run. The same answers give the same rows, so a killed run asks nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from distill import prompts, rows
from distill.errors import DataError
from distill.plugins import PluginConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from distill.records import Message

FENCED = re.compile(r"```(?:json)?[ \t]*\n(.*?)\n```", re.DOTALL)
NUMBERED = re.compile(r"^[ \t]*(?:\d{1,3}[.)]|[-*•])[ \t]+(.+?)[ \t]*$", re.MULTILINE)


class SourceConfig(PluginConfig):
    """Base of a source's settings."""

    PATHS: ClassVar[tuple[str, ...]] = ()
    """Settings that hold a path, relative to the configuration file."""
    LOCAL: ClassVar[bool] = False
    """Needs a teacher whose weights are in this process."""

    def files(self) -> tuple[str, ...]:
        """The files and folders it reads, as written in the configuration."""
        return tuple(path for name in self.PATHS if (path := getattr(self, name)))


class WriterConfig(SourceConfig):
    """Base of a source that lets the teacher write."""

    temperature: Annotated[float, Field(ge=0, le=2)] = 0.9
    """Sampling temperature of what is written."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling of what is written."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 512
    """Longest text that is written at once, in tokens."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One thing for the teacher to write: ``number`` texts in a list, or, with 0, one text as it comes."""

    messages: tuple[Message, ...]
    number: int = 0
    sample: int = 0


@dataclass(frozen=True, slots=True)
class Text:
    """Something the teacher wrote, and the key of the request behind it."""

    text: str
    key: str


@dataclass
class Bench:
    """What a source works with."""

    seed: int
    resolve: Callable[[str], Path]
    on_error: str
    write: Callable[[Sequence[Wanted]], list[list[Text]]]
    """For each thing wanted the texts it brought; none when the answer was unusable."""
    tokenizer: Callable[[], Any]
    """The student's."""
    bad: list[tuple[str, int, str]] = field(default_factory=list)
    """(file, line, reason) of what could not be read."""
    found: int = 0
    """Things read: rows, documents, combinations."""

    def rows(self, path: str) -> list[dict[str, Any]]:
        """The rows of a file. Broken ones are refused by line, or left out and counted."""
        file = prompts.locate(path, self.resolve)
        good, bad = rows.read(file)
        self.found += len(good) + len(bad)
        self.bad += [(str(file), line, reason) for line, reason in bad]
        self.settle()
        return [row.fields for row in good]

    def settle(self) -> None:
        """Raise DataError for what could not be read, unless it is to be skipped. Call it before ``write``."""
        if self.bad and self.on_error == "refuse":
            shown = "; ".join(f"{file}:{line}: {reason}" for file, line, reason in self.bad[:5])
            more = f"; and {len(self.bad) - 5} more" if len(self.bad) > 5 else ""
            raise DataError(
                f"{len(self.bad)} broken: {shown}{more}",
                safe="nothing was asked",
                next="correct them, or set prompts.on_error: skip",
            )


def name_of(kind: str, *parts: str) -> str:
    """An id made of the content, the same wherever the row stands."""
    return f"{kind}-{hashlib.sha256(chr(0).join(parts).encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def as_list(number: int) -> str:
    """How the teacher is to answer so that :func:`read_list` understands it."""
    return f"Reply with a JSON list of {number} string{'' if number == 1 else 's'} and nothing else."


def read_list(answer: str) -> list[str]:
    """The texts of an answer: a JSON list (bare, in a code block, in an object), else numbered or bulleted lines."""
    text = answer.strip()
    fenced = FENCED.search(text)
    for candidate in (text, fenced[1] if fenced else "", text[text.find("[") : text.rfind("]") + 1]):
        try:
            value = json.loads(candidate)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            value = next((item for item in value.values() if isinstance(item, list)), None)
        if isinstance(value, list):
            return [item.strip() for item in value if isinstance(item, str) and item.strip()]
    return [item.strip() for item in NUMBERED.findall(text)]
