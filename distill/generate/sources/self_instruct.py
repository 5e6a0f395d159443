"""New tasks like some of yours: the teacher is shown a few and writes more; only what is new is kept.

New means that ROUGE-L against every task so far stays below `similarity` (Self-Instruct, Wang et al. 2022). Rounds go
on until there are enough; what a round is shown depends on seed and earlier answers alone.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from distill.errors import DataError
from distill.generate.fence import fenced
from distill.generate.filters._text import words
from distill.generate.sources._base import Wanted, WriterConfig, as_list, name_of
from distill.progress import say
from distill.prompts import order
from distill.records import Message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill.generate.sources._base import Bench

ORDER = (
    "Below are {shown} tasks that people gave to an assistant. Write {number} new ones of the same kind and in the "
    "same language, each different from the others and from those shown, each complete in itself: an assistant must "
    "be able to do it without asking back.{about}\n\n{tasks}\n\n{reply}"
)
ROUND = 16
"""Requests between two looks at what is new."""


class Config(WriterConfig):
    """The first tasks, and how many more are wanted."""

    PATHS: ClassVar[tuple[str, ...]] = ("path",)
    kind: Literal["self_instruct"] = "self_instruct"
    path: str
    """File of first tasks (JSONL, CSV, TSV, Parquet, saved or hub data set)."""
    field: str = "prompt"
    """Field that holds the task."""
    number: Annotated[int, Field(ge=1)]
    """New tasks wanted."""
    shown: Annotated[int, Field(ge=1, le=20)] = 8
    """Tasks shown in each request, a quarter of them new ones once there are any."""
    per_request: Annotated[int, Field(ge=1, le=20)] = 5
    """New tasks asked for in each request."""
    similarity: Annotated[float, Field(gt=0, le=1)] = 0.7
    """A task this similar (ROUGE-L) to an earlier one is dropped."""
    max_requests: Annotated[int, Field(ge=1)] = 1000
    """Stop after this many requests, even with too few tasks."""
    about: str = ""
    """What kind of tasks, in a sentence added to the order."""
    keep_first: bool = True
    """The first tasks become prompts too."""


def make(config: Config, bench: Bench) -> list[dict[str, Any]]:
    """The first tasks and the new ones. Raises DataError when the file holds none."""
    first = list(dict.fromkeys(_task(row, config, bench) for row in bench.rows(config.path)))
    pool = Novel(config.similarity)
    for task in first:
        pool.add(task)
    made: dict[str, str] = {}
    asked = 0
    while len(made) < config.number and asked < config.max_requests:
        missing = -(-(config.number - len(made)) // config.per_request)
        size = min(ROUND, config.max_requests - asked, missing + missing // 4 + 1)
        wanted = [_wanted(config, first, list(made), bench.seed, asked + place) for place in range(size)]
        asked += size
        texts = [text for found in bench.write(wanted) for text in found]
        for text in texts:
            if len(made) < config.number and pool.takes(text.text):
                made[text.text] = text.key
    if len(made) < config.number:
        say(f"prompts: {asked} requests brought {len(made)} of {config.number} new tasks")
    rows = [_row("first", task, "") for task in first] if config.keep_first else []
    return rows + [_row("new", task, key) for task, key in made.items()]


def _task(row: dict[str, Any], config: Config, bench: Bench) -> str:
    task = row.get(config.field)
    if not isinstance(task, str) or not task.strip():
        raise DataError(f"a row has no text in the field {config.field!r}", where=str(bench.resolve(config.path)))
    return task.strip()


def _row(origin: str, task: str, key: str) -> dict[str, Any]:
    identity = name_of("t", task)
    return {"id": identity, "cluster": identity, "prompt": task, "origin": origin, "request_key": key}


def _wanted(config: Config, first: Sequence[str], made: Sequence[str], seed: int, number: int) -> Wanted:
    """One request: which tasks it shows is a seeded draw of its number."""

    def drawn(tasks: Sequence[str], count: int) -> list[str]:
        return sorted(tasks, key=lambda task: order(seed, f"show\0{number}\0{task}"))[:count]

    new = drawn(made, config.shown // 4)
    shown = drawn([*drawn(first, config.shown - len(new)), *new], config.shown)
    text = ORDER.format(
        shown=len(shown),
        number=config.per_request,
        about=f" {config.about.strip()}" if config.about.strip() else "",
        tasks="\n\n".join(fenced(task, "task", seed) for task in shown),
        reply=as_list(config.per_request),
    )
    return Wanted((Message("user", text),), config.per_request, number)


class Novel:
    """Tasks so far, and whether another is new."""

    def __init__(self, similarity: float):
        self.similarity = similarity
        self.known: list[tuple[list[str], Counter[str]]] = []

    def add(self, task: str) -> None:
        """Take it as known."""
        parts = words(task)
        self.known.append((parts, Counter(parts)))

    def takes(self, task: str) -> bool:
        """True when it is new; then it is known from now on."""
        parts = words(task)
        counts = Counter(parts)
        if not parts or any(self._alike(parts, counts, *other) for other in self.known):
            return False
        self.known.append((parts, counts))
        return True

    def _alike(self, parts: list[str], counts: Counter[str], other: list[str], others: Counter[str]) -> bool:
        # A common subsequence is no longer than the common words: most pairs need no closer look.
        bound = 2 * (counts & others).total() / (len(parts) + len(other))
        return bound >= self.similarity and rouge_l(parts, other) >= self.similarity


def rouge_l(first: Sequence[str], second: Sequence[str]) -> float:
    """F1 of the longest common subsequence of words (Lin 2004); 0 when one is empty."""
    if not first or not second:
        return 0.0
    before = [0] * (len(second) + 1)
    for word in first:
        row = [0]
        for place, other in enumerate(second):
            row.append(before[place] + 1 if word == other else max(row[place], before[place + 1]))
        before = row
    return 2 * before[-1] / (len(first) + len(second))
