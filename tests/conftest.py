"""Fixtures everyone needs. Threads are held down: two cores, two workers."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import tempfile

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


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Only tests on real weights use the user's own cache; what the others fetch or hash goes to a throw-away one."""
    if item.get_closest_marker("real"):
        os.environ.pop("ALAMBIC_CACHE", None) if USERS_CACHE is None else os.environ.update(ALAMBIC_CACHE=USERS_CACHE)
    else:
        os.environ["ALAMBIC_CACHE"] = THROW_AWAY.name


USERS_CACHE = os.environ.get("ALAMBIC_CACHE")
THROW_AWAY = tempfile.TemporaryDirectory(prefix="alambic-test-cache-")
