"""The import rules hold, and the checks that keep them fail when a rule is broken."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")
RUFF = Path(sys.executable).with_name("ruff")


@pytest.fixture
def tree(tmp_path):
    for name in ("distill", "evals"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def layers(tree: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LINT_IMPORTS, "--no-cache"], cwd=tree, capture_output=True, text=True, env={"PYTHONPATH": str(tree)}
    )


def test_the_layers_hold(tree):
    done = layers(tree)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("distill/train/bad.py", "import distill.generate.run"),
        ("distill/query/bad.py", "import distill.generate.run"),
        ("distill/costs.py", "import distill.config"),
        ("distill/errors.py", "import distill.records"),
        ("distill/generate/bad.py", "import evals.stats"),
        ("evals/bad.py", "import distill.train.run"),
    ],
)
def test_a_broken_layer_is_found(tree, file, line):
    path = tree / file
    path.write_text((path.read_text() if path.exists() else "") + f"\n{line}\n")
    assert layers(tree).returncode != 0


@pytest.mark.parametrize("heavy", ["torch", "transformers", "openai", "numpy", "pyarrow", "vllm"])
def test_a_heavy_import_on_top_is_found(tree, heavy):
    (tree / "distill" / "heavy.py").write_text(f'"""x."""\n\nimport {heavy}\n\nprint({heavy})\n')
    done = subprocess.run(
        [RUFF, "check", "--select", "TID253", "distill", "evals"], cwd=tree, capture_output=True, text=True
    )
    assert done.returncode != 0
    (tree / "distill" / "heavy.py").unlink()
    done = subprocess.run(
        [RUFF, "check", "--select", "TID253", "distill", "evals"], cwd=tree, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
