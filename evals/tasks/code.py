"""A program: the answer runs before the item's tests, in a limited process, and is right when both reach their end."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator

from distill.sandbox import run_python
from evals.tasks._base import Item, TaskConfig, chat_request, read_items, required

if TYPE_CHECKING:
    from pathlib import Path

    from distill.records import Request

EXAMPLE = {
    "id": "1",
    "prompt": "Write a Python function double(x).",
    "tests": "assert double(2) == 4",
    "answer": "def double(x):\n    return 2 * x",
}
EXAMPLE_SETTINGS = {"run_answers": True}
FENCE = re.compile(r"```[ \t]*(\w*)[^\n]*\n(.*?)(?:\n[ \t]*```|\Z)", re.DOTALL)
LONGEST = 100_000


class Config(TaskConfig):
    """Python, with the standard library alone. The first fenced block of an answer counts, else the whole answer."""

    kind: Literal["code"] = "code"
    run_answers: Annotated[bool, Field(validate_default=True)] = False
    """Must be true: answers of a model are RUN ON THIS MACHINE, with limits on time, memory, files and network. That
    stops mistakes, not attacks: examine a model you do not trust inside a container."""
    gold_field: str = "answer"
    """Field of a solution that passes the tests."""
    tests_field: str = "tests"
    """Field of the tests: Python that raises when the answer is wrong."""
    before_field: str | None = None
    """Field of code put before the answer (HumanEval: the prompt, which begins the function)."""
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 10.0
    """Wall time of one answer with its tests."""
    memory_mb: Annotated[int, Field(ge=64, le=65_536)] = 512
    """Memory of one answer with its tests."""

    @field_validator("run_answers")
    @classmethod
    def _asked_for(cls, value: bool) -> bool:
        if not value:
            raise ValueError("this task runs programs that a model wrote; run_answers: true says that you want that")
        return value


def examples(config: Config, path: Path) -> list[Item]:
    """The items of the file. Raises DataError for one without tests."""
    items = read_items(config, path)
    for item in items:
        for name in filter(None, (config.tests_field, config.before_field)):
            required(item.fields, name, f"{path}, item {item.id}")
    return items


def prompt(item: Item, config: Config) -> Request:
    """The question."""
    return chat_request(item, config)


def normal(text: str, config: Config) -> str:  # noqa: ARG001
    """The program without blank lines at its ends, or "": spaces count, capitals too."""
    found = FENCE.search(text[:LONGEST])
    return (found[2] if found else text[:LONGEST]).strip("\r\n").rstrip() if text.strip() else ""


def gold_text(item: Item) -> str:
    """The solution."""
    return str(item.gold)


def score(item: Item, text: str, config: Config) -> float:
    """1 when the answer and then the tests run to their end, else 0."""
    answer = normal(text, config)
    if not answer:
        return 0.0
    before = str(item.fields[config.before_field]) if config.before_field else ""
    program = f"{before}{answer}\n\n{item.fields[config.tests_field]}\n"
    return float(run_python(program, timeout_s=config.timeout_s, memory_mb=config.memory_mb).passed)
