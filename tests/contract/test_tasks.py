"""Every task file keeps the contract of `evals/tasks/_base.py`; a new file is covered with no edit here."""

import json

import pytest

from distill import plugins
from distill.config import Prompts
from distill.errors import DataError
from distill.records import Request
from evals.tasks._base import completed

TASKS = plugins.available("evals.tasks")


def made(name, tmp_path, rows=None, **settings):
    """(module, completed configuration, path of a data file with the task's own example row)."""
    module = plugins.load("evals.tasks", name)
    path = tmp_path / "items.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows or [module.EXAMPLE]))
    config = module.Config(path=str(path), **getattr(module, "EXAMPLE_SETTINGS", {}), **settings)
    choices = (str(module.EXAMPLE["label"]), "other") if name == "classification" else ()
    return module, completed(config, Prompts(path="x", template="{{ prompt }}", choices=choices), 64), path


@pytest.mark.parametrize("name", TASKS)
def test_the_gold_answer_scores_1_and_nothing_scores_0(name, tmp_path):
    module, config, path = made(name, tmp_path)
    item = module.examples(config, path)[0]
    assert module.score(item, module.gold_text(item), config) == 1.0
    for text in ("", "  \n", "...", "\x00"):
        assert module.score(item, text, config) == 0.0


@pytest.mark.parametrize("name", TASKS)
def test_a_hostile_answer_is_a_number_between_0_and_1_and_never_an_exception(name, tmp_path):
    module, config, path = made(name, tmp_path)
    item = module.examples(config, path)[0]
    hostile = ["x" * 100_000, "{" * 5000, "\ud800", "NaN", "Infinity", "1e999", "null", "[]", "\u202e" * 50, "-" * 999]
    for text in hostile:
        value = module.score(item, text, config)
        assert 0.0 <= value <= 1.0
        assert value == module.score(item, text, config)
        assert isinstance(module.normal(text, config), str)


@pytest.mark.parametrize("name", TASKS)
def test_the_prompt_is_a_greedy_request_that_holds_the_row_and_not_the_gold_field(name, tmp_path):
    module, config, path = made(name, tmp_path)
    request = module.prompt(module.examples(config, path)[0], config)
    assert isinstance(request, Request)
    assert request.sampling.temperature == 0.0
    assert request.sampling.max_new_tokens == 64
    assert "prompt" not in module.EXAMPLE or str(module.EXAMPLE["prompt"]) in request.messages[-1].content


@pytest.mark.parametrize("name", TASKS)
def test_a_row_without_gold_or_with_a_used_id_is_one_line(name, tmp_path):
    module, config, path = made(name, tmp_path)
    gold = {k: v for k, v in module.EXAMPLE.items() if k != config.gold_field}
    path.write_text(json.dumps(gold) + "\n")
    with pytest.raises(DataError, match=config.gold_field):
        module.examples(config, path)
    path.write_text(2 * (json.dumps(module.EXAMPLE) + "\n"))
    with pytest.raises(DataError, match="already used by row 1"):
        module.examples(config, path)
