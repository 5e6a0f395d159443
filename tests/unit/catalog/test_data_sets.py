"""What prompts bring along, where confidential ones may go, and that a waiver and its obligations stay on record."""

from __future__ import annotations

import json

import pytest

from distill import config, gates
from distill.errors import ConfigError, Refused

WAIVER = {"name": "Ada Martin", "date": "2026-11-23", "reason": "counsel read the licence of this revision"}
MISTRAL = {"kind": "openai", "provider": "mistral", "model": "mistral-large-4"}
LOCAL = {"kind": "transformers", "model": "qwen2.5-coder-1.5b-instruct"}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def run(tmp_path, *, name="demo", teacher=None, prompts="x.jsonl", alternatives=(), tasks=(), **policy):
    values = {
        "name": name,
        "prompts": {"path": prompts},
        "teacher": teacher or {"kind": "fake"},
        "student": {"model": "smollm2-135m-instruct"},
        "eval": {"alternatives": list(alternatives), "tasks": list(tasks)},
        "policy": policy,
    }
    made = config.validate(config.RunConfig, values, "test")
    made._folder = tmp_path
    return made


def of_prompts(settings):
    return [v for v in gates.verdicts(settings) if v.role == "prompts"]


# -- data sets ----------------------------------------------------------------------------------------------------


def test_the_llama_name_is_carried_through_a_data_set_made_with_llama(tmp_path):
    settings = run(tmp_path, made_with=["nvidia/OpenMathInstruct-2"])
    (found,) = of_prompts(settings)
    assert {"NAME_PREFIX_LLAMA", "BUILT_WITH_LLAMA", "LLAMA_AUP"} <= set(found.obligations)
    with pytest.raises(Refused, match=r"prompts nvidia/OpenMathInstruct-2 asks that its name starts with 'Llama'"):
        gates.check(settings)
    gates.check(run(tmp_path, made_with=["nvidia/OpenMathInstruct-2"], name="Llama-demo"))


def test_a_data_set_nobody_knows_fails_closed_and_a_waiver_for_it_is_recorded(tmp_path):
    with pytest.raises(Refused) as error:
        gates.check(run(tmp_path, made_with=["nobody/set"]))
    assert error.value.exit_code == 5
    assert "policy.waivers" in str(error.value)
    (found,) = of_prompts(run(tmp_path, made_with=["nobody/set"], waivers=[{"model": "nobody/set", **WAIVER}]))
    assert found.passes
    assert found.waiver.startswith("Ada Martin on 2026-11-23")


def card(tmp_path, *teachers):
    """A data set of an earlier run whose teachers were these, as that run's gates saw them."""
    folder = tmp_path / "earlier" / "data"
    folder.mkdir(parents=True)
    findings = []
    for model in teachers:
        own = {"kind": "openai", "model": model, "base_url": "http://localhost:1/v1"}
        settings = run(tmp_path, teacher=own, name="Llama-x", waivers=[{"model": model, **WAIVER}])
        findings += gates.as_json(gates.verdicts(settings))
    (folder / "card.json").write_text(json.dumps({"permission": findings}))
    (folder / "train.jsonl").write_text("{}\n")
    return "earlier/data/train.jsonl"


def test_a_data_set_takes_its_strictest_row(tmp_path):
    path = card(tmp_path, "openai/gpt-oss-120b", "mistralai/Mistral-Medium-3.5-128B", "google/gemma-3-27b-it")
    (found,) = of_prompts(run(tmp_path, prompts=path))
    assert found.verdict == "restricted"
    assert set(found.rows) == {"apache-2.0", "mistral-modified-mit", "gemma-terms"}
    assert {"REVENUE_CAP_20M_MONTH", "GEMMA_FLOWDOWN", "NOTICE"} <= set(found.obligations)
    with pytest.raises(Refused, match="mistral-modified-mit"):
        gates.check(run(tmp_path, prompts=path))
    gates.check(run(tmp_path, prompts=path, waivers=[{"model": path, **WAIVER}]))


def test_the_llama_name_is_carried_through_a_data_set_of_an_earlier_run(tmp_path):
    path = card(tmp_path, "meta-llama/Llama-3.3-70B-Instruct")
    with pytest.raises(Refused, match="starts with 'Llama'"):
        gates.check(run(tmp_path, prompts=path))
    gates.check(run(tmp_path, prompts=path, name="Llama-demo"))


def test_a_teacher_that_was_unknown_then_is_unknown_now_whoever_waived_it(tmp_path):
    (found,) = of_prompts(run(tmp_path, prompts=card(tmp_path, "nobody/knows-this")))
    assert (found.verdict, found.passes) == ("unknown", False)


def test_a_row_that_has_left_the_catalogue_is_unknown(tmp_path):
    path = card(tmp_path, "openai/gpt-oss-120b")
    text = (tmp_path / "earlier" / "data" / "card.json").read_text()
    (tmp_path / "earlier" / "data" / "card.json").write_text(text.replace("apache-2.0", "apache-9"))
    (found,) = of_prompts(run(tmp_path, prompts=path))
    assert found.verdict == "unknown"
    assert "'apache-9' is no longer in the catalogue" in found.why


@pytest.mark.parametrize("text", ["{broken", "[]", '{"permission": 3}', '{"permission": [{}]}', "{}"])
def test_a_file_beside_something_else_called_a_card_is_any_file(tmp_path, text):
    (tmp_path / "card.json").write_text(text)
    assert of_prompts(run(tmp_path)) == []


def test_a_data_set_made_by_nobody_asks_nothing(tmp_path):
    """Negative control: an earlier run with the fake teacher binds nobody."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "card.json").write_text(json.dumps({"permission": gates.as_json(gates.verdicts(run(tmp_path)))}))
    assert of_prompts(run(tmp_path, prompts="data/x.jsonl")) == []


# -- confidential prompts -----------------------------------------------------------------------------------------


def test_confidential_prompts_never_leave_whatever_the_regions_say(tmp_path):
    gates.check(run(tmp_path, teacher=MISTRAL))
    for regions in (["EU"], ["*"]):
        with pytest.raises(Refused, match=r"confidential and policy\.hosts does not name api\.mistral\.ai"):
            gates.check(run(tmp_path, teacher=MISTRAL, confidential=True, regions=regions))
    gates.check(run(tmp_path, teacher=LOCAL, confidential=True))
    own = {"kind": "openai", "model": "openai/gpt-oss-120b", "base_url": "http://10.0.0.7:8000/v1"}
    gates.check(run(tmp_path, teacher=own, confidential=True))


def test_a_named_host_may_see_them_within_the_regions(tmp_path):
    gates.check(run(tmp_path, teacher=MISTRAL, confidential=True, hosts=["api.mistral.ai"]))
    with pytest.raises(Refused, match=r"policy\.regions"):
        gates.check(run(tmp_path, teacher=MISTRAL, confidential=True, hosts=["api.mistral.ai"], regions=["CH"]))
    with pytest.raises(Refused, match="confidential"):
        gates.check(run(tmp_path, teacher=MISTRAL, confidential=True, hosts=["mistral.ai"]))


def test_hosts_without_confidential_prompts_are_a_mistake(tmp_path):
    with pytest.raises(ConfigError, match="confidential"):
        run(tmp_path, hosts=["api.mistral.ai"])


def test_an_alternative_that_would_read_the_questions_is_held_to_the_regions_and_not_to_the_licences(tmp_path):
    anthropic = {"kind": "openai", "provider": "anthropic", "model": "claude-haiku-5-5"}
    with pytest.raises(Refused, match=r"alternative 1 .*US; policy\.regions"):
        gates.check(run(tmp_path, alternatives=[anthropic]))
    gates.check(run(tmp_path, alternatives=[anthropic], regions=["*"]))  # it teaches nothing
    with pytest.raises(Refused, match="confidential"):
        gates.check(run(tmp_path, alternatives=[MISTRAL], confidential=True))


def test_a_rollout_engine_that_would_read_the_prompts_is_held_to_the_regions(tmp_path):
    settings = run(tmp_path, confidential=True)
    gates.check(settings)
    for url, fine in (("http://127.0.0.1:8001/v1", True), ("https://api.mistral.ai/v1", False)):
        engine = {"kind": "openai", "base_url": url, "model": "m"}
        teacher = {"kind": "transformers", "model": "smollm2-135m-instruct"}
        train = {"method": "on_policy", "rollout_engine": engine}
        values = settings.resolved() | {"teacher": teacher, "train": train}
        made = config.validate(config.RunConfig, values, "test")
        made._folder = tmp_path
        held = [v for v in gates.verdicts(made) if v.role == "rollout engine"]
        assert [v.verdict for v in held] == ["allowed" if fine else "prohibited"]


def test_the_evaluation_itself_asks_again_where_its_questions_go(tmp_path):
    from distill.artifacts import RunFolder
    from evals.run import run as evaluate

    anthropic = {"kind": "openai", "provider": "anthropic", "model": "claude-haiku-5-5"}
    task = {"kind": "classification", "path": "test.jsonl", "gold_field": "label"}
    settings = run(tmp_path, alternatives=[anthropic], tasks=[task])
    with pytest.raises(Refused, match=r"alternative 1 .*policy\.regions"):
        evaluate(settings, RunFolder(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_judge_of_the_evaluation_is_held_to_the_regions(tmp_path):
    judge = {"kind": "openai", "provider": "anthropic", "model": "claude-haiku-5-5"}
    task = {"kind": "open_answer", "path": "test.jsonl", "judge": judge}
    with pytest.raises(Refused, match=r"task open_answer .*policy\.regions"):
        gates.check(run(tmp_path, tasks=[task]))
