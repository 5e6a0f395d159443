"""Two processes (gloo) give the loss curve of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_two_processes_have_the_loss_curve_of_one(tiny_student, tmp_path):
    settings = {"max_steps": 5, "batch_size": 5, "micro_batch_size": 1}  # shares of 3 and 2, then of 2 and 2
    alone, together = new_folder(tmp_path / "alone"), new_folder(tmp_path / "together")
    run.run(make_config(tiny_student, **settings), alone)
    script = tmp_path / "two.py"
    script.write_text(SCRIPT.replace("**SETTINGS", f"**{settings!r}"))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0", "--standalone"]
    answer = subprocess.run(
        [*launcher, str(script), str(tiny_student), str(together.path)],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
    for one, two in zip(metrics(alone), metrics(together), strict=True):
        assert one.keys() == two.keys()
        for name, value in one.items():
            assert two[name] == pytest.approx(value, rel=1e-5, abs=1e-7), name
    facts = [json.loads((f.student / "student.json").read_text()) for f in (alone, together)]
    assert facts[0]["tokens"] == facts[1]["tokens"]
