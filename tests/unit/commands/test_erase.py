"""`distill erase`: the text is in no byte of the run any more, the money stays, and it is never asked again."""

from __future__ import annotations

import sqlite3

import pyarrow
import pyarrow.parquet
import pytest

from distill import cli
from distill.artifacts import RunFolder
from distill.query import crash
from distill.query.ask import ask_all
from distill.query.crash import PRICE
from distill.query.store import Store
from distill.query.wire import Teacher, Wire

SECRET = "Rosalind Q. Testpérson"
TEXTS = [f"question {n}" + f" about {SECRET}" * (n in (3, 8)) + " pad" * 40 for n in range(20)]


@pytest.fixture
def teacher():
    with Teacher(0.001) as one:
        yield one


def ask(path, teacher):
    with Store(path / "run.db") as store:
        return ask_all(Wire(teacher.port), crash.requests_of(TEXTS), store, title="t", price=PRICE, max_cost_eur=1.0)


@pytest.fixture
def run(tmp_path, teacher):
    """A run folder with a store, data made from it, and a copy that an upgrade left."""
    outcomes = ask(tmp_path, teacher)
    folder = RunFolder(tmp_path)
    rows = [
        {"id": f"p{n}", "request_key": outcome.key, "answer": outcome.completion.text}
        for n, outcome in enumerate(outcomes)
    ]
    folder.train_data.parent.mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder.train_data)
    (tmp_path / "run.db.v1").write_bytes((tmp_path / "run.db").read_bytes())
    folder.manifest.write_text("{}")
    teacher.calls.clear()
    return tmp_path


def found(folder) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize("how", [["--id", "p3", "--id", "p8"], ["--text", SECRET]])
def test_no_byte_of_it_is_left_and_it_is_never_asked_again(run, teacher, capsys, how):
    assert found(run), "it was there"
    with sqlite3.connect(run / "run.db") as connection:
        before = connection.execute("SELECT * FROM budget").fetchall()
    connection.close()
    assert cli.main(["erase", str(run), *how]) == 0
    assert "2 requests" in capsys.readouterr().out
    assert found(run) == []
    assert not (run / "data").exists(), "what was made from it is made anew"
    assert not (run / "manifest.json").exists()
    outcomes = ask(run, teacher)
    assert teacher.calls == []
    assert [n for n, outcome in enumerate(outcomes) if outcome.completion.reject == "erased"] == [3, 8]
    with Store(run / "run.db") as store:
        assert store.audit() == []
        book = store.totals().balance
        assert (book.cap, book.spent) == before[0][1:3], "what it cost was paid"
        assert len(store.rows()) == 18


def test_erasing_nothing_changes_nothing(run, capsys):
    assert cli.main(["erase", str(run), "--text", "nobody wrote this"]) == 0
    assert "0 requests" in capsys.readouterr().out
    assert (run / "data").exists()


def test_what_is_not_there_or_not_said_is_one_line(run, tmp_path_factory, capsys):
    empty = tmp_path_factory.mktemp("empty")
    for arguments, code in (([str(run)], 2), ([str(empty), "--id", "a"], 2), ([str(run), "--id", "p99"], 4)):
        assert cli.main(["erase", *arguments]) == code
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
