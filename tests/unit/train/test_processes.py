"""Two processes (gloo) give the loss curve of one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from distill.errors import ConfigError
from distill.train import run
from tests.unit.train.conftest import make_config, metrics
from tests.unit.train.test_resume import new_folder

SCRIPT = """
import sys
from pathlib import Path
from distill.artifacts import RunFolder
from distill.train import run
from tests.unit.train.conftest import make_config
run.run(make_config(sys.argv[1], **SETTINGS), RunFolder(Path(sys.argv[2])))
"""


def together(tmp_path, student, folder, settings: dict) -> str:
    """Train in two processes; what they said."""
    script = tmp_path / "two.py"
    script.write_text(SCRIPT.replace("**SETTINGS", f"**{settings!r}"))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0", "--standalone"]
    answer = subprocess.run(
        [*launcher, str(script), str(student), str(folder.path)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert answer.returncode == 0, answer.stderr[-20_000:]
    return answer.stderr


SHARES = {"max_steps": 5, "batch_size": 5, "micro_batch_size": 1}  # shares of 3 and 2, then of 2 and 2


@pytest.mark.parametrize("settings", [{}, {"shard": True, "patience": 9}], ids=["copied (DDP)", "split (FSDP2)"])
def test_two_processes_have_the_loss_curve_of_one(tiny_student, tmp_path, settings):
    alone, shared = new_folder(tmp_path / "alone"), new_folder(tmp_path / "together")
    run.run(make_config(tiny_student, **SHARES), alone)
    together(tmp_path, tiny_student, shared, SHARES | settings)
    for one, two in zip(metrics(alone), metrics(shared), strict=True):
        assert one.keys() == two.keys()
        for name, value in one.items():
            assert two[name] == pytest.approx(value, rel=1e-5, abs=1e-7), name
    facts = [json.loads((f.student / "student.json").read_text()) for f in (alone, shared)]
    assert facts[0]["tokens"] == facts[1]["tokens"]
    weights = [load_file(f.student / "adapter" / "adapter_model.safetensors") for f in (alone, shared)]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        assert torch.allclose(value, weights[1][name], atol=1e-4), name


@pytest.mark.fault
def test_a_split_student_that_was_killed_goes_on_as_one_process_or_as_two(tiny_student, tmp_path):
    """A checkpoint holds whole tensors: how many processes wrote it does not matter to who reads it."""
    whole, killed = new_folder(tmp_path / "whole"), new_folder(tmp_path / "killed")
    run.run(make_config(tiny_student, **SHARES), whole)
    together(tmp_path, tiny_student, killed, SHARES | {"shard": True, "keep_checkpoints": 9})
    for folder in killed.checkpoints.glob("step-*[45]"):
        shutil.rmtree(folder)
    (killed.checkpoints / "LATEST").write_text("step-00000003")
    said = together(tmp_path, tiny_student, killed, SHARES | {"shard": True, "keep_checkpoints": 9})
    assert "going on from step 3" in said
    losses = [[line["loss"] for line in metrics(folder) if "loss" in line] for folder in (whole, killed)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_splitting_over_one_process_is_refused(tiny_student, tmp_path):
    with pytest.raises(ConfigError, match="this is the only one"):
        run.run(make_config(tiny_student, shard=True), new_folder(tmp_path / "run"))
