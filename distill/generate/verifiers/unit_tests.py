"""The answer's Python code passes the tests of the prompt row. Runs code that a model wrote: off unless allowed.

Each answer runs in a process of its own with limits (see `distill.sandbox`): they keep a wrong program from harming
the run, they are no jail for a hostile one.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from distill.generate.verifiers._base import VerifierConfig
from distill.sandbox import run_python

BLOCK = re.compile(r"^```[ \t]*(\w*)[^\n]*\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)


class Config(VerifierConfig):
    """Where the tests are, and what a program may use."""

    kind: Literal["unit_tests"] = "unit_tests"
    allow_code_execution: bool = False
    """Must be true: the model's code is run on this machine."""
    field: str = "tests"
    """Field of the prompt row with the tests: Python that raises when the code is wrong, a text or a list of them."""
    before: str | None = None
    """Field of the prompt row with code that comes before the answer's, such as the head of a function."""
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 10.0
    """Longest run of one answer, in seconds of the clock and of the processor."""
    memory_mb: Annotated[int, Field(ge=64)] = 512
    """Most memory of one answer."""

    @model_validator(mode="after")
    def _allowed(self) -> Config:
        if not self.allow_code_execution:
            raise ValueError("unit_tests runs code that a model wrote; allow_code_execution: true says that it may")
        return self


def check(row: dict[str, Any], config: Config) -> str:
    """``no_tests``, ``timeout``, ``memory``, ``exit`` (left before the tests' end), ``error`` or ""."""
    tests = row["meta"].get(config.field)
    texts = tests if isinstance(tests, list) else [tests]
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        return "no_tests"
    head = row["meta"].get(config.before) if config.before else None
    program = "\n\n".join([*([head] if isinstance(head, str) else []), code_of(row["answer"]), *texts])
    return run_python(program + "\n", timeout_s=config.timeout_s, memory_mb=config.memory_mb).reason


def code_of(answer: str) -> str:
    """The code of an answer: its Python blocks, else its first unnamed block, else all of it."""
    blocks = BLOCK.findall(answer)
    python = [code for name, code in blocks if name.lower() in ("python", "py", "python3")]
    return "\n".join(python or [code for name, code in blocks if not name][:1] or [answer])
