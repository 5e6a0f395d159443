"""The spool: what was received is kept by a kill, paid once, and never taken for what it is not."""

from __future__ import annotations

import asyncio
import random

from distill.costs import cost_nano
from distill.query import crash, spool
from distill.query.ask import ask_all
from distill.query.attempts import Received
from distill.query.crash import PRICE
from distill.query.spool import Spool
from distill.query.store import Store
from distill.query.wire import Teacher, Wire
from tests.unit.query.dying import die, in_a_fork
from tests.unit.query.test_store import key_of, plan_of


def answer(attempt, raw=b"answer"):
    return Received(attempt, raw, 200, 0.25, None, "req-1")


def test_answers_come_back_as_they_were(tmp_path):
    raws = [b"", b"\n\n", random.Random(0).randbytes(5000), "é".encode() * 1000]
    box = Spool(tmp_path / "run.db")
    for number, raw in enumerate(raws):
        box.keep([(key_of(number), answer(number, raw))])
    found = Spool(tmp_path / "run.db").found
    assert [(key, one) for key, _, one in found] == [(key_of(n), answer(n, raw)) for n, raw in enumerate(raws)]


def test_a_torn_or_damaged_record_ends_what_is_read_and_is_never_half_an_answer(tmp_path):
    box, path, ends = Spool(tmp_path / "run.db"), tmp_path / "run.db-spool0", []
    for number in range(3):
        box.keep([(key_of(number), answer(number, b"x" * 50))])
        ends.append(path.stat().st_size)
    data = path.read_bytes()
    for length in range(0, len(data), 7):
        assert len(spool.records(data[:length])) == sum(end <= length for end in ends)
    for place in range(0, len(data), 5):
        spoilt = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        assert len(spool.records(spoilt)) == sum(end <= place for end in ends)


def test_an_answer_waits_until_it_is_committed_and_then_makes_room(tmp_path, monkeypatch):
    monkeypatch.setattr(spool, "TURN", 2000)
    box = Spool(tmp_path / "run.db")
    for number in range(400):
        box.keep([(key_of(number), answer(number, b"x" * 100))])
        if number >= 8:
            box.committed([number - 8])
    sizes = [(tmp_path / f"run.db-spool{n}").stat().st_size for n in range(2)]
    assert max(sizes) < 6000
    waiting = {one.attempt for _, _, one in Spool(tmp_path / "run.db").found}
    assert waiting >= set(range(392, 400)), "what is not committed is still there"


def test_what_a_killed_process_received_is_kept_paid_once_and_not_asked_again(tmp_path):
    texts = [f"question {n}" for n in range(30)]

    def receive_and_die():
        async def never(self, answers):
            await asyncio.sleep(60)

        Store.settle = never  # type: ignore[method-assign]
        with Store(tmp_path / "run.db") as store:
            wire = Wire(teacher.port, 40)
            wire.parse = lambda raw: die() if len(teacher_calls(wire)) == 30 else Wire.parse(wire, raw)
            ask_all(wire, crash.requests_of(texts), store, title="t", price=PRICE, max_cost_eur=1.0)

    def teacher_calls(wire):
        wire.parsed = [*getattr(wire, "parsed", []), 1]
        return wire.parsed

    with Teacher() as teacher:
        assert in_a_fork(receive_and_die) == -9
        with Store(tmp_path / "run.db") as store:
            assert (store.replayed, store.recovered) == (30, 0)
            book = store.totals().balance
            assert book.spent == 0
            assert book.reserved > 0, "nobody has read the bill yet"
            assert store.audit() == []
            outcomes = ask_all(
                Wire(teacher.port), crash.requests_of(texts), store, title="t", price=PRICE, max_cost_eur=1.0
            )
            exact = sum(cost_nano(crash.usage_of(text), PRICE) for text in texts)
            book = store.totals().balance
            assert (book.spent, book.reserved, book.uncertain) == (exact, 0, 0)
            assert sum(outcome.cost_nano for outcome in outcomes) == exact
            assert store.audit() == []
        assert len(teacher.calls) == 30, "no answer was bought twice"


def test_a_spool_of_another_store_is_not_taken_for_ours(tmp_path):
    async def reserve(store):
        return await store.reserve([[plan_of("mine", 5)]])

    def left_open():
        with Store(tmp_path / "run.db") as store:
            store.set_cap(100)
            ((attempt,),) = asyncio.run(reserve(store))
            store.receive([(key_of("another's"), answer(attempt))])
            die()

    assert in_a_fork(left_open) == -9
    with Store(tmp_path / "run.db") as store:
        assert (store.replayed, store.recovered) == (0, 1)
        assert store.get(key_of("mine")) is None


def test_a_clean_end_leaves_no_spool_behind(tmp_path):
    with Store(tmp_path / "run.db") as store:
        store.set_cap(100)

        async def go():
            ((attempt,),) = await store.reserve([[plan_of("a", 5)]])
            store.receive([(key_of("a"), answer(attempt))])
            await store.settle([answer(attempt)])

        asyncio.run(go())
    assert not list(tmp_path.glob("*spool*"))
