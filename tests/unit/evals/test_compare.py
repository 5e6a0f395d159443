"""`distill compare` on files of answers: verdicts, exit codes, and every broken file as one line."""

import json
import subprocess
import sys

import pytest

from distill.cli import main
from tests.unit.evals.synthetic import systems


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def rows_of(name, accuracies=None, seed=0):
    return [
        {
            "id": s.id,
            "cluster": s.cluster,
            "lang": s.lang,
            "gold": s.gold,
            "text": s.text,
            "usage": {"prompt": 100, "completion": 3},
        }
        for s in systems(seed, accuracies=accuracies)[name]
    ]


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write(tmp_path / "teacher.jsonl", rows_of("teacher")), write(tmp_path / "student.jsonl", rows_of("student"))


def report():
    with open("compare/report.json") as file:
        return json.load(file)


def test_two_files_give_a_table_a_report_and_a_verdict(files, capsys):
    assert main(["compare", *files, "--draws", "1000"]) == 0
    out = capsys.readouterr().out
    assert "teacher" in out
    assert "unknown" in out  # no costs in the files
    assert report()["verdict"]["sentence"] in out
    assert report()["reference"] == "teacher"


@pytest.mark.parametrize(
    ("accuracies", "code"), [({"student": 0.97}, 0), ({"student": 0.4}, 20), ({"student": 0.76}, 21)]
)
def test_the_gate_has_three_exit_codes(tmp_path, monkeypatch, accuracies, code, capsys):
    monkeypatch.chdir(tmp_path)
    pair = [write(tmp_path / f"{n}.jsonl", rows_of(n, accuracies)) for n in ("teacher", "student")]
    assert main(["compare", *pair, "--draws", "1000", "--gate"]) == code
    assert main(["compare", *pair, "--draws", "1000"]) == 0
    error = capsys.readouterr().err
    assert error.count("\n") == (code != 0)


def test_names_reference_and_candidate_can_be_chosen(files):
    teacher, student = files
    assert main(["compare", f"a={student}", f"b={teacher}", "--reference", "b", "--draws", "1000"]) == 0
    assert (report()["candidate"], report()["reference"]) == ("a", "b")
    assert report()["name"] == "a against b"
    assert main(["compare", student, student, "--draws", "1000"]) == 0
    assert (
        report()["verdict"]["outcome"] == "inconclusive"
    )  # 60 packages without a difference: up to 6 % could have one
    assert main(["compare", student, student, "--draws", "1000", "--margin", "0.07"]) == 0
    assert [arm["name"] for arm in report()["arms"]] == ["student", "student-2"]
    assert report()["verdict"]["outcome"] == "pass"


def test_rows_in_another_order_are_paired_by_id(files, tmp_path):
    main(["compare", *files, "--draws", "1000"])
    before = report()
    shuffled = list(reversed(rows_of("student")))
    main(["compare", files[0], write(tmp_path / "student.jsonl", shuffled), "--draws", "1000"])
    assert report() == before


def test_parquet_and_jsonl_say_the_same(files, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    main(["compare", *files, "--draws", "1000"])
    before = report()
    pq.write_table(pa.Table.from_pylist(rows_of("student")), tmp_path / "student.parquet")
    main(["compare", files[0], "student.parquet", "--draws", "1000"])
    assert report() == before


BROKEN = {
    "one item less": lambda rows: rows[:-1],
    "one id twice": lambda rows: [*rows[:-1], rows[0]],
    "another id": lambda rows: [*rows[:-1], {**rows[-1], "id": "other"}],
    "no id": lambda rows: [{k: v for k, v in rows[0].items() if k != "id"}, *rows[1:]],
    "neither gold nor correct": lambda rows: [{"id": rows[0]["id"], "text": "x"}, *rows[1:]],
    "correct out of range": lambda rows: [{**rows[0], "correct": 7}, *rows[1:]],
    "correct is text": lambda rows: [{**rows[0], "correct": "yes"}, *rows[1:]],
    "cost is text": lambda rows: [{**rows[0], "cost": "cheap"}, *rows[1:]],
    "usage is negative": lambda rows: [{**rows[0], "usage": {"prompt": -1}}, *rows[1:]],
    "a list": lambda rows: [[1, 2], *rows[1:]],
    "empty": lambda rows: [],
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_line_and_exit_4(files, tmp_path, capsys, name):
    broken = write(tmp_path / "student.jsonl", BROKEN[name](rows_of("student")))
    assert main(["compare", files[0], broken, "--draws", "1000"]) == 4
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "student" in captured.err
    assert not (tmp_path / "compare").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["teacher.jsonl"], ["teacher.jsonl", "student.jsonl", "--margin", "0"], ["teacher.jsonl", "a-model"],
        ["teacher.jsonl", "student.jsonl", "--reference", "nobody"],
        ["teacher.jsonl", "student.jsonl", "--draws", "10"],
        ["teacher.jsonl", "student.jsonl", "--margin", "nan"], ["teacher.jsonl", "x.yaml"],
    ],
)  # fmt: skip
def test_wrong_arguments_are_one_line_and_exit_2(files, capsys, arguments):
    assert main(["compare", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_missing_answers_count_as_wrong_and_are_counted(files, tmp_path):
    rows = rows_of("student")
    main(["compare", *files, "--draws", "1000"])
    before = report()["arms"][1]
    for row in rows[::10]:
        row["text"] = None
    main(["compare", files[0], write(tmp_path / "student.jsonl", rows), "--draws", "1000"])
    after = report()["arms"][1]
    assert after["rejects"] == {"missing": 24}
    assert after["n"] == before["n"] == 240
    assert after["right"] < before["right"]


def test_a_partly_priced_system_has_an_unknown_cost(files, tmp_path):
    rows = [row | ({"cost": 0.001} if number else {}) for number, row in enumerate(rows_of("student"))]
    main(["compare", files[0], write(tmp_path / "student.jsonl", rows), "--draws", "1000"])
    arm = report()["arms"][1]
    assert arm["cost"]["per_1000_requests"] is None
    assert arm["note"] == "cost known for 239 of 240 items"


def test_costs_in_the_file_become_euros_per_thousand_and_per_correct(files, tmp_path):
    rows = [row | {"cost": 0.002} for row in rows_of("student")]
    main(["compare", files[0], write(tmp_path / "student.jsonl", rows), "--draws", "1000"])
    arm = report()["arms"][1]
    assert arm["cost"]["per_1000_requests"]["value"] == pytest.approx(2.0)
    assert arm["cost"]["per_correct"]["value"] == pytest.approx(0.002 * 240 / arm["right"])
    assert arm["cost"]["per_mtok"]["blended"] == pytest.approx(0.002 / 103 * 1e6)


def test_a_suite_asks_models_once_and_refuses_what_a_client_may_not_see(files, tmp_path, capsys):
    items = [{"id": str(n), "prompt": f"question {n}", "label": "games"} for n in range(20)]
    write(tmp_path / "items.jsonl", items)
    suite = {
        "choices": ["games", "mail"],
        "tasks": [{"kind": "classification", "path": "items.jsonl", "licence": "CC-BY-4.0"}],
    }
    (tmp_path / "suite.yaml").write_text(json.dumps(suite))
    (tmp_path / "a.yaml").write_text("kind: fake\nmodel: a\n")
    (tmp_path / "b.yaml").write_text("kind: fake\nmodel: b\n")
    command = ["compare", "a.yaml", "b.yaml", "--suite", "suite.yaml", "--hold", "--draws", "1000"]
    assert main(command) == 0
    first = report()
    assert first["method"]["items"] == 20
    assert 0 < first["arms"][0]["right"] < 20
    assert "compare: 20 items in 20 clusters can show a difference of about 23.7 points" in capsys.readouterr().err
    assert main(command) == 0
    assert "answers" not in capsys.readouterr().err  # nothing was asked again
    assert report()["arms"] == first["arms"]
    suite["profile"] = "client"
    suite["tasks"][0]["licence"] = "CC BY-NC-SA 3.0"
    (tmp_path / "suite.yaml").write_text(json.dumps(suite))
    assert main(command) == 5
    assert "forbids commercial use" in capsys.readouterr().err


def test_neither_torch_nor_transformers_is_loaded_for_files(files):
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = sys.modules['sklearn'] = None\n"
        "from distill.cli import main; raise SystemExit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "compare", *files, "--draws", "1000"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def lm_eval_rows(right):
    """Rows as lm-evaluation-harness 0.4.13 logs them: a multiple-choice task, scored by log-likelihood."""
    rows = []
    for name in ("none", "other"):
        for n in range(100):
            yes, question = (n < right) == (n % 2 == 0), f"question {n}?"
            options = {f"gen_args_{i}": {"arg_0": question, "arg_1": word} for i, word in enumerate((" yes", " no"))}
            row = {"doc_id": n, "doc": {"q": question}, "target": n % 2, "filter": name, "arguments": options}
            row |= {"filtered_resps": [[-0.2 if yes else -0.9, False], [-0.9 if yes else -0.2, False]]}
            row |= {"metrics": ["acc"], "acc": float(n < right), "doc_hash": f"{n:064x}", "prompt_hash": "p"}
            rows.append(row)
    return rows


@pytest.mark.parametrize("broken", [{"metrics": 3}, {"filtered_resps": [["x"]]}, {"acc": "high"}, {"arguments": [3]}])
def test_a_broken_logged_sample_is_one_line(files, tmp_path, capsys, broken):
    rows = lm_eval_rows(80)
    rows[3] |= broken
    assert main(["compare", files[0], write(tmp_path / "x.jsonl", rows), "--draws", "1000"]) == 4
    assert "doc 3" in capsys.readouterr().err.splitlines()[-1]


def test_logged_samples_of_lm_eval_are_read_and_paired_by_document(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pair = [write(tmp_path / f"{name}.jsonl", lm_eval_rows(right)) for name, right in (("a", 80), ("b", 70))]
    assert main(["compare", *pair, "--draws", "1000"]) == 0
    assert "left out: other" in capsys.readouterr().err
    arms = report()["arms"]
    assert [(arm["n"], arm["right"]) for arm in arms] == [(100, 80), (100, 70)]
    lost = report()["items"]["lost"][0]
    assert lost["prompt"] == "question 70?"
    assert (lost["gold"], lost["reference"], lost["candidate"]) == ("yes", "yes", "no")


def test_a_system_may_have_dots_in_its_name(files):
    assert main(["compare", f"qwen2.5={files[0]}", f"qwen2={files[1]}", "--draws", "1000"]) == 0
    assert [arm["name"] for arm in report()["arms"]] == ["qwen2.5", "qwen2"]
    assert report()["tasks"] == []
    assert len(report()["languages"]) == 4
