"""What every verifier promises, whoever wrote it."""

from __future__ import annotations

import copy

import pytest

from distill import plugins
from distill.artifacts import open_run
from distill.config import RunConfig
from distill.generate.desk import Desk
from distill.generate.sieve import VERIFIERS, sift
from distill.generate.verifiers._base import VerifierConfig
from tests.unit.generate.rows import row

NAMES = plugins.available(VERIFIERS)
NEEDED = {
    "judge": {"judge": {"kind": "fake", "replies": ["no idea", '{"score": 9}', '{"score": 2}']}},
    "regex": {"pattern": ".*"},
    "unit_tests": {"allow_code_execution": True},
}
ALONE = [name for name in NAMES if hasattr(plugins.load(VERIFIERS, name), "check")]  # the others ask a model
ANSWERS = ["", "mail", "42", '{"a": 1}', "\ud800", "9" * 5000, "[" * 5000, "x" * 100_000]
METAS = [{}, {"expected": "mail"}, {"expected": 42}, {"expected": None}, {"expected": [1, "a"]}, {"choices": ["mail"]}]


@pytest.fixture(params=NAMES)
def verifier_and_config(request):
    """A verifier with its defaults and what it cannot do without."""
    module = plugins.load(VERIFIERS, request.param)
    return module, module.Config.model_validate({"kind": request.param, **NEEDED.get(request.param, {})})


@pytest.fixture
def desk(tmp_path):
    """Where a verifier asks its model."""
    settings = {"name": "r", "prompts": {"path": "p"}, "teacher": {"kind": "fake"}, "student": {"model": "path:s"}}
    with open_run(tmp_path / "run") as folder, Desk(RunConfig.model_validate(settings), folder) as desk:
        yield desk


def test_config_is_strict_and_documented(verifier_and_config):
    module, config = verifier_and_config
    assert issubclass(module.Config, VerifierConfig)
    assert module.__doc__
    assert all(field.description for name, field in module.Config.model_fields.items() if name != "kind")
    with pytest.raises(ValueError, match="nonsense"):
        module.Config.model_validate({**config.model_dump(), "nonsense": 1})


@pytest.mark.parametrize("answer", ANSWERS, ids=range(len(ANSWERS)))
@pytest.mark.parametrize("meta", METAS, ids=range(len(METAS)))
@pytest.mark.parametrize("verifier_and_config", ALONE, indirect=True)
def test_every_answer_gets_a_verdict_and_never_an_exception(verifier_and_config, answer, meta):
    module, config = verifier_and_config
    item = row(answer, meta=meta)
    before = copy.deepcopy(item)
    reason = module.check(item, config)
    assert item == before
    assert isinstance(reason, str)
    assert reason == reason.strip()
    assert reason == module.check(copy.deepcopy(item), config)


def test_in_the_sieve_the_verifier_is_named_and_every_row_has_one_verdict(verifier_and_config, desk):
    _, config = verifier_and_config
    rows = [row(a, number=n, meta=meta) for n, (a, meta) in enumerate((a, m) for a in ANSWERS for m in METAS)]
    found = sift(rows, [], [config], lambda path: path, desk)
    assert len(found) == len(rows)
    assert all(reason == "" or reason.startswith(f"{config.kind}/") for reason in found)
    again = sift(copy.deepcopy(rows), [], [config], lambda path: path, desk)
    assert found == again
    assert any(item.get("score") is not None for item in rows) == config.SCORES
