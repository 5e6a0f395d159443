"""An open answer, which a judge reads: right or wrong against a reference, or better or worse than another system's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from distill.config.section import Provider
from evals.tasks._base import Item, TaskConfig, chat_request, normalised, read_items

if TYPE_CHECKING:
    from pathlib import Path

    from distill.records import Request

EXAMPLE = {"id": "1", "prompt": "Why is the sky blue?", "answer": "Air scatters blue light more than red."}
EXAMPLE_SETTINGS = {"judge": {"kind": "fake"}}


class Config(TaskConfig):
    """A judge's word is worth what its calibration says: give it answers that people have judged."""

    kind: Literal["open_answer"] = "open_answer"
    judge: Provider
    """The model that judges. Not the teacher: a model prefers its own answers, and the report then says so."""
    mode: Literal["graded", "pairwise"] = "graded"
    """`graded`: correct or wrong against the reference answer. `pairwise`: each system against the reference system, in
    both orders; an item scores 1 for a preferred answer, 0.5 for a tie or a verdict that the order turned, else 0, and
    the reference system scores 0.5."""
    gold_field: str = "answer"
    """Field of the reference answer. `pairwise` does without."""
    criteria: str = "Correct, complete and helpful, in the language of the question. Longer is not better."
    """What the judge looks at."""
    calibration: str | None = None
    """JSONL of answers that people have judged: `prompt`, `text`, `human` (1 right or better, 0 wrong or worse, 0.5 a
    tie), with `answer` when graded, with `other` (the other system's answer) when pairwise. 100 or more."""
    judge_tokens: Annotated[int, Field(ge=1)] = 16
    """Longest verdict in tokens; more for a judge that thinks first."""

    @property
    def judged_by(self) -> Any:
        """The judge."""
        return self.judge

    @property
    def writes_text(self) -> bool:
        """A text."""
        return True


def examples(config: Config, path: Path) -> list[Item]:
    """The items of the file."""
    return read_items(config, path, gold_needed=config.mode == "graded")


def prompt(item: Item, config: Config) -> Request:
    """The question."""
    return chat_request(item, config)


def normal(text: str, config: Config) -> str:  # noqa: ARG001
    """The answer without case, blanks and outer punctuation."""
    return normalised(text)


def gold_text(item: Item) -> str:
    """The reference answer, "" when there is none."""
    return "" if item.gold is None else str(item.gold)


def score(item: Item, text: str, config: Config) -> float:  # noqa: ARG001
    """1 for the reference itself, else 0: what counts until the judge has spoken."""
    answer = normalised(text)
    return float(answer != "" and answer == normalised(gold_text(item)))
