"""`distill catalog`: every table prints, searches, and comes as JSON."""

from __future__ import annotations

import datetime
import json

import pytest

from distill import catalog, cli


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.mark.parametrize("table", catalog.TABLES)
def test_each_table_prints_and_comes_as_json(table, capsys):
    assert cli.main(["catalog", table]) == 0
    text = capsys.readouterr().out
    assert cli.main(["catalog", table, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert f"{table}: {len(rows)} row(s)" in text
    assert all(row["source"] and row["as_of"] for row in rows)


def test_words_narrow_the_rows(capsys):
    assert cli.main(["catalog", "prices", "mistral", "large", "4", "--json"]) == 0
    (row,) = [row for row in json.loads(capsys.readouterr().out) if row["model"] == "mistral-large-4"]
    assert (row["input"], row["output"], row["currency"], row["batch_discount"]) == (0.7, 2.1, "USD", 0.5)


def test_a_price_without_a_batch_offer_shows_none(capsys):
    cli.main(["catalog", "prices", "zai-glm", "--json"])
    assert {row["batch_discount"] for row in json.loads(capsys.readouterr().out)} == {None}


def test_an_unknown_table_is_one_line(capsys):
    assert cli.main(["catalog", "modles"]) == 2
    assert "did you mean 'models'?" in capsys.readouterr().err


def test_the_users_rows_are_shown(tmp_path, capsys):
    (tmp_path / catalog.USER_FILE).write_text(
        "grid:\n  - {zone: FRA, g_per_kwh: 41, year: 2025, source: ours, as_of: 2026-01-26}\n"
    )
    cli.main(["catalog", "grid", "FRA", "--json"])
    assert [row["g_per_kwh"] for row in json.loads(capsys.readouterr().out)] == [41]


def test_the_doctor_says_how_old_the_prices_are_and_which_files_are_yours(tmp_path, capsys, monkeypatch):
    (tmp_path / catalog.USER_FILE).write_text("grid: []\n")
    monkeypatch.setattr(catalog, "today", lambda: datetime.date(2026, 11, 23))
    assert cli.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["catalogue"]["age"] == "fresh"
    assert found["catalogue"]["files"] == [str(tmp_path / catalog.USER_FILE)]
    assert not any("newest price" in line for line in found["advice"])
    monkeypatch.setattr(catalog, "today", lambda: datetime.date(2027, 1, 23))
    assert cli.main(["doctor", "--json"]) == 0
    assert any("--refresh" in line for line in json.loads(capsys.readouterr().out)["advice"])
