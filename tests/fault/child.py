"""A process that asks and is killed. What the store acknowledged is appended to a file, which outlives it."""

from __future__ import annotations

import os
from pathlib import Path

from distill.errors import DistillError
from distill.query import attempts
from distill.query.ask import ask_all
from distill.query.store import Store
from tests.fault.asking import QUICK, provider_of, requests_of
from tests.unit.query.prices import PRICE

provider_of("http://127.0.0.1:1/v1")  # warm: forks share the catalogue and the imports


class Acknowledging(Store):
    """A store that notes each attempt whose answer it reported as committed."""

    def __init__(self, path: Path, acks: Path):
        super().__init__(path)
        self.acks = os.open(acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def settle(self, answers):
        await super().settle(answers)
        os.write(self.acks, "".join(f"{answer.attempt}\n" for answer in answers).encode())


def work(url: str, folder: str, texts: list[str], cap: float, concurrency: int = 16) -> None:
    """Ask ``texts``; exit code 0, or the error's."""
    os.environ["NO_COLOR"] = "1"
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        with Acknowledging(Path(folder) / "run.db", Path(folder) / "acks") as store:
            ask_all(
                provider_of(url, concurrency=concurrency), requests_of(texts), store,
                title="child", price=PRICE, max_cost_eur=cap, policy=QUICK,
            )  # fmt: skip
    except DistillError as error:
        os._exit(error.exit_code)
    os._exit(0)


def commit_before_the_answer_is_written(connection, answers):
    """A sabotaged settle, for the negative control: acknowledged, yet only the state is written."""
    for answer in answers:
        connection.execute("UPDATE attempt SET state = 'received' WHERE id = ?", (answer.attempt,))


def sabotaged(url: str, folder: str, texts: list[str], cap: float, concurrency: int = 16) -> None:
    """:func:`work` with a store that acknowledges what it has not kept."""
    attempts.settle = commit_before_the_answer_is_written
    work(url, folder, texts, cap, concurrency)
