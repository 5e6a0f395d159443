"""A report in the formats of others keeps its numbers, and their own readers take it."""

import json
from pathlib import Path

import pytest

from distill.errors import ConfigError, DataError
from evals import export
from tests.unit.evals.synthetic import made


def test_every_record_follows_the_published_schema():
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(Path(__file__).with_name("logs").joinpath("every-eval-ever-0.3.0.json").read_text())
    report = made()
    records = export.every_eval_ever(report, "a studio", 1_700_000_000.0)
    for record in records:
        jsonschema.Draft7Validator(schema).validate(record)
    assert [r["model_info"]["additional_details"]["arm"] for r in records] == [a["name"] for a in report["arms"]]
    for record, arm in zip(records, report["arms"], strict=True):
        score = record["evaluation_results"][0]["score_details"]
        assert score["score"] == arm["accuracy"]["value"]
        assert score["uncertainty"]["confidence_interval"]["lower"] == arm["accuracy"]["low"]
        assert score["uncertainty"]["num_samples"] == 240
    del records[0]["model_info"]
    assert not jsonschema.Draft7Validator(schema).is_valid(records[0])  # negative control


def test_a_model_card_with_the_index_is_read_by_the_hub_s_own_library():
    hub = pytest.importorskip("huggingface_hub")
    report = made()
    index = export.model_index(report, "student")
    data = hub.ModelCardData(**{"model-index": index})
    found = {r.metric_type: r.metric_value for r in data.eval_results}
    student = next(a for a in report["arms"] if a["name"] == "student")
    assert found == {"accuracy": student["accuracy"]["value"]}
    with pytest.raises(ConfigError, match="no system is called"):
        export.model_index(report, "someone")


def test_the_command_writes_one_file_per_system(tmp_path, capsys):
    (tmp_path / "report.json").write_text(json.dumps(made()))
    export.main([str(tmp_path / "report.json"), "--as", "every-eval-ever", "--out", str(tmp_path / "eee")])
    assert len(list((tmp_path / "eee").iterdir())) == 5
    capsys.readouterr()
    export.main([str(tmp_path / "report.json"), "--as", "model-index"])
    assert json.loads(capsys.readouterr().out)["model-index"][0]["results"]
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(DataError, match="not a report"):
        export.load(tmp_path / "x.json")
