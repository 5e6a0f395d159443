"""Suites: what a client may see, pinned data of a hub, client tasks in five lines, clusters across languages."""

import json

import pytest

from distill import cli
from distill.errors import ConfigError, Refused
from evals import suite
from evals.analysis import Arm, Question, analyse
from evals.samples import Sample

SHIPPED = sorted(path.stem for path in suite.SHIPPED.glob("*.yaml"))
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Everything(dict):
    """A commit for every data set."""

    def __contains__(self, name):
        return True

    def __missing__(self, name):
        return COMMIT


def test_a_client_s_task_needs_five_lines_and_no_python(tmp_path, capsys):
    rows = [{"id": n, "prompt": f"{n} + 1?", "answer": str(n + 1)} for n in range(20)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "suite.yaml").write_text(
        "name: sums\nprofile: client\ntasks:\n  - {kind: numeric, path: sums.jsonl, licence: ours}\nmax_new_tokens: 8\n"
    )
    for name, off in (("good", 1), ("bad", 2)):
        answers = [{"id": str(n), "text": f"It is {n + off}."} for n in range(20)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    files = [str(tmp_path / "good.jsonl"), str(tmp_path / "bad.jsonl")]
    out = ["--suite", str(tmp_path / "suite.yaml"), "--out", str(tmp_path / "out"), "--draws", "1000"]
    assert cli.main(["compare", *files, *out]) == 0, capsys.readouterr().err
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [arm["accuracy"]["value"] for arm in report["arms"]] == [1.0, 0.0]
    assert report["sets"] == [{"name": "sums", "kind": "numeric", "items": 20, "licence": "ours", "choices": []}]


@pytest.mark.parametrize("licence", ["CC-BY-NC-4.0", "cc by-nc-sa 3.0", "Non-commercial use only", "noncommercial"])
def test_a_set_that_may_not_be_sold_is_refused_in_a_client_report(tmp_path, licence):
    path = tmp_path / "suite.yaml"
    path.write_text(f"profile: client\ntasks: [{{kind: exact, path: x.jsonl, licence: {licence!r}}}]")
    with pytest.raises(Refused, match="forbids commercial use"):
        suite.load(path)
    path.write_text(path.read_text().replace("client", "internal"))
    assert suite.load(path).tasks


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_suite_names_its_licences_and_asks_for_commits_it_cannot_know(name):
    from pathlib import Path

    with pytest.raises(ConfigError, match=r"no commit of \S+/\S+ is pinned") as told:
        suite.load(Path(name))
    assert "--pin" in str(told.value.next)
    loaded = suite.load(Path(name), Everything())
    for task in loaded.task_configs:
        assert task.licence
        assert not suite.NON_COMMERCIAL.search(task.licence)
        assert f"@{COMMIT}:" in task.path


ROWS = {
    "belebele": {
        "link": "https://x/1", "question_number": 1, "flores_passage": "Es regnet.", "question": "Was?",
        "mc_answer1": "Regen", "mc_answer2": "Schnee", "mc_answer3": "Wind", "mc_answer4": "Sonne",
        "correct_answer_num": "1", "dialect": "deu_Latn",
    },
    "global-mmlu": {
        "sample_id": "law/1", "question": "?", "option_a": "1", "option_b": "2", "option_c": "3", "option_d": "4",
        "answer": "C",
    },
    "mmlu-prox": {
        "question_id": 70, "question": "?", "answer": "B", "answer_index": 1,
        **{f"option_{n}": str(n) if n < 5 else None for n in range(10)},
    },
    "include": {
        "question": "?", "option_a": "1", "option_b": "2", "option_c": "3", "option_d": "4", "answer": 3,
    },
    "mgsm": {"question": "1 + 1?", "answer": None, "answer_number": 2, "equation_solution": None},
    "allocine": {"review": "Un film superbe.", "label": 1},
}  # fmt: skip
GOLD = {"belebele": "A", "global-mmlu": "C", "mmlu-prox": "B", "include": "D", "mgsm": "2", "allocine": "positive"}


@pytest.mark.parametrize("name", SHIPPED)
def test_rows_of_the_published_shape_become_items(name, tmp_path, monkeypatch):
    from pathlib import Path

    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist([ROWS[name]]), tmp_path / "rows.parquet")
    monkeypatch.setattr("distill.prompts.locate", lambda path, resolve: tmp_path / "rows.parquet")
    asked = suite.questions(suite.load(Path(name), Everything()))
    assert {q.module.gold_text(q.item) for q in asked} == {GOLD[name]}
    assert all(q.module.score(q.item, GOLD[name], q.config) == 1.0 for q in asked)
    text = asked[0].request.messages[-1].content
    assert str(ROWS[name].get("question", ROWS[name].get("review"))) in text
    if name == "mmlu-prox":
        assert asked[0].request.choices == ("A", "B", "C", "D", "E")


def test_one_passage_in_several_tasks_is_one_cluster_and_plain_items_are_not():
    def rows(task, right, cluster):
        return [Sample(str(n), task, cluster(n), "", "x", "", "x", "x", float(right(n))) for n in range(20)]

    def clusters(cluster):
        arms = {
            name: [*rows("fr", right, cluster), *rows("de", right, cluster)]
            for name, right in (("t", lambda n: True), ("s", lambda n: n % 3 > 0))
        }
        made = [Arm(name, name, found) for name, found in arms.items()]
        return analyse(made, Question("s", "t", draws=1000))["method"]["clusters"]

    assert clusters(lambda n: f"passage {n}") == 20
    assert clusters(str) == 40
