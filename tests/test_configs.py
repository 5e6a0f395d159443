"""Every configuration we ship is valid, allowed, and can be planned; the README names each of them."""

from __future__ import annotations

import datetime
import socket
from pathlib import Path

import pytest

from distill import catalog, cli, config, gates, strict_yaml
from distill.config import Provider, Section

CONFIGS = Path(__file__).parent.parent / "configs"
RUNS = sorted(path for path in CONFIGS.glob("*.yaml"))
SYSTEMS = sorted(path for path in (CONFIGS / "benchmark").glob("*.yaml") if path.name != "suite.yaml")


class System(Section):
    """A file of `configs/benchmark`: the settings of one provider."""

    system: Provider


@pytest.fixture(autouse=True)
def _no_network_and_one_day(tmp_path, monkeypatch):
    def blocked(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", blocked)
    monkeypatch.setattr(catalog, "today", lambda: datetime.date(2026, 11, 23))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("ALAMBIC_CACHE", str(tmp_path / "cache"))


def test_there_is_something_to_test():
    assert len(RUNS) >= 3
    assert len(SYSTEMS) >= 2


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_each_run_is_valid_allowed_and_named_like_its_file(path):
    settings = config.load(path)
    assert settings.name == path.stem
    gates.check(settings)


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_each_run_can_be_planned(path, capsys):
    assert cli.main(["plan", str(path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "no price of this model" not in said
    assert "student's size is not known" not in said


@pytest.mark.parametrize("path", SYSTEMS, ids=lambda path: path.stem)
def test_each_system_of_the_benchmark_is_a_valid_provider(path):
    config.validate(System, {"system": strict_yaml.read_yaml(path)}, str(path))


def test_the_suite_of_the_benchmark_is_valid():
    suite = pytest.importorskip("evals.suite")
    assert suite.load(CONFIGS / "benchmark" / "suite.yaml").tasks


@pytest.mark.parametrize("path", [*RUNS, *SYSTEMS], ids=lambda path: path.stem)
def test_each_file_begins_with_what_it_is_for(path):
    assert path.read_text("utf-8").startswith("# ")


def test_the_readme_names_each_configuration():
    text = (CONFIGS / "README.md").read_text("utf-8")
    assert [path.name for path in RUNS if f"`{path.name}`" not in text] == []
