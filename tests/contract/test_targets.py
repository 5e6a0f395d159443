"""Every target file keeps the contract of `distill/release/targets/_base.py`; a new file is covered with no edit."""

import inspect
import json

import pytest

from distill import plugins
from distill.release.run import TARGETS
from distill.release.targets._base import TargetConfig
from tests.unit.release.made import base_folder, build, run_folder

NAMES = plugins.available(TARGETS)
# Judged by llama.cpp itself in tests/unit/release/test_llamacpp.py, where it is installed.
WITHOUT_LLAMACPP = {"gguf": {"judged_by": "transformers"}}


def needed(name):
    """The target and, before it, the targets it needs."""
    return [*(kind for need in plugins.load(TARGETS, name).NEEDS for kind in needed(need)), name]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The base model's folder."""
    return base_folder(tmp_path_factory.mktemp("base") / "tiny-base")


@pytest.mark.parametrize("name", NAMES)
def test_a_target_has_a_configuration_one_verb_and_says_what_it_is(name):
    module = plugins.load(TARGETS, name)
    assert issubclass(module.Config, TargetConfig)
    assert module.Config(kind=name).kind == name
    assert all(field.description for field in module.Config.model_fields.values())
    assert list(inspect.signature(module.export).parameters) == ["job", "config"]
    assert module.__doc__.splitlines()[0].endswith(".")
    assert isinstance(module.NEEDS, tuple)
    assert set(module.NEEDS) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_target_writes_its_files_and_a_form_of_weights_is_checked_against_the_student(name, base, tmp_path):
    targets = [{"kind": kind, **WITHOUT_LLAMACPP.get(kind, {})} for kind in needed(name)]
    bundle = build(*run_folder(tmp_path / "runs" / "sorter", base, targets=targets))
    label = plugins.load(TARGETS, name).Config(kind=name).label
    facts = json.loads((bundle / "release.json").read_text())["targets"][label]
    files = [f for f in (bundle / facts["folder"]).rglob("*") if f.is_file()]
    assert files
    if facts.get("check"):
        assert facts["check"]["worst"] <= facts["check"]["tolerance"]
        assert facts["bytes"] == sum(f.stat().st_size for f in files)
