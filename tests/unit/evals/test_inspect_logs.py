"""Logs that inspect-ai 0.3.285 wrote (kept in logs/, the events left out of the JSON ones) are read without it."""

import json
import zipfile
from pathlib import Path

import pytest

from distill import cli
from distill.errors import DataError
from evals import samples

LOGS = Path(__file__).with_name("logs")


@pytest.mark.parametrize("name", ["sums.eval", "sums.json"])
def test_both_forms_of_a_log_say_the_same(name):
    rows = samples.read(LOGS / name)
    assert [(s.id, s.correct) for s in rows] == [(f"s{n}", float(n != 2)) for n in range(6)]
    assert {s.task for s in rows} == {"sums"}
    assert {s.lang for s in rows} == {"fr"}
    assert (rows[2].text, rows[2].gold, rows[2].prompt) == ("7", "3", "2 plus one?")
    assert (rows[0].prompt_tokens, rows[0].completion_tokens) == (11, 3)
    assert rows[0].latency_s > 0
    assert rows[0].cost_nano is None


def test_choices_are_scored_as_the_log_says():
    assert [s.correct for s in samples.read(LOGS / "choices.eval")] == [1.0, 0.0]


def test_a_broken_call_is_a_missing_answer_and_wrong():
    rows = samples.read(LOGS / "broken-call.json")
    assert [s.reject for s in rows] == ["", "", "", "missing", "", ""]
    assert rows[3].correct == 0.0
    assert rows[3].latency_s is None


def test_epochs_of_an_item_are_one_item_with_their_mean(tmp_path):
    log = json.loads((LOGS / "two-epochs.json").read_text())
    log["samples"][0]["scores"]["match"]["value"] = "I"
    (tmp_path / "a.json").write_text(json.dumps(log))
    rows = samples.read(tmp_path / "a.json")
    assert [(s.id, s.correct) for s in rows[:3]] == [("s0", 0.5), ("s1", 1.0), ("s2", 0.0)]


def test_two_logs_are_compared_item_by_item(tmp_path, capsys):
    arguments = [str(LOGS / "sums.eval"), f"other={LOGS / 'broken-call.json'}", "--out", str(tmp_path / "out")]
    assert cli.main(["compare", *arguments, "--draws", "1000"]) == 0, capsys.readouterr().err
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["pairs"][0]["lost"] == 1


def mangled(name):
    log = json.loads((LOGS / "sums.json").read_text())
    if name == "score":
        log["samples"][0]["scores"]["match"]["value"] = 7
    if name == "shape":
        log["samples"] = [1]
    if name == "foreign":
        log = {"rows": []}
    return json.dumps(log) if name != "text" else "no JSON"


@pytest.mark.parametrize("name", ["score", "shape", "foreign", "text"])
def test_a_broken_log_is_one_line(tmp_path, name):
    (tmp_path / "a.json").write_text(mangled(name))
    with pytest.raises(DataError):
        samples.read(tmp_path / "a.json")


def test_a_damaged_archive_is_one_line(tmp_path):
    whole = (LOGS / "sums.eval").read_bytes()
    with zipfile.ZipFile(LOGS / "sums.eval") as archive:
        start = archive.getinfo("samples/s0_epoch_1.json").header_offset
    for name, data in (("short", whole[:400]), ("flipped", whole[: start + 80] + b"\0\0\0\0" + whole[start + 84 :])):
        (tmp_path / f"{name}.eval").write_bytes(data)
        with pytest.raises(DataError):
            samples.read(tmp_path / f"{name}.eval")
