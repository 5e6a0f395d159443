"""What every filter promises, whoever wrote it."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill import plugins
from distill.generate.filters._base import FilterConfig
from distill.generate.sieve import FILTERS, SELECT, count, select, sift
from tests.unit.generate.rows import row

NAMES = plugins.available(FILTERS)
ANSWERS = [
    "",
    " ",
    "mail",
    "I'm sorry, but I can't assist with that.",
    "x " * 200,
    "a\u200bb",
    "ana@firma.pl",
    "Δ" * 50,
]


@pytest.fixture(params=NAMES)
def filter_and_config(request, tmp_path):
    """A filter with its defaults; files it needs are made."""
    module = plugins.load(FILTERS, request.param)
    (tmp_path / "items.jsonl").write_text(json.dumps({"text": "seven words that stand in a row"}) + "\n", "utf-8")
    needed = {name: ["items.jsonl"] for name in module.Config.PATHS}
    config = module.Config.model_validate({"kind": request.param, **needed})
    return module, config, lambda path: tmp_path / path


def rows() -> list:
    return [row(answer, prompt=f"Question {n}", number=n, lang="en") for n, answer in enumerate(ANSWERS * 2)]


def test_config_is_strict_and_documented(filter_and_config):
    module, config, _ = filter_and_config
    assert issubclass(module.Config, FilterConfig)
    assert module.__doc__
    assert module.Config.__doc__
    assert all(field.description for name, field in module.Config.model_fields.items() if name != "kind")
    with pytest.raises(ValueError, match="nonsense"):
        module.Config.model_validate({**config.model_dump(), "nonsense": 1})


def test_every_row_gets_one_verdict_of_text_the_same_each_time_and_is_not_changed(filter_and_config):
    module, config, resolve = filter_and_config
    located = config.located(resolve)
    before = rows()
    found = module.keep(before, located)
    assert before == rows()
    assert len(found) == len(before)
    assert all(isinstance(reason, str) and reason == reason.strip() and "\n" not in reason for reason in found)
    assert found == module.keep(copy.deepcopy(before), located)
    assert "" in found, "the defaults do not reject everything"
    assert module.keep([], located) == []


def test_in_the_sieve_kept_and_rejected_add_up_and_the_filter_is_named(filter_and_config):
    _, config, resolve = filter_and_config
    found = sift(rows(), [config], [], resolve)
    assert len(found) == len(rows())
    assert all(reason == "" or reason.startswith(f"{config.kind}/") for reason in found)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    chosen=st.lists(st.sampled_from(NAMES), max_size=4),
    texts=st.lists(st.sampled_from(ANSWERS) | st.text(max_size=60), min_size=1, max_size=30),
    per_prompt=st.integers(1, 4),
    how=st.sampled_from(["all", "first", "majority", "best"]),
    failed=st.sets(st.integers(0, 29)),
)
def test_whatever_the_filters_kept_and_each_rejection_add_up_to_what_was_asked(
    tmp_path, chosen, texts, per_prompt, how, failed
):
    (tmp_path / "items.jsonl").write_text(json.dumps({"text": "seven words that stand in a row"}) + "\n", "utf-8")
    configs = []
    for name in chosen:
        config = plugins.load(FILTERS, name).Config
        configs.append(config.model_validate({"kind": name, **{path: ["items.jsonl"] for path in config.PATHS}}))
    candidates = [
        row(text, prompt=f"Question {n // per_prompt}", number=n // per_prompt, sample=n % per_prompt, lang="en")
        | {"reject": "empty" if n in failed else ""}
        for n, text in enumerate(texts)
    ]
    reasons = select(candidates, sift(candidates, configs, [], lambda path: tmp_path / path), how)
    counts = count(reasons)
    kept = sum(not reason for reason in reasons)
    assert len(reasons) == len(candidates)
    assert kept + sum(counts.values()) == len(candidates)
    assert {reason.split("/")[0] for reason in counts} <= {"teacher", SELECT.strip("/"), *chosen}
    assert counts.get("teacher/empty", 0) == len({n for n in failed if n < len(texts)})
