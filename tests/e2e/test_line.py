"""The whole line on a tiny model and a fake teacher: from configuration to verified bundle, killed anywhere."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.e2e.line import answered, distill, sends, write_run

pytestmark = pytest.mark.xdist_group("line")


@pytest.fixture(scope="module")
def finished(tiny_student, tmp_path_factory):
    """A folder in which `distill run` has ended well."""
    folder = tmp_path_factory.mktemp("line")
    write_run(folder, tiny_student)
    done = distill("run", "run.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_a_run_ends_with_a_verdict_a_report_and_a_bundle(finished):
    folder, done = finished
    assert "report.html" in done.stdout
    run = folder / "runs" / "tiny"
    report = json.loads((run / "eval" / "report.json").read_text())
    assert " ".join(report["verdict"]["sentence"].split()) in " ".join(done.stdout.split())
    assert (run / "report.html").stat().st_size > 10_000
    bundle = run / "release" / "tiny-0.1.0"
    assert distill("verify", str(bundle), cwd=folder).returncode == 0
    alone = subprocess.run([sys.executable, "verify.py"], cwd=bundle, capture_output=True, text=True)
    assert alone.returncode == 0, alone.stdout + alone.stderr


def test_the_same_command_again_skips_everything(finished):
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / "runs" / "tiny" / "student").rglob("*")}
    done = distill("run", "run.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("unchanged, skipped") == 4
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "runs" / "tiny" / "student").rglob("*")}


def test_changing_a_training_setting_asks_the_teacher_nothing_again(finished):
    folder, _ = finished
    before = sends(folder / "runs" / "tiny" / "run.db")
    done = distill("run", "run.yaml", "release.version=0.2.0", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert sends(folder / "runs" / "tiny" / "run.db") == before
    assert (folder / "runs" / "tiny" / "release" / "tiny-0.2.0").is_dir()


def test_nothing_in_the_run_folder_is_readable_by_others(finished):
    folder, _ = finished
    for path in (folder / "runs").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


STAGE_LINES = ("generate: started", "train: started", "eval: started", "release: started")


@pytest.mark.parametrize("stage", STAGE_LINES)
def test_killed_in_any_stage_the_same_command_completes_and_asks_no_answer_twice(
    finished, tiny_student, tmp_path, stage
):
    write_run(tmp_path, tiny_student)
    child = subprocess.Popen(
        [sys.executable, "-m", "distill", "run", "run.yaml", "teacher.latency_s=0.05", "teacher.batch_size=2"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=dict(os.environ),
    )
    for line in child.stderr:
        if line.startswith(stage):
            break
    time.sleep(random.Random(stage).uniform(0.05, 0.6))
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stderr.close()
    run = tmp_path / "runs" / "tiny"
    committed, before = answered(run / "run.db"), sends(run / "run.db")
    done = distill("run", "run.yaml", "teacher.latency_s=0.05", "teacher.batch_size=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    after = sends(run / "run.db")
    assert all(after[key] == before[key] for key in committed)
    whole, _ = finished
    assert student_hash(run) == student_hash(whole / "runs" / "tiny"), "a killed run learns the same student"


def student_hash(run) -> str:
    from distill.artifacts import sha256_tree

    return sha256_tree(run / "student" / "adapter")


def test_two_runs_in_one_folder_the_second_is_refused_with_16(tiny_student, tmp_path):
    write_run(tmp_path, tiny_student)
    from distill.artifacts import open_run

    with open_run(tmp_path / "runs" / "tiny"):
        done = distill("run", "run.yaml", cwd=tmp_path)
    assert done.returncode == 16
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_stage_before_its_time_names_the_one_to_run_first(tiny_student, tmp_path):
    write_run(tmp_path, tiny_student)
    done = distill("train", "run.yaml", cwd=tmp_path)
    assert done.returncode == 4
    assert "distill generate run.yaml" in done.stderr


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"prompts.path": "absent.jsonl"}, 4, "absent.jsonl"),
        ({"student.model": "path:nowhere"}, 2, "nowhere"),
        ({"student.model": "no-such-model"}, 2, "no-such-model"),
        ({"prompts.template": "{{ nothing }}"}, 4, "nothing"),
        ({"prompts.cluster_field": "nothing"}, 4, "nothing"),
    ],
)
def test_bad_input_is_one_line_with_its_exit_code_and_nothing_is_half_written(
    tiny_student, tmp_path, change, code, words
):
    write_run(tmp_path, tiny_student)
    done = distill("run", "run.yaml", *(f"{key}={json.dumps(value)}" for key, value in change.items()), cwd=tmp_path)
    assert done.returncode == code, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("distill: ")
    assert words in last
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "runs").rglob(".tmp-*"))


def test_unreadable_weights_are_one_line(tiny_student, tmp_path):
    import shutil

    shutil.copytree(tiny_student, tmp_path / "student")
    weights = tmp_path / "student" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    write_run(tmp_path, tiny_student)
    done = distill("run", "run.yaml", cwd=tmp_path)
    assert done.returncode in (4, 6), done.stderr
    assert "model.safetensors" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_is_exit_74_and_the_same_command_continues(tiny_student, tmp_path):
    """A tmpfs of 3 MB inside a mount namespace of its own; skipped where that is not allowed."""
    write_run(tmp_path, tiny_student)
    (tmp_path / "runs").mkdir()
    script = f"mount -t tmpfs -o size=600k tmpfs runs && {sys.executable} -m distill run run.yaml; echo code=$?"
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    if "code=" not in done.stdout or "mount" in done.stderr:
        pytest.skip("no mount namespace here")
    assert "code=74" in done.stdout, done.stderr
    assert "Traceback" not in done.stderr
    assert distill("run", "run.yaml", cwd=tmp_path).returncode == 0
