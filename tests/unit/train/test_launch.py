"""The launch templates are valid shell, and every command and key they use exists."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from distill import cli, plugins
from distill.config import RunConfig
from tests.e2e.test_every_key import leaves

FOLDER = Path(__file__).parents[3] / "scripts" / "launch"
SLURM, SKY = FOLDER / "slurm.sh", FOLDER / "skypilot.yaml"


def scripts() -> dict[str, str]:
    """Every shell script in the templates."""
    task = YAML(typ="safe").load(SKY)
    return {"slurm.sh": SLURM.read_text(), "sky setup": task["setup"], "sky run": task["run"]}


@pytest.mark.parametrize("name", ["slurm.sh", "sky setup", "sky run"])
def test_the_shell_is_valid(name):
    text = scripts()[name]
    assert subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True).stderr == ""
    if shutil.which("shellcheck"):
        said = subprocess.run(["shellcheck", "--shell=bash", "-"], input=text, text=True, capture_output=True).stdout
        assert said == ""


def test_every_command_exists_and_each_stage_is_run_by_whom_may_run_it():
    for name in ("slurm.sh", "sky run"):
        found = re.findall(r"(?:-m )?\bdistill (\w+) \"", scripts()[name])
        assert found == ["generate", "train", "run"]
        assert set(found) <= set(cli.COMMANDS)
        assert re.search(r"torchrun[^|;]*-m distill train", scripts()[name])


def test_every_key_and_file_that_is_named_exists():
    known = set(leaves(RunConfig))
    for text in (SLURM.read_text(), SKY.read_text()):
        assert set(re.findall(r"\b((?:train|student|eval)\.\w+)=", text)) <= known
        base_url = re.search(r"kind: openai,[\s#]+base_url: (\S+)`", text)[1]
        plugins.load("distill.providers", "openai").Config(kind="openai", model="m", base_url=base_url)
        for path in re.findall(r"-c (\S+\.txt)", text):
            assert (FOLDER.parents[1] / path).is_file()
    assert "all" in re.findall(r"^(\w+) = \[", (FOLDER.parents[1] / "pyproject.toml").read_text(), re.MULTILINE)


def test_a_preempted_job_is_told_in_time_to_save_and_comes_back():
    text = SLURM.read_text()
    assert re.search(r"#SBATCH --signal=(B:)?TERM@\d+", text)
    assert "#SBATCH --requeue" in text
