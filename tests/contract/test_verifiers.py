"""What every verifier promises, whoever wrote it."""

from __future__ import annotations

import copy

import pytest
from pydantic import ValidationError

from distill import plugins
from distill.generate.sieve import VERIFIERS, sift
from distill.generate.verifiers._base import VerifierConfig
from tests.unit.generate.rows import row

NAMES = plugins.available(VERIFIERS)
ANSWERS = ["", "mail", "42", '{"a": 1}', "\ud800", "9" * 5000, "[" * 5000, "x" * 100_000]
METAS = [{}, {"expected": "mail"}, {"expected": 42}, {"expected": None}, {"expected": [1, "a"]}, {"choices": ["mail"]}]


@pytest.fixture(params=NAMES)
def verifier_and_config(request):
    """A verifier with its defaults; a pattern is given where one is needed."""
    module = plugins.load(VERIFIERS, request.param)
    try:
        config = module.Config.model_validate({"kind": request.param})
    except ValidationError as error:
        needed = {str(item["loc"][0]): ".*" for item in error.errors() if item["type"] == "missing"}
        config = module.Config.model_validate({"kind": request.param, **needed})
    return module, config


def test_config_is_strict_and_documented(verifier_and_config):
    module, config = verifier_and_config
    assert issubclass(module.Config, VerifierConfig)
    assert module.__doc__
    assert all(field.description for name, field in module.Config.model_fields.items() if name != "kind")
    with pytest.raises(ValueError, match="nonsense"):
        module.Config.model_validate({**config.model_dump(), "nonsense": 1})


@pytest.mark.parametrize("answer", ANSWERS, ids=range(len(ANSWERS)))
@pytest.mark.parametrize("meta", METAS, ids=range(len(METAS)))
def test_every_answer_gets_a_verdict_and_never_an_exception(verifier_and_config, answer, meta):
    module, config = verifier_and_config
    item = row(answer, meta=meta)
    before = copy.deepcopy(item)
    reason = module.check(item, config)
    assert item == before
    assert isinstance(reason, str)
    assert reason == reason.strip()
    assert reason == module.check(copy.deepcopy(item), config)


def test_in_the_sieve_the_verifier_is_named(verifier_and_config):
    _, config = verifier_and_config
    found = sift([row(answer, number=n) for n, answer in enumerate(ANSWERS)], [], [config], lambda path: path)
    assert all(reason == "" or reason.startswith(f"{config.kind}/") for reason in found)
