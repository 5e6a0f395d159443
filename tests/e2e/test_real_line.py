"""The real pipeline once: the quickstart's models and data, fewer rows. Downloads about 0.6 GB the first time."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from tests.e2e.line import distill, sends

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.real, pytest.mark.xdist_group("real"), pytest.mark.timeout(1500)]

TASK = {
    "kind": "classification",
    "path": "data/debian-sections/test.jsonl",
    "cluster_field": "package",
    "lang_field": "lang",
    "gold_field": "label",
    "languages": ["en", "fr", "de", "it"],
    "limit": 32,
}
SMALLER = (
    "name=quickstart-small",
    "prompts.limit=72",
    "generate.holdout=0.12",
    f"eval.tasks={json.dumps([TASK])}",
    "eval.draws=2000",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished small run of configs/quickstart.yaml."""
    out = tmp_path_factory.mktemp("real") / "run"
    done = distill(
        "run", str(ROOT / "configs" / "quickstart.yaml"), *SMALLER, "--out", str(out), cwd=out.parent, timeout=1400
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def test_a_real_teacher_teaches_a_real_student(run):
    report = json.loads((run / "eval" / "report.json").read_text())
    arms = {arm["name"]: arm for arm in report["arms"]}
    assert {"teacher", "base", "base_forced", "student", "baseline"} <= set(arms)
    assert arms["teacher"]["accuracy"]["value"] > 0.5, "eight labels: chance is 0.125"
    assert arms["base"]["accuracy"]["value"] < 0.1, "untouched and free, it does not even name a section"
    facts = json.loads((run / "student" / "student.json").read_text())
    assert facts["holdout_loss_after"] < facts["holdout_loss_before"] / 2
    # 64 rows do not make a good student, but they teach it the form of an answer.
    assert arms["student"]["legal"] > 0.9
    assert arms["student"]["accuracy"]["value"] > 0.125


def test_the_answers_are_the_teachers_own_and_legal(run):
    import pyarrow.parquet as parquet

    config = json.loads((run / "config.json").read_text())["config"]
    rows = parquet.read_table(run / "data" / "train.parquet").to_pylist()
    assert {row["answer"] for row in rows} <= set(config["prompts"]["choices"])
    assert {row["lang"] for row in rows} == {"en", "fr", "de", "it"}
    assert {row["teacher"] for row in rows} == {"qwen2.5-coder-0.5b-instruct"}


def test_the_bundle_verifies_and_its_weights_answer(run):
    import pyarrow.parquet as parquet
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    bundle = run / "release" / "quickstart-small-0.1.0"
    assert distill("verify", str(bundle), cwd=run).returncode == 0
    weights = next(bundle.rglob("model.safetensors")).parent
    model = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(weights)
    answers = parquet.read_table(run / "eval" / "student.parquet").to_pylist()
    surest = max((row for row in answers if row["text"] in LABELS), key=lambda row: row["confidence"])
    messages = [{"role": "user", "content": surest["prompt"]}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        new = model.generate(**ids, max_new_tokens=6, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert tokenizer.decode(new, skip_special_tokens=True).strip() == surest["text"]


LABELS = {"games", "sound", "video", "mail", "graphics", "fonts", "database", "science"}


def worked() -> float:
    """CPU seconds of the commands so far: unlike the clock's, hardly more on a busy machine."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_the_same_command_again_works_under_five_seconds_and_asks_nothing(run):
    before, earlier = sends(run / "run.db"), worked()
    done = distill("run", str(ROOT / "configs" / "quickstart.yaml"), *SMALLER, "--out", str(run), cwd=run.parent)
    assert done.returncode == 0, done.stderr
    assert worked() - earlier < 5
    assert done.stderr.count("unchanged, skipped") == 4
    assert sends(run / "run.db") == before
