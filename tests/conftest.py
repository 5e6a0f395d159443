"""Fixtures everyone needs. Threads are held down: two cores, two workers."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

from tests.tiny import tiny_model


@pytest.fixture(scope="session")
def tiny_student(tmp_path_factory):
    """A tiny model folder (seed 0)."""
    return tiny_model(tmp_path_factory.mktemp("tiny") / "student", seed=0)


@pytest.fixture(scope="session")
def tiny_teacher(tmp_path_factory):
    """A wider tiny model folder with the same tokenizer (seed 1)."""
    return tiny_model(tmp_path_factory.mktemp("tiny") / "teacher", seed=1, hidden=96)
