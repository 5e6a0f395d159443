"""A process that asks through batches and dies by SIGKILL at a named arrow."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

from distill.errors import DistillError
from distill.providers._batches import Batches
from distill.query import attempts, batch_jobs
from distill.query.ask import ask_all
from distill.query.store import Store
from tests.fault.asking import QUICK, provider_of, requests_of
from tests.unit.query.prices import PRICE

provider_of("http://127.0.0.1:1/v1")  # warm: forks share the catalogue and the imports

# Between two steps one kill is enough; plan, settle and advance run inside a transaction.
PLACES = (
    "plan:after", "upload:before", "upload:after", "create:before", "create:after", "look:before", "results:after",
    "settle:after", "advance:done:before", "advance:done:after",
)  # fmt: skip


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _around(function, step, place, is_async):
    """``function``, killed before or after it when it is the chosen step."""

    def chosen(args, side):
        name = f"{step}:{args[2]}" if step == "advance" else step
        return place == f"{name}:{side}"

    def plain(*args, **more):
        if chosen(args, "before"):
            _die()
        result = function(*args, **more)
        if chosen(args, "after"):
            _die()
        return result

    async def waiting(*args, **more):
        if chosen(args, "before"):
            _die()
        result = await function(*args, **more)
        if chosen(args, "after"):
            _die()
        return result

    return waiting if is_async else plain


def work(url: str, folder: str, texts: list[str], place: str, size: int = 100) -> None:
    """Ask ``texts``; exit code 0, or the error's."""
    os.environ["NO_COLOR"] = "1"
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    for name in ("plan", "advance"):
        setattr(batch_jobs, name, _around(getattr(batch_jobs, name), name, place, False))
    attempts.settle = _around(attempts.settle, "settle", place, False)
    for name in ("upload", "create", "look", "results"):
        setattr(Batches, name, _around(getattr(Batches, name), name, place, True))
    settings = {"batch": True, "batch_poll_s": 0.01, "batch_requests": size}
    try:
        with Store(Path(folder) / "run.db") as store:
            ask_all(
                provider_of(url, **settings), requests_of(texts), store,
                title="child", price=replace(PRICE, batch_discount=0.5), max_cost_eur=1.0, policy=QUICK,
            )  # fmt: skip
    except DistillError as error:
        os._exit(error.exit_code)
    os._exit(0)
