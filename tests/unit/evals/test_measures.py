"""Load and electricity through the whole stage and through `distill compare`: on when written, null when not."""

import json
from importlib import resources

import jsonschema
import pytest

from distill import cli
from distill.artifacts import open_run
from distill.errors import ConfigError
from evals import run as stage
from tests.unit.evals.streaming import Streaming
from tests.unit.evals.test_run import copy_of, load, project  # noqa: F401 - a fixture

LOAD = 'eval.load={"concurrency": [1, 2], "requests": 4, "arms": ["student"], "objective": {"e2e_s": 60}}'
ENERGY = 'eval.energy={"zone": "FRA", "watts": [10, 30], "pue": 1.2}'
ARMS = 'eval.arms=["teacher", "base_forced", "student", "baseline"]'


def schema():
    return json.loads((resources.files("evals.report") / "schema.json").read_text())


def test_load_and_electricity_are_in_the_report_and_a_second_run_measures_nothing(project, tmp_path, capsys):  # noqa: F811
    home = copy_of(project, tmp_path)
    with open_run(home / "run") as folder:
        stage.run(load(home, ARMS, LOAD, ENERGY), folder)
        report = json.loads(folder.report_json.read_text())
        assert "eval load: student, 2 in flight" in capsys.readouterr().err
        stage.run(load(home, ARMS, LOAD, ENERGY), folder)
        again = json.loads(folder.report_json.read_text())
        assert "eval load" not in capsys.readouterr().err
    jsonschema.validate(report, schema())
    (arm,) = report["load"]["arms"]
    assert (arm["name"], [level["concurrency"] for level in arm["levels"]]) == ("student", [1, 2])
    assert all(level["within"] == 1.0 and level["ttft"] is not None for level in arm["levels"])
    assert arm["streamed"]
    assert report["load"] == again["load"]
    energy = {one["name"]: one for one in report["energy"]["arms"]}
    assert list(energy) == [one["name"] for one in report["arms"]]
    assert report["energy"]["zone"] == "FRA"
    # This machine's counters are read where there are any.
    assert energy["student"]["how"] in ("estimated", "measured")
    assert energy["student"]["wh_per_1000_requests"]["value"] > 0
    assert energy["student"]["co2e_g_per_1000_requests"]["value"] > 0
    assert "best load" in energy["student"]["note"]
    assert "best load" not in energy["base_forced"]["note"]


def test_neither_is_measured_unless_it_is_asked_for(project, tmp_path):  # noqa: F811
    home = copy_of(project, tmp_path)
    with open_run(home / "run") as folder:
        stage.run(load(home, ARMS), folder)
        report = json.loads(folder.report_json.read_text())
        assert not (folder.eval / "load.json").exists()
    assert (report["load"], report["energy"]) == (None, None)
    jsonschema.validate(report, schema())


def test_a_load_arm_that_is_not_asked_is_one_clear_line(project):  # noqa: F811
    with pytest.raises(ConfigError) as caught:
        load(project, ARMS, LOAD.replace('"student"', '"base"'))
    assert "'base' is none of the models asked" in "".join(caught.value.problems)


@pytest.fixture
def suite(tmp_path):
    (tmp_path / "items.jsonl").write_text(
        "".join(f'{{"id": "{n}", "prompt": "q {n}", "gold": "w"}}\n' for n in range(9))
    )
    values = {
        "tasks": [{"kind": "exact", "path": "items.jsonl", "gold_field": "gold"}],
        "load": {"concurrency": [2], "requests": 4, "objective": {"ttft_s": 30, "e2e_s": 60}},
        "energy": {"watts": [10, 30]},
    }
    (tmp_path / "suite.yaml").write_text(json.dumps(values))
    (tmp_path / "old.jsonl").write_text("".join(f'{{"id": "{n}", "text": "w", "gold": "w"}}\n' for n in range(9)))
    return tmp_path


def compare(home, server, *more):
    settings = {"kind": "openai", "model": "m", "base_url": server.url}
    (home / "live.yaml").write_text(json.dumps(settings))
    arguments = ["compare", str(home / "old.jsonl"), str(home / "live.yaml"), "--suite", str(home / "suite.yaml")]
    return cli.main([*arguments, "--out", str(home / "out"), *more])


def test_compare_measures_the_systems_that_are_models(suite):
    with Streaming() as server:
        assert compare(suite, server) == 0
        count = len(server.bodies)
        assert sum(body.get("stream", False) for body in server.bodies) == 2 + 4
        assert compare(suite, server) == 0
        assert len(server.bodies) == count  # neither an item nor a level is asked again
    report = json.loads((suite / "out" / "report.json").read_text())
    jsonschema.validate(report, schema())
    assert [arm["name"] for arm in report["load"]["arms"]] == ["live"]
    assert report["load"]["arms"][0]["best"] == 0
    assert {one["name"]: one["how"] for one in report["energy"]["arms"]}["old"] == "unknown"


def test_compare_names_the_models_when_a_load_arm_is_none(suite, capsys):
    values = json.loads((suite / "suite.yaml").read_text())
    values["load"]["arms"] = ["old"]
    (suite / "suite.yaml").write_text(json.dumps(values))
    with Streaming() as server:
        assert compare(suite, server) == 2
        assert not server.bodies
    assert "no model is called 'old'; " in capsys.readouterr().err.replace(" | ", "; ")
