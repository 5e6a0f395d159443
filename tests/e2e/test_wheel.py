"""The wheel in an empty environment, from an empty folder: the commands that need no torch."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.xdist_group("wheel"), pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT],
        check=True,
        capture_output=True,
    )
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder of a fresh environment's programs, with the wheel and nothing of the extras in it."""
    folder = tmp_path_factory.mktemp("env")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel]
    subprocess.run(pip, check=True, capture_output=True)
    return folder / "bin"


def run(installed, cwd, *argv):
    return subprocess.run([installed / "distill", *argv], cwd=cwd, capture_output=True, text=True)


def test_only_our_two_packages_are_top_level(wheel):
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"distill", "evals"}


def test_data_files_travel_and_tests_do_not(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.startswith("distill/catalog/") and name.endswith(".yaml") for name in names)
    assert any(name.startswith("evals/report/") and name.endswith(".html.j2") for name in names)
    assert not [name for name in names if "tests/" in name or name.startswith("configs")]


def test_help_init_and_plan_work_without_torch(installed, tmp_path):
    assert "torch" not in subprocess.run([installed / "pip", "list"], capture_output=True, text=True, check=True).stdout
    assert run(installed, tmp_path, "--help").returncode == 0
    done = run(installed, tmp_path, "init", "mine.yaml", "--teacher", "api")
    assert done.returncode == 0, done.stderr
    (tmp_path / "prompts.jsonl").write_text('{"id": "1", "lang": "en", "text": "Where is my parcel?"}\n')
    done = run(installed, tmp_path, "plan", "mine.yaml", "prompts.path=prompts.jsonl")
    assert done.returncode == 0, done.stderr
    assert "EUR" in done.stdout


def test_compare_works_on_two_sample_files(installed, tmp_path):
    for name, right in (("teacher", 70), ("student", 60)):
        lines = [
            json.dumps({"id": str(i), "cluster": str(i // 2), "gold": "yes", "text": "yes" if i < right else "no"})
            for i in range(80)
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    done = run(installed, tmp_path, "compare", "teacher.jsonl", "student.jsonl", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert "87.5" in done.stdout
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_missing_extra_says_the_exact_command(installed, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"id": "1", "prompt": "x"}\n')
    model = "path:m"
    (tmp_path / "c.yaml").write_text(
        f"name: x\nprompts: {{path: rows.jsonl}}\n"
        f"teacher: {{kind: transformers, model: {model!r}}}\nstudent: {{model: {model!r}}}\n"
    )
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    done = run(installed, tmp_path, "generate", "c.yaml")
    assert done.returncode == 3, done.stderr
    assert "pip install 'alambic[train]'" in done.stderr
