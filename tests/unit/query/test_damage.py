"""A store that was cut, flipped, zeroed or replaced: noticed, exit 6, and what is intact comes out with one command."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from distill import cli
from distill.errors import DataError, IntegrityError
from distill.query import crash
from distill.query.ask import ask_all
from distill.query.crash import PRICE
from distill.query.salvage import salvage
from distill.query.store import Store
from distill.query.wire import Teacher, Wire
from tests.unit.query.dying import die, in_a_fork

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = [f"question {n} of many" for n in range(40)]
CAP = 5.0


def ask(folder: Path, teacher: Teacher, texts=TEXTS, store_kind=Store):
    with store_kind(folder / "run.db") as store:
        return ask_all(Wire(teacher.port), crash.requests_of(texts), store, title="t", price=PRICE, max_cost_eur=CAP)


@pytest.fixture(scope="module")
def teacher():
    with Teacher(0.001, answer_bytes=350) as one:
        yield one


@pytest.fixture
def whole(tmp_path, teacher):
    """A finished store."""
    ask(tmp_path, teacher)
    teacher.calls.clear()
    return tmp_path


@pytest.fixture
def killed(tmp_path, teacher):
    """A store whose process was killed after everything was committed: its rows are in the -wal file."""

    def ask_and_die():
        store = Store(tmp_path / "run.db")
        ask_all(Wire(teacher.port), crash.requests_of(TEXTS), store, title="t", price=PRICE, max_cost_eur=CAP)
        die()

    assert in_a_fork(ask_and_die) == -9
    assert (tmp_path / "run.db-wal").stat().st_size > 10_000
    teacher.calls.clear()
    return tmp_path


def trouble(folder: Path) -> str:
    """What opening, checking and reading the store says; "" when it takes it for sound."""
    try:
        with Store(folder / "run.db") as store:
            found = store.audit()
            keys = [request.key(Wire(0).identity()) for request in crash.requests_of(TEXTS)]
            if len(store.get_many(keys)) < len(keys):
                found.append("answers are gone")
    except IntegrityError as error:
        assert error.exit_code == 6
        assert "salvage" in str(error)
        return str(error)
    except DataError as error:  # a damaged head is not a store any more, or one of a newer version
        return str(error)
    return "; ".join(found)


def content(folder: Path):
    """Every answer, every attempt, all money."""
    with closing(sqlite3.connect(folder / "run.db")) as connection:
        queries = (
            "SELECT key, codec, canonical FROM request ORDER BY key",
            "SELECT id, request_id, state, reserved_nano, charged_nano FROM attempt ORDER BY id",
            "SELECT attempt_id, codec, raw FROM response ORDER BY attempt_id",
            "SELECT cap_nano, spent_nano, reserved_nano, uncertain_nano FROM budget",
        )
        return [connection.execute(query).fetchall() for query in queries]


def test_a_store_that_is_cut_anywhere_is_noticed(whole, tmp_path_factory):
    data = (whole / "run.db").read_bytes()
    for hundredth in range(2, 100, 7):
        folder = copy_of(whole, tmp_path_factory)
        (folder / "run.db").write_bytes(data[: len(data) * hundredth // 100])
        assert trouble(folder), hundredth


def test_a_page_of_zeros_is_noticed(whole, tmp_path_factory):
    data = (whole / "run.db").read_bytes()
    for page in range(0, len(data) // 4096, 2):
        folder = copy_of(whole, tmp_path_factory)
        (folder / "run.db").write_bytes(data[: page * 4096] + bytes(4096) + data[(page + 1) * 4096 :])
        if content_or_none(folder) != content(whole):
            assert trouble(folder), page


def test_a_flipped_bit_that_changes_an_answer_or_money_is_noticed(whole, tmp_path_factory):
    data, draw = (whole / "run.db").read_bytes(), random.Random(0)
    before, changed = content(whole), 0
    folder = copy_of(whole, tmp_path_factory)
    for _ in range(150):
        place = draw.randrange(100, len(data))
        (folder / "run.db").write_bytes(
            data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :]
        )
        after = content_or_none(folder)
        if after is None or after[2] != before[2] or [row[2:] for row in after[1]] != [row[2:] for row in before[1]]:
            changed += 1
            assert trouble(folder), place
    assert changed > 30


def content_or_none(folder: Path):
    try:
        return content(folder)
    except sqlite3.Error:
        return None


def copy_of(folder: Path, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("damaged")
    shutil.copytree(folder, place, dirs_exist_ok=True)
    return place


def test_a_deleted_log_is_noticed_and_nothing_is_asked_again(killed, teacher):
    log = (killed / "run.db-wal").read_bytes()
    (killed / "run.db-wal").unlink()
    for _ in range(2):
        with pytest.raises(IntegrityError, match=r"commits are missing.*run\.db-wal"):
            ask(killed, teacher)
    assert teacher.calls == []
    (killed / "run.db-wal").write_bytes(log)
    ask(killed, teacher)
    assert teacher.calls == [], "put back, everything is there"


def test_a_log_that_was_cut_is_noticed(killed, teacher):
    with (killed / "run.db-wal").open("r+b") as file:
        file.truncate(file.seek(0, 2) // 2)
    with pytest.raises(IntegrityError, match="commits are missing"):
        ask(killed, teacher)


def test_an_older_copy_put_back_is_noticed(whole, teacher):
    old = (whole / "run.db").read_bytes()
    ask(whole, teacher, [*TEXTS, "one more"])
    (whole / "run.db").write_bytes(old)
    with pytest.raises(IntegrityError, match="an older file"):
        ask(whole, teacher)


def test_a_store_that_was_removed_on_purpose_begins_anew(whole, teacher):
    (whole / "run.db").unlink()
    ask(whole, teacher)
    assert len(teacher.calls) == len(TEXTS)


def test_salvage_keeps_every_intact_answer_and_the_next_run_asks_only_for_the_others(whole, teacher, capsys):
    before = content(whole)
    with sqlite3.connect(whole / "run.db") as connection:
        connection.execute("UPDATE response SET raw = zeroblob(50) WHERE attempt_id IN (3, 17)")
        connection.execute("UPDATE request SET canonical = x'00' WHERE id = 9")
        connection.execute("UPDATE budget SET spent_nano = 1")
    assert trouble(whole)
    assert cli.main(["salvage", str(whole)]) == 0
    said = capsys.readouterr().out
    assert "37 answers kept" in said
    assert "3 paid answers are lost" in said
    assert (whole / "run.db.damaged").exists()
    with Store(whole / "run.db") as store:
        assert store.audit() == []
        book = store.totals().balance
        assert book.cap == round(CAP * 1e9)
        spent = sum(row[4] for row in before[1])
        gone = next(row[4] for row in before[1] if row[1] == 9)
        assert book.spent + book.uncertain == spent - gone, "what was paid and lost stays charged where it is known"
    ask(whole, teacher)
    assert len(teacher.calls) == 3


def test_salvage_gets_answers_out_of_a_file_with_broken_pages(whole, teacher):
    data = bytearray((whole / "run.db").read_bytes())
    pages = len(data) // 4096
    for page in (pages // 2, pages - 3):
        data[page * 4096 : (page + 1) * 4096] = bytes(4096)
    (whole / "run.db").write_bytes(bytes(data))
    found = salvage(whole / "run.db")
    assert 10 < found.kept < len(TEXTS)
    ask(whole, teacher)
    assert len(teacher.calls) == len(TEXTS) - found.kept
    assert trouble(whole) == ""


def test_salvage_takes_what_a_deleted_log_left(killed, teacher):
    (killed / "run.db-wal").unlink()
    salvage(killed / "run.db")
    ask(killed, teacher)
    assert trouble(killed) == ""


def test_salvage_of_a_sound_store_changes_nothing(whole, teacher):
    before = content(whole)
    assert salvage(whole / "run.db").lost == 0
    assert content(whole) == before
    assert sorted(path.name for path in whole.iterdir()) == ["run.db", "run.db-lock", "run.db.damaged"]
    ask(whole, teacher)
    assert teacher.calls == []


def test_a_store_of_the_first_version_is_read_on_and_a_copy_of_it_stays(whole, teacher):
    with sqlite3.connect(whole / "run.db") as connection:  # what version 1 did not have
        connection.executescript("DROP TABLE store; ALTER TABLE attempt DROP COLUMN budget; PRAGMA user_version = 1")
    (whole / "run.db-lock").unlink()
    before = content(whole)
    ask(whole, teacher)
    assert teacher.calls == [], "no answer is bought again"
    assert content(whole) == before
    with sqlite3.connect(whole / "run.db.v1") as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM response").fetchone() == (len(TEXTS),)
