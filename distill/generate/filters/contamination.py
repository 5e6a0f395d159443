"""Drop rows that hold an item of the evaluation files: whole, or any 13 words in a row of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from distill.errors import ConfigError
from distill.generate.filters._base import FilterConfig
from distill.generate.filters._text import conversation, fingerprint, words
from distill.prompts import load_rows

if TYPE_CHECKING:
    from typing import Self

    from distill.config import RunConfig


class Config(FilterConfig):
    """The evaluation files, and what counts as an overlap."""

    PATHS: ClassVar[tuple[str, ...]] = ("paths",)
    kind: Literal["contamination"] = "contamination"
    paths: tuple[str, ...] = ()
    """Evaluation files (JSONL, CSV, Parquet), relative to the configuration file. Empty = those of `eval.tasks`."""
    fields: tuple[str, ...] = ()
    """Fields of the items that are compared. Empty = every field that holds text."""
    ngram: Annotated[int, Field(ge=5, le=50)] = 13
    """Words in a row that count as an overlap."""
    min_words: Annotated[int, Field(ge=1)] = 6
    """A text shorter than `ngram` counts when it appears whole; one below this many words (a label) never does."""

    def completed(self, config: RunConfig) -> Self:
        """Raises ConfigError when neither names a file: nothing would be compared."""
        paths = self.paths or tuple(path for task in config.eval.tasks if (path := getattr(task, "path", "")))
        if not paths:
            raise ConfigError(
                "the filter 'contamination' has nothing to compare with",
                where="generate.filters",
                next="contamination.paths, or eval.tasks with files",
            )
        return self.model_copy(update={"paths": tuple(dict.fromkeys(paths))})


def keep(rows: list[dict[str, Any]], config: Config) -> list[str]:
    """``eval_item`` when prompt or answer overlaps with an item, else "". Case and punctuation do not matter."""
    known = _known(config)
    return ["eval_item" if _overlaps(row, known) else "" for row in rows]


def _known(config: Config) -> dict[int, set[bytes]]:
    """Number of words -> marks of the items' sequences of that length."""
    known: dict[int, set[bytes]] = {}
    for path in config.paths:
        for item in load_rows(Path(path)):
            for text in _texts(item, config.fields):
                parts = words(text)
                if len(parts) >= config.min_words:
                    size = min(len(parts), config.ngram)
                    known.setdefault(size, set()).update(_marks(parts, size))
    return known


def _texts(value: Any, fields: tuple[str, ...]) -> list[str]:
    """Every text inside the value; of a row, only the named fields if any are named."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for name, item in value.items() if not fields or name in fields for text in _texts(item, ())]
    return [text for item in value for text in _texts(item, ())] if isinstance(value, list) else []


def _marks(parts: list[str], size: int) -> set[bytes]:
    return {fingerprint(parts[start : start + size]) for start in range(len(parts) - size + 1)}


def _overlaps(row: dict[str, Any], known: dict[int, set[bytes]]) -> bool:
    texts = [words(text) for text in (conversation(row), row["answer"], row["reasoning"])]
    return any(not marks.isdisjoint(_marks(parts, size)) for size, marks in known.items() for parts in texts)
