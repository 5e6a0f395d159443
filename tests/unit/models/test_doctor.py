"""What doctor says, with and without the optional packages."""

from __future__ import annotations

import argparse
import importlib.util
import json

import pytest

from distill import cli
from distill.commands import doctor


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine with none of the optional packages."""
    missing = {package for packages in doctor.EXTRAS.values() for package in packages}
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in missing else real(name, *a))
    monkeypatch.setenv("ALAMBIC_CACHE", str(tmp_path / "not" / "there"))


def test_a_bare_machine_is_told_what_to_install(bare, capsys):
    found = doctor.examine()
    assert found["works"]["providers"]["fake"] is None
    assert found["works"]["providers"]["transformers"] == "pip install 'alambic[train]'"
    assert found["works"]["training"] == "pip install 'alambic[train]'"
    assert any("alambic[api]" in line for line in found["advice"])
    assert found["machine"]["gpus"] == []
    assert not found["cache"]["models"]
    assert doctor.main(argparse.Namespace(json=False, probe=False, config=None)) == 0
    assert "pip install 'alambic[train]'" in capsys.readouterr().out


def test_this_machine_can_train_and_json_says_the_same(capsys):
    assert cli.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["works"]["training"] is None
    assert found["works"]["providers"]["transformers"] is None
    assert found["extras"]["train"]["torch"]
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["memory_gb"] > 0


def test_a_cache_that_cannot_be_written_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("ALAMBIC_CACHE", "/proc/no")
    assert any("ALAMBIC_CACHE" in line for line in doctor.examine()["advice"])


def test_every_extra_is_one_of_the_package():
    import importlib.metadata

    assert set(doctor.EXTRAS) <= set(importlib.metadata.metadata("alambic").get_all("Provides-Extra"))
