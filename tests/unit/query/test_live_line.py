"""What a person sees while a paid teacher answers: done, spent, projected, and how fast both go."""

from __future__ import annotations

import re

from distill.progress import Progress
from distill.query.ask import ask_all
from distill.query.store import Store
from tests.fault.asking import QUICK, provider_of, requests_of
from tests.fault.hostile import HostileTeacher
from tests.unit.query.prices import PRICE

LINE = re.compile(
    r"asking: (\d+)/40 answers, \S+/s, (?:\d+ s left, )?spent ([\d.]+) of ~([\d.]+) EUR,"
    r" at \S+ EUR/min, \S+ tokens/s"
)


def test_plain_lines_tell_done_spent_projected_and_pace(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Progress, "every_s", 0.05)
    requests = requests_of([f"question {n} " + "word " * 2000 for n in range(40)], max_new_tokens=500)
    with HostileTeacher(latency_s=0.05) as server, Store(tmp_path / "run.db") as store:
        provider = provider_of(server.url, concurrency=4)
        ask_all(provider, requests, store, title="asking", price=PRICE, max_cost_eur=9, policy=QUICK)
        spent = store.totals().balance.spent / 1e9
    lines = [LINE.fullmatch(line) for line in capsys.readouterr().err.splitlines()]
    assert len(lines) > 2
    assert all(lines), "every line has every part"
    done, shown, whole = (float(part) for part in lines[-1].groups())
    assert (done, shown) == (40, whole)
    assert abs(shown - spent) < 1e-4
    assert all(abs(float(line[3]) - spent) < 0.1 * spent for line in lines), "the projection is right from the start"


def test_without_a_price_there_is_no_money_in_it(tmp_path, capsys):
    with HostileTeacher() as server, Store(tmp_path / "run.db") as store:
        ask_all(provider_of(server.url), requests_of(["a", "b"]), store, title="asking", policy=QUICK)
    said = capsys.readouterr().err
    assert "tokens/s" in said
    assert "EUR" not in said


def test_facts_are_worked_out_only_when_they_are_shown(capsys):
    bar = Progress("x", 3, "steps")
    due = []
    for _ in range(3):
        due.append(bar.due())
        bar.advance()
    assert due == [False, False, True]
    assert len(capsys.readouterr().err.splitlines()) == 1
