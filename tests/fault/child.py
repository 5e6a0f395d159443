"""A process that asks a loopback teacher and may be stopped."""

from __future__ import annotations

import os
from pathlib import Path

from distill.errors import DistillError
from distill.query.ask import ask_all
from distill.query.store import Store
from tests.fault.asking import QUICK, provider_of, requests_of
from tests.unit.query.prices import PRICE

provider_of("http://127.0.0.1:1/v1")  # warm: forks share the catalogue and the imports


def work(url: str, folder: str, texts: list[str], cap: float, concurrency: int = 16) -> None:
    """Ask ``texts``; exit code 0, or the error's."""
    os.environ["NO_COLOR"] = "1"
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        with Store(Path(folder) / "run.db") as store:
            ask_all(
                provider_of(url, concurrency=concurrency), requests_of(texts), store,
                title="child", price=PRICE, max_cost_eur=cap, policy=QUICK,
            )  # fmt: skip
    except DistillError as error:
        os._exit(error.exit_code)
    os._exit(0)
