"""The stage on a tiny real model and a fake teacher: every arm, resumed, gated, and broken on purpose."""

import json
import shutil

import pyarrow.parquet as pq
import pytest

from distill import config as configuration
from distill.artifacts import open_run
from distill.errors import ConfigError, GateFailed, GateInconclusive
from evals import run as stage
from evals import samples

LABELS = ["games", "sound", "mail"]


def write_rows(path, clusters, offset=0):
    rows = [
        {
            "id": f"p{c}:{lang}",
            "package": f"p{c}",
            "lang": lang,
            "text": f"{lang} {LABELS[c % 3]} number {c}",
            "label": LABELS[c % 3],
        }
        for c in range(offset, offset + clusters)
        for lang in ("en", "fr")
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def project(tmp_path_factory, tiny_student):
    """A folder with prompts, items, a generated data set and a student that is a copy of the tiny model."""
    from distill.generate import run as generate

    home = tmp_path_factory.mktemp("project")
    write_rows(home / "train.jsonl", 20)
    write_rows(home / "test.jsonl", 12, offset=100)
    values = {
        "name": "tiny",
        "prompts": {
            "path": "train.jsonl", "template": "{{ text }}", "cluster_field": "package", "lang_field": "lang",
            "choices": LABELS, "system": "Name the section.",
        },
        "teacher": {"kind": "fake"},
        "generate": {"max_new_tokens": 4},
        "student": {"model": f"path:{tiny_student}"},
        "eval": {
            "tasks": [
                {"kind": "classification", "path": "test.jsonl", "cluster_field": "package", "lang_field": "lang"}
            ],
            "draws": 1000,
            "batch_size": 8,
            "serving": {"eur_per_hour": 0.05, "source": "a test"},
        },
    }  # fmt: skip
    (home / "run.yaml").write_text(json.dumps(values))
    with open_run(home / "run") as folder:
        generate.run(load(home), folder)
        shutil.copytree(tiny_student, folder.student)
        (folder.student / "student.json").write_text(json.dumps({"adapter": False, "seconds": 3.0}))
    return home


def load(home, *overrides):
    return configuration.load(home / "run.yaml", list(overrides))


def copy_of(project, tmp_path):
    shutil.copytree(project, tmp_path / "copy")
    return tmp_path / "copy"


def test_every_arm_answers_every_item_and_the_report_follows_the_schema(project, tmp_path):
    from importlib import resources

    import jsonschema

    home = copy_of(project, tmp_path)
    with open_run(home / "run") as folder:
        written = stage.run(load(home), folder)
        report = json.loads(folder.report_json.read_text())
        assert folder.report_html in written
        names = [arm["name"] for arm in report["arms"]]
        assert names == ["teacher", "base", "base_forced", "student", "baseline", "baseline_gold"]
        for name in names:
            table = pq.read_table(folder.eval / f"{name}.parquet")
            assert table.num_rows == 24
            assert json.loads(table.schema.metadata[b"alambic"])["arm"] == name
        jsonschema.validate(report, json.loads((resources.files("evals.report") / "schema.json").read_text()))
        arms = {arm["name"]: arm for arm in report["arms"]}
        assert arms["base_forced"]["legal"] == 1.0
        assert arms["teacher"]["cost"]["per_1000_requests"] is None  # a fake has no price: unknown, not free
        assert arms["student"]["cost"]["per_1000_requests"]["value"] > 0
        assert arms["student"]["speed"]["answers"] == 24
        assert arms["student"]["cost"]["per_mtok"]["split"]
        bill = report["economics"]["one_off"]
        assert (bill["teacher_eur"], bill["total_eur"], bill["unknown"]) == (None, None, ["teacher", "evaluation"])
        assert bill["training_eur"] == pytest.approx(3.0 * 0.05 / 3600)
        assert bill["known_eur"] > bill["training_eur"]
        words = {row["lang"]: row for row in report["words"]}
        assert set(words) == {"en", "fr"}
        assert words["fr"]["arms"]["student"]["tokens_per_word"] > 1  # by the tiny model's own tokenizer
        assert words["fr"]["arms"]["teacher"] == {"tokens_per_word": None, "eur_per_1000_words": None}
        assert arms["student"]["speed"]["peak_bytes"] > 1e7
        assert arms["baseline_gold"]["accuracy"]["value"] == 1.0  # the label is a word of the text
        assert report["method"] | {"draws": 0} == {
            "items": 24,
            "clusters": 12,
            "metric": "accuracy",
            "confidence": 0.95,
            "draws": 0,
            "seed": 0,
            "chance": 1 / 3,
        }
        assert all(s.confidence is not None for s in samples.read(folder.eval / "student.parquet"))


def test_a_second_evaluation_asks_nothing_and_writes_the_same_report(project, tmp_path, monkeypatch):
    home = copy_of(project, tmp_path)
    with open_run(home / "run") as folder:
        stage.run(load(home), folder)
        before = folder.report_json.read_bytes(), folder.report_html.read_bytes()
        from distill.providers import fake, transformers

        async def refuse(self, requests):
            raise AssertionError("asked again")

        monkeypatch.setattr(fake.FakeProvider, "ask", refuse)
        monkeypatch.setattr(transformers.TransformersProvider, "ask", refuse)
        stage.run(load(home, "eval.arms=[teacher, base, base_forced, student]"), folder)
        again = json.loads(folder.report_json.read_text())
        first = json.loads(before[0])
        keep = [arm for arm in first["arms"] if not arm["name"].startswith("baseline")]
        assert again["arms"] == keep


@pytest.mark.parametrize(
    ("gate", "margin", "error"),
    [
        ("teacher", "0.9", None),
        ("base", "0.05", GateFailed),
        ("teacher", "0.0001", (GateFailed, GateInconclusive)),
    ],
)
def test_the_gate_is_judged_after_everything_is_written(project, tmp_path, gate, margin, error):
    home = copy_of(project, tmp_path)
    config = load(home, f"eval.gate={gate}", f"eval.margin={margin}", "eval.arms=[teacher, base_forced, student]")
    with open_run(home / "run") as folder:
        if error is None:
            stage.run(config, folder)
        else:
            with pytest.raises(error):
                stage.run(config, folder)
        assert folder.report_html.is_file()
        assert json.loads(folder.report_json.read_text())["verdict"]["outcome"] in ("pass", "fail", "inconclusive")


def test_no_task_is_one_line(project, tmp_path):
    home = copy_of(project, tmp_path)
    with open_run(home / "run") as folder, pytest.raises(ConfigError, match=r"eval\.tasks is empty"):
        stage.run(load(home, "eval.tasks=[]"), folder)


def test_a_killed_evaluation_goes_on_where_it_stopped_and_keeps_its_measured_speed(project, tmp_path, monkeypatch):
    from distill.errors import DistillError
    from distill.providers.transformers import TransformersProvider

    home, asked = copy_of(project, tmp_path), []
    whole = TransformersProvider.ask

    async def counted(self, requests):
        if len(asked) == 2:
            raise RuntimeError("the power went off")
        asked.append(len(requests))
        return await whole(self, requests)

    arms = "eval.arms=[teacher, student]"
    with open_run(home / "run") as folder:
        monkeypatch.setattr(TransformersProvider, "ask", counted)
        with pytest.raises((DistillError, RuntimeError)):
            stage.run(load(home, arms), folder)
        assert not folder.report_json.exists()
        monkeypatch.setattr(TransformersProvider, "ask", lambda self, r: (asked.append(len(r)), whole(self, r))[1])
        stage.run(load(home, arms), folder)
        report = json.loads(folder.report_json.read_text())
    assert sum(asked) == 24  # no item twice
    assert report["arms"][1]["speed"]["answers"] == 24


def test_calls_in_flight_at_the_same_time_are_timed_once(tmp_path):
    import asyncio

    from distill.providers import fake
    from distill.providers._base import Context
    from distill.records import Message, Request
    from evals.timing import Timed

    provider = fake.build(fake.Config(latency_s=0.2), Context())
    timed = Timed(provider, tmp_path / "speed.json", "teacher", False)
    requests = [Request((Message("user", str(n)),)) for n in range(5)]

    async def together():
        await asyncio.gather(*(timed.ask([request]) for request in requests))

    asyncio.run(together())
    timed.close()
    assert timed.speed.answers == 5
    assert 0.19 < timed.speed.seconds < 0.6  # not 1.0
    again = Timed(provider, tmp_path / "speed.json", "teacher", False)
    assert again.speed == timed.speed
    other = fake.build(fake.Config(model="fake-2"), Context())
    assert Timed(other, tmp_path / "speed.json", "teacher", False).speed is None  # another model, another speed


def test_a_further_system_is_judged_beside_the_student(project, tmp_path):
    home = copy_of(project, tmp_path)
    with open_run(home / "run") as folder:
        stage.run(
            load(home, "eval.arms=[teacher, base_forced]", "eval.alternatives=[{kind: fake, model: cheap}]"), folder
        )
        arms = {arm["name"]: arm for arm in json.loads(folder.report_json.read_text())["arms"]}
    assert arms["alternative-1"]["label"] == "cheap"
    assert arms["alternative-1"]["held"] is True
    assert arms["alternative-1"]["outcome"] in ("pass", "fail", "inconclusive")


def test_items_that_cannot_be_read_are_one_line_before_anything_is_asked(project, tmp_path):
    from distill.errors import DataError

    home = copy_of(project, tmp_path)
    (home / "test.jsonl").write_text('{"id": "1", "package": "p", "lang": "en", "text": "x"}\n')
    with open_run(home / "run") as folder:
        with pytest.raises(DataError, match="label"):
            stage.run(load(home), folder)
        assert not folder.eval.exists()


def test_before_and_after_read_the_student_s_own_prompt_and_the_best_untouched_student_is_the_base(project, tmp_path):
    home = copy_of(project, tmp_path)
    short = "student.prompt={system: Short}"
    arms = "eval.arms=[teacher, base_forced, base_prompted, student]"
    with open_run(home / "run") as folder:
        stage.run(load(home, short, arms), folder)
        report = json.loads(folder.report_json.read_text())
        found = {arm["name"]: arm for arm in report["arms"]}
        assert found["base_prompted"]["tokens"]["prompt"] > found["base_forced"]["tokens"]["prompt"]
        assert found["student"]["tokens"]["prompt"] == found["base_forced"]["tokens"]["prompt"]
        best = max(("base_forced", "base_prompted"), key=lambda name: found[name]["right"])
        assert found[report["base"]]["right"] == found[best]["right"]
        stage.run(load(home, arms), folder)  # one prompt for all: nothing new to ask
        names = [arm["name"] for arm in json.loads(folder.report_json.read_text())["arms"]]
        assert names == ["teacher", "base_forced", "student"]


def test_a_judge_reads_the_arms_of_a_run_and_its_verdicts_are_kept(project, tmp_path):
    home = copy_of(project, tmp_path)
    rows = [{"id": str(n), "text": f"question {n}", "answer": "FACT"} for n in range(6)]
    (home / "open.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "kind": "open_answer", "path": "open.jsonl", "mode": "pairwise", "choices": [], "cluster_field": "id",
        "lang_field": "id", "judge": {"kind": "tests.unit.evals.obedient"},
    }  # fmt: skip
    with open_run(home / "run") as folder:
        stage.run(load(home, f"eval.tasks={json.dumps([task])}", "eval.arms=[teacher, student]"), folder)
        report = json.loads(folder.report_json.read_text())
    facts = report["judges"][0]
    assert facts["arms"]["teacher"] == {"reference": True}
    counts = facts["arms"]["student"]["verdicts"]
    points = [counts.get("won", 0) + counts.get("tied", 0) / 2]
    assert sum(counts.values()) == 6
    assert [6 * arm["accuracy"]["value"] for arm in report["arms"]] == pytest.approx([3.0, *points])
    kept = samples.read(home / "run" / "eval" / "student.parquet")
    assert [sum(s.correct for s in kept)] == points


def test_a_cascade_leaves_a_file_for_its_router_and_an_old_one_does_not_stay(project, tmp_path, capsys):
    home = copy_of(project, tmp_path)
    arms = "eval.arms=[teacher, student]"
    with open_run(home / "run") as folder:
        written = stage.run(load(home, arms, "eval.margin=0.9"), folder)
        assert "24 items in 12 clusters can show a difference of about" in capsys.readouterr().err
        assert folder.cascade_json in written
        facts = json.loads(folder.cascade_json.read_text())
        report = json.loads(folder.report_json.read_text())
        best = report["cascade"]["best"]
        assert (facts["schema"], facts["threshold"], facts["margin"]) == (1, best["threshold"], 0.9)
        assert facts["escalated"] == best["escalated"]
        assert facts["accuracy"]["low"] == best["accuracy_low"]
        assert facts["confidence"]["kind"] == "logprob"
        assert facts["prompts"] == {"student": [], "teacher": []}  # both are asked alike
        assert facts["max_new_tokens"] == 4
        assert facts["measured_on"]["languages"] == ["en", "fr"]
        assert facts["eur_per_1000_requests"] is None  # a fake has no price
        stage.run(load(home, arms, "eval.margin=0.0001"), folder)
        assert not folder.cascade_json.exists()


def test_votes_are_drawn_once_and_are_in_no_measure_of_the_arm(project, tmp_path, monkeypatch):
    home = copy_of(project, tmp_path)
    settings = ("eval.arms=[teacher, student]", "eval.margin=0.9", "eval.self_consistency=3")
    with open_run(home / "run") as folder:
        written = stage.run(load(home, *settings), folder)
        report = json.loads(folder.report_json.read_text())
        voted = samples.read(folder.eval / "student.votes.parquet")
        assert folder.eval / "student.votes.parquet" in written
        assert len(voted) == 24
        assert {s.confidence for s in voted} <= {0.0, 1 / 3, 2 / 3, 1.0}
        assert all(s.completion_tokens == 12 for s in voted)  # three answers of four tokens
        assert report["cascade"]["confidence"] == "self_consistency"
        assert report["arms"][1]["speed"]["answers"] == 24
        facts = json.loads(folder.cascade_json.read_text())["confidence"]
        assert (facts["answers"], facts["temperature"], facts["labels"]) == (3, 0.7, LABELS)
        before = folder.report_json.read_bytes()
        from distill.providers import transformers

        async def refuse(self, requests):
            raise AssertionError("asked again")

        monkeypatch.setattr(transformers.TransformersProvider, "ask", refuse)
        stage.run(load(home, *settings), folder)
        assert folder.report_json.read_bytes() == before


def test_openings_are_told_apart_and_other_texts_are_not_served():
    from dataclasses import dataclass

    from distill.records import Message, Request
    from evals.cascade_file import openings

    @dataclass
    class Asked:
        request: Request

    def asked(system, *texts):
        return [Asked(Request((Message("system", system), Message("user", text)))) for text in texts]

    assert openings(asked("a", "1", "2"), asked("a", "1", "2")) == {"student": [], "teacher": []}
    assert openings(asked("a", "1", "2"), asked("b", "1", "2")) == {
        "student": [{"role": "system", "content": "a"}],
        "teacher": [{"role": "system", "content": "b"}],
    }
    assert openings(asked("a", "1", "2"), asked("b", "1", "x")) is None
    assert openings([*asked("a", "1"), *asked("c", "2")], asked("b", "1", "2")) is None
