"""The store: opened with care, damage noticed, books that add up whatever happens in whatever order."""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import random
import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from distill.errors import DataError, DiskProblem, IntegrityError, RunLocked
from distill.query import attempts, database, keys, ledger
from distill.query.attempts import Plan, Received
from distill.query.store import Store


def key_of(name) -> str:
    return hashlib.sha256(str(name).encode()).hexdigest()


def plan_of(name, worst=None) -> Plan:
    return Plan(key_of(name), f"canonical {name}".encode(), worst)


def test_an_answer_comes_back_byte_for_byte(tmp_path):
    raws = [b"", b"x", b"\x00\xff" * 5000, '{"a": "é\U0001f600"}'.encode() * 100, random.Random(0).randbytes(70_000)]
    with Store(tmp_path / "run.db") as store:
        for number, raw in enumerate(raws):
            store.put(key_of(number), b"c", Received(0, raw, 200, 0.5))
    with Store(tmp_path / "run.db") as store:
        assert [store.get(key_of(number)).raw for number in range(len(raws))] == raws
        assert store.get(key_of("other")) is None
        assert store.audit() == []


def test_every_durability_setting_is_really_on(tmp_path):
    with Store(tmp_path / "run.db") as store:
        answers = {
            name: store._writer.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
        assert answers == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
        assert (tmp_path / "run.db").stat().st_mode & 0o777 == 0o600


def test_a_setting_that_does_not_hold_is_a_refusal():
    from distill.errors import EnvironmentProblem

    with pytest.raises(EnvironmentProblem, match="journal_mode"):  # memory databases stay in mode `memory`
        database._pragma(sqlite3.connect(":memory:"), Path("x"), "journal_mode", "WAL", "wal")


def test_another_sqlite_file_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "run.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (x)")
    before = path.read_bytes()
    with pytest.raises(DataError, match="not a store"):
        Store(path)
    assert path.read_bytes() == before


def test_a_newer_store_is_refused_and_never_deleted(tmp_path):
    path = tmp_path / "run.db"
    Store(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(DataError, match="newer version"):
        Store(path)


def test_rubbish_instead_of_a_store_is_named_and_left_alone(tmp_path):
    path = tmp_path / "run.db"
    path.write_bytes(b"not a database at all" * 400)
    with pytest.raises(IntegrityError):
        Store(path)
    assert path.read_bytes() == b"not a database at all" * 400


def test_a_folder_that_cannot_be_written_is_a_disk_problem(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DiskProblem):
        Store(tmp_path / "file" / "run.db")


def test_a_changed_byte_in_an_answer_is_noticed(tmp_path):
    with Store(tmp_path / "run.db") as store:
        store.put(key_of(1), b"c", Received(0, b"answer one " * 50))
    with sqlite3.connect(tmp_path / "run.db") as connection:
        (blob,) = connection.execute("SELECT raw FROM response").fetchone()
        for place in range(0, len(blob), 7):
            damaged = blob[:place] + bytes([blob[place] ^ 4]) + blob[place + 1 :]
            connection.execute("UPDATE response SET raw = ?", (damaged,))
            connection.commit()
            with Store(tmp_path / "run.db") as store:
                assert store.audit()
                with pytest.raises(IntegrityError, match="damaged"):
                    store.get(key_of(1))


def test_what_a_dead_process_reserved_stays_charged(tmp_path):
    async def reserve(store):
        await store.reserve([[plan_of("a", 70)], [plan_of("b", 40)]])

    with Store(tmp_path / "run.db") as store:
        store.set_cap(100)
        asyncio.run(reserve(store))
        assert store.totals().balance.reserved == 70, "the second does not fit"
    with Store(tmp_path / "run.db") as store:
        assert store.recovered == 1
        assert store.totals().balance == ledger.Balance(cap=100, uncertain=70)
        assert store.audit() == []


def test_a_cap_below_what_is_committed_admits_nothing_more(tmp_path):
    async def go(store):
        ((attempt,),) = await store.reserve([[plan_of("a", 50)]])
        await store.settle([Received(attempt, b"x", cost_nano=50)])
        store.set_cap(10)
        return await store.reserve([[plan_of("b", 1)]])

    with Store(tmp_path / "run.db") as store:
        store.set_cap(100)
        assert asyncio.run(go(store)) == []


def test_an_answer_without_a_bill_is_charged_at_worst_case(tmp_path):
    async def go(store):
        ((attempt,),) = await store.reserve([[plan_of("a", 50)]])
        await store.settle([Received(attempt, b"x")])

    with Store(tmp_path / "run.db") as store:
        store.set_cap(100)
        asyncio.run(go(store))
        assert store.totals().balance == ledger.Balance(cap=100, spent=50)
        assert store.get(key_of("a")).cost_nano == 50
        assert store.audit() == []


def test_the_database_itself_refuses_an_overshoot(tmp_path):
    with Store(tmp_path / "run.db") as store:
        store.set_cap(100)
        with pytest.raises(sqlite3.IntegrityError):
            store._writer.execute("UPDATE budget SET spent_nano = 101")


def test_one_faulty_operation_does_not_take_its_neighbours_along(tmp_path):
    async def go(store):
        (good,), (other,) = await store.reserve([[plan_of("a")], [plan_of("b")]])
        bad = store.settle([Received(999_999, b"x")])  # no such attempt
        return await asyncio.gather(
            store.settle([Received(good, b"1")]), bad, store.settle([Received(other, b"2")]), return_exceptions=True
        )

    with Store(tmp_path / "run.db") as store:
        first, second, third = asyncio.run(go(store))
        assert (first, third) == (None, None)
        assert isinstance(second, Exception)
        assert store.totals().answers == 2


class Books(RuleBasedStateMachine):
    """Any order of operations, crashes and re-openings, against a model made of plain dictionaries."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "0" / "run.db"
        self.account = keys.Account("KEY", 2500, Path(self.folder.name) / "keys.db")
        self.store = Store(self.path)
        self.cap = 1000
        self.store.set_cap(self.cap, self.account)
        self.held: dict[int, tuple[str, int]] = {}
        self.unbilled: dict[int, int] = {}
        self.answers: dict[str, bytes] = {}
        self.spent = self.uncertain = self.count = self.folders = 0

    def run(self, coroutine):
        return asyncio.run(coroutine)

    def reserved(self):
        return sum(worst for _, worst in self.held.values()) + sum(self.unbilled.values())

    def committed(self):
        return self.spent + self.uncertain + self.reserved()

    def opened(self, received=()):
        """What opening makes of the attempts that were open: ``received`` ones keep their money reserved."""
        assert (self.store.replayed, self.store.recovered) == (len(received), len(self.held) - len(received))
        for attempt in list(self.held):
            name, worst = self.held.pop(attempt)
            if attempt in received:
                self.answers[name] = received[attempt]
                self.unbilled[attempt] = worst
            else:
                self.uncertain += worst
        self.store.set_cap(self.cap, self.account)

    @rule(worsts=st.lists(st.integers(0, 400), min_size=1, max_size=4))
    def reserve(self, worsts):
        names = [str(self.count + n) for n in range(len(worsts))]
        self.count += len(worsts)
        granted = self.run(self.store.reserve([[plan_of(n, w)] for n, w in zip(names, worsts, strict=True)]))
        free = min(self.cap, self.account.cap_nano) - self.committed()
        expected = 0
        for worst in worsts:
            if worst > free:
                break
            free -= worst
            expected += 1
        assert len(granted) == expected
        for (attempt,), name, worst in zip(granted, names, worsts, strict=False):
            self.held[attempt] = (name, worst)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), raw=st.binary(max_size=400))
    def settle(self, data, raw):
        attempt = data.draw(st.sampled_from(sorted(self.held)))
        name, worst = self.held.pop(attempt)
        cost = data.draw(st.integers(0, worst))
        self.store.receive([(key_of(name), Received(attempt, raw))])
        self.run(self.store.settle([Received(attempt, raw, cost_nano=cost)]))
        self.spent += cost
        self.answers[name] = raw

    @precondition(lambda self: self.held)
    @rule(data=st.data(), sent=st.booleans())
    def end(self, data, sent):
        attempt = data.draw(st.sampled_from(sorted(self.held)))
        _, worst = self.held.pop(attempt)
        self.run((self.store.uncertain if sent else self.store.release)([attempt], "test"))
        self.uncertain += worst if sent else 0

    @precondition(lambda self: self.unbilled)
    @rule(data=st.data())
    def bill(self, data):
        attempt = data.draw(st.sampled_from(sorted(self.unbilled)))
        cost = data.draw(st.integers(0, self.unbilled.pop(attempt)))
        for _ in range(2):  # the second bill of an answer is none
            self.store.bill([(attempt, cost)])
        self.spent += cost

    @rule(raw=st.binary(max_size=400))
    def put(self, raw):
        name = f"put {self.count}"
        self.count += 1
        self.store.put(key_of(name), b"c", Received(0, raw))
        self.answers[name] = raw

    @rule(cap=st.integers(0, 3000))
    def recap(self, cap):
        self.store.set_cap(cap, self.account)
        self.cap = max(cap, self.committed())

    @rule()
    def reopen(self):
        self.store.close()
        self.store = Store(self.path)
        self.opened()

    @rule(data=st.data(), raw=st.binary(max_size=400))
    def crash(self, data, raw):
        received = data.draw(st.sets(st.sampled_from(sorted(self.held)))) if self.held else set()
        self.store.receive([(key_of(self.held[attempt][0]), Received(attempt, raw)) for attempt in sorted(received)])
        self.folders += 1
        left = self.path.parent.with_name(str(self.folders))
        shutil.copytree(self.path.parent, left)  # the files as a kill leaves them
        self.store.close()
        self.path = left / "run.db"
        self.store = Store(self.path)
        self.opened(dict.fromkeys(received, raw))

    @rule()
    def second_process(self):
        with pytest.raises(RunLocked):
            Store(self.path)

    @invariant()
    def books_agree(self):
        book = ledger.Balance(self.cap, self.spent, self.reserved(), self.uncertain)
        assert self.store.totals().balance == book
        assert self.store.audit() == []
        found = self.store.get_many(map(key_of, self.answers))
        assert {name: found[key_of(name)].raw for name in self.answers} == self.answers
        assert sorted(self.store.rows().values()) == sorted(map(key_of, self.answers))

    def teardown(self):
        self.store.close()
        self.folder.cleanup()


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)


def spend(path, seed, calls, results):
    """One of several processes at one ledger: reserve, then settle at a random price, release, or die with it."""
    connection = sqlite3.connect(path, timeout=60, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")  # this is about who may write what, not about power cuts
    draw = random.Random(seed)
    billed = left = 0
    for _ in range(calls):
        worst = draw.randrange(1, 2000)
        connection.execute("BEGIN IMMEDIATE")
        granted = attempts.reserve(connection, [[plan_of(draw.random(), worst)]])
        connection.execute("COMMIT")
        if not granted:
            continue
        ((attempt,),) = granted
        fate, cost = draw.random(), draw.randrange(0, worst + 1)
        if fate < 0.05:
            left += worst  # never settled, as after a kill
            continue
        connection.execute("BEGIN IMMEDIATE")
        if fate < 0.15:
            attempts.end(connection, [attempt], "released", "test", None)
        else:
            attempts.settle(connection, [Received(attempt, b"x", cost_nano=cost)])
            billed += cost
        connection.execute("COMMIT")
    results.put((billed, left))


def test_eight_processes_at_one_ledger_never_pass_the_cap_and_use_nearly_all_of_it(tmp_path):
    path, cap = tmp_path / "run.db", 200_000
    with Store(path) as store:
        store.set_cap(cap)
    with sqlite3.connect(path) as connection:  # several writers: not the write-ahead log (SQLite < 3.51.3)
        connection.execute("PRAGMA journal_mode = MEMORY")
    forks = multiprocessing.get_context("fork")
    results = forks.Queue()
    processes = [forks.Process(target=spend, args=(path, seed, 120, results)) for seed in range(8)]
    for process in processes:
        process.start()
    sums = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    billed, left = (sum(column) for column in zip(*sums, strict=True))
    with Store(path) as store:
        book = store.totals().balance
        assert store.audit() == []
    assert (book.spent, book.uncertain, book.reserved) == (billed, left, 0)
    assert 0.99 * cap <= book.committed <= cap
