"""Where the tests of this folder run: a CUDA device. ALAMBIC_GPU_TESTS=cpu runs what it can without one."""

from __future__ import annotations

import os

import pytest
import torch

from tests.unit.train.conftest import run_folder, taught_teacher  # noqa: F401 - fixtures


@pytest.fixture
def device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    if os.environ.get("ALAMBIC_GPU_TESTS") == "cpu":
        return "cpu"
    pytest.skip("no CUDA device")


@pytest.fixture
def cuda(device) -> str:
    if device != "cuda":
        pytest.skip("no CUDA device")
    return device
