"""What every provider promises, whatever it asks. A new file in distill/providers/ is tested by being there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill import plugins
from distill.errors import ConfigError, MissingDependency
from distill.providers._base import Capabilities, Context, ProviderConfig
from distill.query.ask import ask_all
from distill.query.store import Store
from distill.records import Completion, Message, Request, Sampling
from tests.fault.hostile import HostileTeacher

KINDS = plugins.available("distill.providers")
SECRET = "canary-key-0123456789"


@pytest.fixture(params=KINDS)
def provider(request, monkeypatch):
    """A ready provider of each kind."""
    module = plugins.load("distill.providers", request.param)
    monkeypatch.setenv("TEST_KEY", SECRET)
    with contextlib.ExitStack() as stack:
        wanted = {"model": "fake-1"}
        if request.param == "openai":
            server = stack.enter_context(HostileTeacher(key=SECRET))
            wanted = {"model": "hostile-1", "base_url": server.url, "api_key_env": "TEST_KEY"}
        elif request.param == "transformers":
            wanted = {"model": f"path:{request.getfixturevalue('tiny_teacher')}", "device": "cpu", "threads": 1}
        try:
            built = module.build(module.Config(**wanted), Context())
        except MissingDependency as missing:
            pytest.skip(str(missing))
        yield built
        built.close()


def requests_of(count):
    return [Request((Message("user", f"question {n}"),), Sampling(max_new_tokens=8)) for n in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_settings_are_documented_and_the_module_says_what_it_is(kind):
    module = plugins.load("distill.providers", kind)
    assert issubclass(module.Config, ProviderConfig)
    assert module.__doc__.strip()
    for name, field in module.Config.model_fields.items():
        assert field.description or name in ("kind", "model"), f"{kind}.{name} has no docstring"


@pytest.mark.parametrize("kind", KINDS)
def test_the_settings_are_read_without_the_heavy_packages(kind):
    heavy = ("torch", "transformers", "vllm", "aiohttp", "openai", "numpy")
    code = f"import sys, distill.providers.{kind}; print(*[m for m in {heavy} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.split() == []


def test_it_says_what_it_can_do(provider):
    assert isinstance(provider.capabilities, Capabilities)
    assert provider.batch_size >= 1
    assert provider.config.concurrency >= 1


def test_its_identity_is_json_the_same_each_time_and_holds_no_secret(provider):
    identity = provider.identity()
    assert json.loads(json.dumps(identity)) == identity == provider.identity()
    assert SECRET not in json.dumps(identity) + repr(provider) + repr(vars(provider.config))
    assert identity["kind"] in KINDS


def test_each_request_gets_its_answer_in_order_and_a_second_run_asks_nothing(provider, tmp_path):
    requests = requests_of(5)
    with Store(tmp_path / "run.db") as store:
        first = ask_all(provider, requests, store, title="test")
        again = ask_all(provider, list(reversed(requests)), store, title="test")
    assert [o.key for o in first] == [r.key(provider.identity()) for r in requests]
    assert [o.completion for o in again] == [o.completion for o in reversed(first)]
    assert all(o.cached for o in again)
    for outcome in first:
        assert outcome.completion.reject in ("", "truncated", "empty")
        assert outcome.completion.usage.prompt > 0


def test_choices_are_kept_where_it_says_so(provider, tmp_path):
    if not provider.capabilities.choices:
        pytest.skip("answers are free")
    requests = [Request(r.messages, r.sampling, choices=("red", "green", "blue")) for r in requests_of(4)]
    with Store(tmp_path / "run.db") as store:
        outcomes = ask_all(provider, requests, store, title="test")
    assert {o.completion.text for o in outcomes} <= {"red", "green", "blue"}


@settings(max_examples=200, deadline=None)
@given(raw=st.one_of(st.binary(max_size=300), st.text(max_size=200).map(lambda t: t.encode("utf-8", "surrogatepass"))))
@pytest.mark.parametrize("kind", ["fake", "openai"])
def test_no_bytes_make_the_parser_raise(kind, raw):
    built = _parser(kind)
    assert isinstance(built.parse(raw), Completion)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["choices", "message", "content", "usage", "prompt_tokens", "completion_tokens", "logprobs", "top_logprobs",
             "token", "logprob", "finish_reason", "error", "model", "reasoning_content", "prompt_tokens_details"]
        ),
        inner, max_size=5,
    ),
    max_leaves=25,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(choice=JSON, usage=JSON, top=st.dictionaries(st.sampled_from(["model", "error", "choices"]), JSON, max_size=2))
@pytest.mark.parametrize("kind", ["fake", "openai"])
def test_no_json_in_the_shape_of_an_answer_makes_the_parser_raise(kind, choice, usage, top):
    built = _parser(kind)
    body = {"choices": [{"message": {"content": "x"}, "logprobs": choice}, choice], "usage": usage} | top
    completion = built.parse(json.dumps(body).encode())
    assert completion.usage.prompt >= 0
    assert completion.usage.completion >= 0
    built.parse(json.dumps({"choices": [choice], "usage": usage}).encode())


def _parser(kind):
    module = plugins.load("distill.providers", kind)
    extra = {"base_url": "http://localhost/v1", "constrain": "json_schema"} if kind == "openai" else {}
    return module.build(module.Config(model="m", **extra), Context())


# -- the openai provider's own promises ---------------------------------------------------------------------------


def openai_of(**settings_):
    from distill.providers import openai

    return openai.Config(**({"model": "m", "base_url": "https://api.example.eu/v1"} | settings_))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("api_key_env", "sk-proj-abcdefghijklmnopqrstuvwx"), ("api_key_env", "Zk93jfLQpw02MfjKsd8Wq1"),
        ("base_url", "https://user:pa55word@api.example.eu/v1"), ("base_url", "https://api.example.eu/v1?key=secret99"),
        ("base_url", "http://api.example.eu/v1"), ("base_url", "ftp://api.example.eu"), ("base_url", "api.example.eu"),
        ("base_url", "https://api.example.eu:port/v1"), ("extra_body", {"api_key": "sk-abcdefghijklmnopqrst"}),
        ("extra_body", {"headers": {"Authorization": "Bearer abc"}}), ("extra_body", {"messages": []}),
        ("provider", "mistrall"),
    ],
)  # fmt: skip
def test_a_key_or_an_unsafe_address_in_the_settings_is_refused_without_being_shown(setting, value):
    from distill.config import validate
    from distill.providers import openai

    with pytest.raises(ConfigError) as caught:
        validate(openai.Config, {"model": "m", "base_url": "https://api.example.eu/v1", setting: value}, "x.yaml")
    for secret in ("sk-proj", "Zk93", "pa55", "secret99", "sk-abc", "Bearer abc"):
        assert secret not in str(caught.value)


def test_a_catalogue_provider_brings_its_address_and_the_name_of_its_key():
    from distill.providers import openai

    config = openai.Config(model="mistral-small", provider="mistral")
    assert config.base_url == "https://api.mistral.ai/v1"
    assert config.api_key_env == "MISTRAL_API_KEY"
    assert openai.Config(model="m", provider="mistral", api_key_env="OTHER").api_key_env == "OTHER"


def test_a_missing_key_is_named_before_anything_is_sent(monkeypatch):
    from distill.providers import openai

    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ConfigError, match="NO_SUCH_KEY"):
        openai.build(openai_of(api_key_env="NO_SUCH_KEY"), Context())


def test_an_endpoint_of_ones_own_is_free_and_somebody_elses_is_paid():
    from distill.providers import openai

    assert openai.build(openai_of(), Context()).capabilities.paid
    assert not openai.build(openai_of(base_url="http://127.0.0.1:8000/v1"), Context()).capabilities.paid


REQUEST = Request(
    (Message("system", "s"), Message("user", "\ud800é")), Sampling(9, 0.5, 0.9, 3, ("END",)), ("a", "b"), 2, sample=4
)


def test_the_body_holds_every_part_of_the_request():
    from distill.providers import openai

    body = openai.build(openai_of(top_logprobs=5, constrain="vllm", extra_body={"safe_prompt": True}), Context()).body(
        REQUEST
    )
    assert body == {
        "model": "m",
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "\ud800é"}],
        "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ["END"],
        "logprobs": True, "top_logprobs": 2, "structured_outputs": {"choice": ["a", "b"]}, "safe_prompt": True,
    }  # fmt: skip
    json.dumps(body).encode()


@pytest.mark.parametrize(
    "change",
    [
        {"base_url": "https://api.other.eu/v1"}, {"model": "n"}, {"constrain": "vllm"}, {"seed_field": "random_seed"},
        {"max_tokens_field": "max_completion_tokens"}, {"extra_body": {"x": 1}},
    ],
)  # fmt: skip
def test_every_setting_that_changes_the_question_changes_its_key(change):
    from distill.providers import openai

    first, second = openai.build(openai_of(), Context()), openai.build(openai_of(**change), Context())
    assert REQUEST.key(first.identity()) != REQUEST.key(second.identity())
    if "base_url" not in change:
        assert first.body(REQUEST) != second.body(REQUEST)


def test_settings_about_waiting_do_not_change_the_key():
    from distill.providers import openai

    first = openai.build(openai_of(), Context())
    second = openai.build(
        openai_of(timeout_s=5, deadline_s=9, max_attempts=2, concurrency=3, top_logprobs=7), Context()
    )
    assert REQUEST.key(first.identity()) == REQUEST.key(second.identity())


def test_a_schema_held_answer_is_taken_out_of_its_object_and_others_are_left():
    from distill.providers import openai

    held, free = (openai.build(openai_of(constrain=c), Context()) for c in ("json_schema", "none"))
    body = {"choices": [{"message": {"content": '{"chosen": "red"}'}, "finish_reason": "stop"}]}
    raw = json.dumps(body).encode()
    assert held.parse(raw).text == "red"
    assert free.parse(raw).text == '{"chosen": "red"}'
    assert held.body(REQUEST)["response_format"]["json_schema"]["schema"]["properties"]["chosen"]["enum"] == ["a", "b"]


@pytest.mark.parametrize(
    ("constrain", "held"), [("none", None), ("json_schema", "response_format"), ("vllm", "structured_outputs")]
)
def test_an_answer_is_held_to_a_schema_in_the_endpoints_own_words(constrain, held):
    from distill.providers import openai

    shape = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": False}
    provider = openai.build(openai_of(constrain=constrain), Context())
    assert provider.capabilities.schema is (held is not None)
    body = provider.body(Request(REQUEST.messages, schema=json.dumps(shape)))
    assert {"response_format", "structured_outputs"} & body.keys() == ({held} if held else set())
    if constrain == "json_schema":
        wanted = {"name": "answer", "strict": True, "schema": shape}
        assert body["response_format"] == {"type": "json_schema", "json_schema": wanted}
    if constrain == "vllm":
        assert body["structured_outputs"] == {"json": shape}


def test_a_request_without_a_schema_keeps_the_key_it_had_before_there_were_any():
    plain = json.loads(REQUEST.canonical({}))["request"]
    assert "schema" not in plain
    assert set(plain) == set(REQUEST.__slots__) - {"schema"}
    assert Request(REQUEST.messages, schema="{}").key({}) != Request(REQUEST.messages).key({})
    parts = ["choices", "messages", "sample", "sampling", "top_logprobs"]
    assert sorted(plain) == parts
    assert sorted(plain["sampling"]) == ["max_new_tokens", "seed", "stop", "temperature", "top_p"]


def test_its_types_are_those_of_the_official_client():
    types = pytest.importorskip("openai.types.chat")
    from distill.providers import openai

    body = openai.build(openai_of(constrain="json_schema", top_logprobs=5), Context()).body(REQUEST)
    official = types.completion_create_params.CompletionCreateParamsNonStreaming.__annotations__
    inherited = types.completion_create_params.CompletionCreateParamsBase.__annotations__
    assert body.keys() <= official.keys() | inherited.keys()


def test_one_provider_serves_several_event_loops():
    from distill.providers import openai

    with HostileTeacher() as server:
        provider = openai.build(openai_of(base_url=server.url), Context())

        async def once():
            answers = await provider.ask(requests_of(1))
            await provider.aclose()
            return answers

        assert asyncio.run(once())[0].raw == asyncio.run(once())[0].raw
