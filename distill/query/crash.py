"""The crash test: a process that asks is killed again and again; what is on disk is held against the teacher's log.

It runs on the user's own disk (`distill selftest --crash`) and in the test suite. Each store lives through many kills:
most after a random number of calls, some while the process starts. The killed process notes what the store reported
as committed in a file of its own (one write after each acknowledgement), so both sides can be held against each other.
"""

from __future__ import annotations

import asyncio
import datetime
import multiprocessing
import os
import random
import shutil
import statistics
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.costs import Price, cost_nano
from distill.query.ask import ask_all
from distill.query.attempts import Plan, Received
from distill.query.store import Store
from distill.query.wire import Teacher, Wire, usage_of
from distill.records import Message, Request, Sampling

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

KILLS_PER_STORE = 10
CALLS = 24  # a life ends after 1 to CALLS calls
CAP_EUR = 50.0
PRICE = Price(
    input=1_000_000_000, cached=500_000_000, output=3_000_000_000, currency="EUR", amounts=("1", "0.5", "3"),
    per_eur="1", fx_as_of=None, source="made up for the crash test", as_of=datetime.date(2026, 1, 1),
)  # fmt: skip


@dataclass(frozen=True)
class Figures:
    """What a campaign showed. All but the first four must be 0; ``most_twice`` at most the calls in flight."""

    kills: int = 0
    at_work: int = 0
    """Kills that hit calls in flight: a campaign without them shows nothing."""
    committed: int = 0
    """Rows that the store acknowledged."""
    most_twice: int = 0
    """Most calls billed twice because of one kill."""
    lost: int = 0
    """Acknowledged rows that are not there."""
    sent_again: int = 0
    """Calls for rows that an earlier life had acknowledged."""
    ledger_difference: int = 0
    """Nano-EUR between what the store says was spent on its rows and what the teacher's log says."""
    uncovered: int = 0
    """Nano-EUR on the teacher's bill that are neither spent nor held as uncertain."""
    contradictions: int = 0
    unfinished: int = 0

    def __add__(self, other: Figures) -> Figures:
        sums = {name: getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__}
        return Figures(**sums | {"most_twice": max(self.most_twice, other.most_twice)})

    def broken(self, concurrency: int) -> dict[str, int]:
        """The promises that did not hold, with their figures; empty when all held."""
        promises = ("lost", "sent_again", "ledger_difference", "uncovered", "contradictions", "unfinished")
        found = {name: value for name in promises if (value := getattr(self, name))}
        if self.most_twice > concurrency:
            found["most_twice"] = self.most_twice
        return found


class Acknowledging(Store):
    """A store that notes, outside itself, each attempt whose answer it reported as committed."""

    def __init__(self, path: Path, acks: Path, life: int):
        super().__init__(path)
        self._life = life
        self._acks = os.open(acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    async def settle(self, answers: Sequence[Received]) -> None:
        """Commit, then note."""
        await super().settle(answers)
        os.write(self._acks, "".join(f"{self._life} {answer.attempt}\n" for answer in answers).encode())


def requests_of(texts: Sequence[str]) -> list[Request]:
    """The requests of a campaign."""
    return [Request((Message("user", text),), Sampling(max_new_tokens=32)) for text in texts]


def live(port: int, folder: str, texts: list[str], life: int, concurrency: int) -> None:
    """One life: ask all ``texts`` until done or killed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    with Acknowledging(Path(folder) / "run.db", Path(folder) / "acks", life) as store:
        wire = Wire(port, concurrency)
        ask_all(wire, requests_of(texts), store, title="life", price=PRICE, max_cost_eur=CAP_EUR)
    os._exit(0)


def campaign(
    folder: Path,
    kills: int,
    *,
    seed: int = 0,
    concurrency: int = 16,
    latency_s: float = 0.004,
    calls: int = CALLS,
    target: Callable[..., None] = live,
    told: Callable[[Figures], None] = lambda figures: None,
) -> Figures:
    """Kill ``kills`` times in ``folder``, several stores one after the other. ``told`` hears of each finished store."""
    draw = random.Random(seed)
    total = Figures()
    with Teacher(latency_s) as teacher:
        for number, start in enumerate(range(0, kills, KILLS_PER_STORE)):
            place = folder / f"store-{number}"
            place.mkdir(parents=True)
            teacher.calls.clear()
            total += _store(place, min(KILLS_PER_STORE, kills - start), teacher, draw, concurrency, calls, target)
            shutil.rmtree(place)
            told(total)
    return total


def _store(
    place: Path, kills: int, teacher: Teacher, draw: random.Random, concurrency: int, calls: int,
    target: Callable[..., None],
) -> Figures:  # fmt: skip
    """One store's lives, and the comparison."""
    texts = [
        f"question {number} " + "x" * draw.randrange(60) for number in range((kills + 1) * (calls // 2 + concurrency))
    ]
    forks = _forks()
    at_work = 0
    for life in range(kills + 1):
        teacher.life = life
        process = forks.Process(target=target, args=(teacher.port, str(place), texts, life, concurrency), daemon=True)
        before = len(teacher.calls)
        process.start()
        if life < kills:
            _wait_for_the_moment(draw, teacher, before, calls, process)
            process.kill()
            at_work += len(teacher.calls) > before
        process.join()
    return _compare(place, texts, teacher, process.exitcode == 0, Figures(kills=kills, at_work=at_work))


def _wait_for_the_moment(draw: random.Random, teacher: Teacher, before: int, calls: int, process: Any) -> None:
    if draw.random() < 0.15:
        time.sleep(draw.uniform(0.0, 0.1))
        return
    wanted = before + draw.randrange(1, calls + 1)
    while len(teacher.calls) < wanted and process.is_alive():
        time.sleep(0.0005)
    time.sleep(draw.uniform(0.0, 2.5 * teacher.latency_s))


def _compare(place: Path, texts: list[str], teacher: Teacher, finished: bool, figures: Figures) -> Figures:
    """Hold store, acknowledgements and the teacher's log against each other."""
    wire = Wire(0)
    by_key = {request.key(wire.identity()): text for request, text in zip(requests_of(texts), texts, strict=True)}
    acks = [line.split() for line in (place / "acks").read_text().split("\n")[:-1]]
    with Store(place / "run.db") as store:
        rows = store.rows()
        book, contradictions = store.totals().balance, store.audit()
        answered = {by_key[key] for key in store.get_many(by_key)}
    acked_in = {by_key[rows[int(attempt)]]: int(life) for life, attempt in acks if int(attempt) in rows}
    sent_again = len([call for call in teacher.calls if call.life > acked_in.get(call.text, len(texts))])
    lives = Counter(call.text for call in teacher.calls)
    twice: Counter[int] = Counter()
    for call in teacher.calls:
        lives[call.text] -= 1
        twice[call.life] += lives[call.text] > 0
    exact = sum(cost_nano(usage_of(by_key[key]), PRICE) for key in rows.values())
    bill = sum(cost_nano(usage_of(call.text), PRICE) for call in teacher.calls)
    return figures + Figures(
        committed=len(acks),
        most_twice=max(twice.values(), default=0),
        lost=len([attempt for _, attempt in acks if int(attempt) not in rows]),
        sent_again=sent_again,
        ledger_difference=abs(book.spent - exact) + book.reserved,
        uncovered=max(0, bill - book.spent - book.uncertain),
        contradictions=len(contradictions),
        unfinished=len(set(texts) - answered) + (not finished),
    )


def _forks() -> Any:
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["distill.query.crash"])
    return forks


# -- speed ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Speed:
    """``rows_per_s``: durable acknowledged rows; ``sync_ms``: median time of one sync of this disk."""

    rows_per_s: float
    sync_ms: float
    rows: int
    in_flight: int


def speed(folder: Path, rows: int = 3000, in_flight: int = 64, size: int = 3600) -> Speed:
    """Reserve and settle ``rows`` answers of ``size`` bytes, ``in_flight`` at once, each awaited until durable."""
    with Store(folder / "speed.db") as store:
        store.set_cap(10**12)
        raw = os.urandom(size)

        async def worker(first: int) -> None:
            for number in range(first, rows, in_flight):
                plan = Plan(f"{number:064x}", b"canonical request of the speed test", 1000)
                ((attempt,),) = await store.reserve([[plan]])
                answer = Received(attempt, raw, cost_nano=10)
                store.receive([(plan.key, answer)])
                await store.settle([answer])

        async def all_of_them() -> None:
            await asyncio.gather(*(worker(first) for first in range(in_flight)))

        started = time.perf_counter()
        asyncio.run(all_of_them())
        seconds = time.perf_counter() - started
    return Speed(rows / seconds, _sync_ms(folder / "sync"), rows, in_flight)


def _sync_ms(path: Path) -> float:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    times = []
    for _ in range(30):
        os.write(handle, b"x" * 4096)
        started = time.perf_counter()
        os.fdatasync(handle)
        times.append(time.perf_counter() - started)
    os.close(handle)
    path.unlink()
    return statistics.median(times) * 1000
