"""lm-evaluation-harness's own tasks over our engines: what it counts is what its own engine counts.

Needs an environment with lm-eval (`pip install 'alambic[lm-eval]'`); left out where there is none.
"""

import json

import pytest

from distill import cli

pytest.importorskip("lm_eval")

COMMON = """dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
doc_to_text: "{{{{question}}}}"
metadata: {{version: 1}}
"""
CHOICE = """task: colours
output_type: multiple_choice
doc_to_choice: "{{choices}}"
doc_to_target: "{{right}}"
metric_list: [{metric: acc}]
"""
FREE = """task: names
output_type: generate_until
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 8}
metric_list: [{metric: exact_match, ignore_case: true}]
"""


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [
        {
            "question": f"question {n}?",
            "choices": ["red", "blue green", "x"],
            "right": n % 3,
            "answer": "A short answer.",
        }
        for n in range(12)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name, text in (("colours", CHOICE), ("names", FREE)):
        (folder / f"{name}.yaml").write_text(text + COMMON.format(rows=tmp_path / "rows.jsonl"))
    return folder


def test_likelihoods_are_those_of_the_harness_s_own_engine(tasks, tiny_student, tiny_teacher, tmp_path, capsys):
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    out = tmp_path / "out"
    arguments = ["--lm-eval", "colours", "--lm-eval-path", str(tasks), "--out", str(out), "--draws", "1000"]
    assert cli.main(["compare", f"t={tiny_teacher}", f"s={tiny_student}", *arguments]) == 0, capsys.readouterr().err
    report = json.loads((out / "report.json").read_text())
    assert [arm["n"] for arm in report["arms"]] == [12, 12]
    theirs = simple_evaluate(
        model=HFLM(pretrained=str(tiny_student), dtype="float32", device="cpu", add_bos_token=False),
        tasks=["colours"],
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        apply_chat_template=True,
        bootstrap_iters=0,
        log_samples=True,
    )
    expected = [sample["acc"] for sample in theirs["samples"]["colours"]]
    from evals import samples

    assert [s.correct for s in samples.read(out / "s.parquet")] == expected


def test_generation_is_asked_once_and_comes_back_with_its_tokens(tasks, tmp_path, capsys):
    for name, reply in (("good", "A short answer.\nmore"), ("bad", "no")):
        (tmp_path / f"{name}.yaml").write_text(json.dumps({"kind": "fake", "model": name, "replies": [reply]}))
    systems = [str(tmp_path / "good.yaml"), str(tmp_path / "bad.yaml")]
    out = tmp_path / "out"
    arguments = [
        "--lm-eval",
        "names",
        "--lm-eval-path",
        str(tasks),
        "--limit",
        "9",
        "--out",
        str(out),
        "--draws",
        "1000",
    ]
    assert cli.main(["compare", *systems, *arguments]) == 0, capsys.readouterr().err
    report = json.loads((out / "report.json").read_text())
    assert [(arm["n"], arm["accuracy"]["value"]) for arm in report["arms"]] == [(9, 1.0), (9, 0.0)]
    assert report["arms"][0]["tokens"]["completion"] > 0
    assert report["sets"][0]["kind"] == "lm-eval"


def test_what_cannot_be_asked_is_one_line(tasks, tmp_path, capsys):
    (tmp_path / "a.yaml").write_text(json.dumps({"kind": "fake"}))
    (tmp_path / "b.yaml").write_text(json.dumps({"kind": "fake", "model": "fake-2"}))
    systems = [str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")]
    place = ["--lm-eval-path", str(tasks), "--out", str(tmp_path / "out")]
    assert cli.main(["compare", *systems, "--lm-eval", "colours", *place]) == 2
    assert "no log-likelihood" in capsys.readouterr().err
    assert cli.main(["compare", *systems, "--lm-eval", "colour", *place]) == 2
