"""Where a model is asked: what counts as one's own network, and which provider a host is."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from distill.catalog.route import is_own, official, route_of


@pytest.mark.parametrize(
    "host",
    ["localhost", "127.0.0.1", "127.8.8.8", "::1", "10.1.2.3", "192.168.0.9", "172.16.0.1", "fd00::1", "gpu-box",
     "teacher.local", "vllm.internal", "::ffff:10.0.0.1"],
)  # fmt: skip
def test_these_hosts_are_ones_own(host):
    assert is_own(host)


@pytest.mark.parametrize(
    "host",
    ["", "8.8.8.8", "134744072", "0x08080808", "010.8.8.8", "::ffff:8.8.8.8", "2001:4860:4860::8888", "0.0.0.0", "::",
     "example.com", "localhost.example.com", "evil.internal.example.com", "172.32.0.1", "100.64.0.1"],
)  # fmt: skip
def test_these_hosts_are_not(host):
    assert not is_own(host)


@pytest.mark.parametrize(
    ("url", "provider"),
    [
        ("https://api.mistral.ai/v1", "mistral"),
        ("https://API.Mistral.AI:443/v1", "mistral"),
        ("https://us.api.openai.com/v1", "openai"),
        ("https://eu.api.openai.com/v1", "openai-eu"),
        ("https://x.ifr.fr-par.scaleway.com/v1", "scaleway"),
        ("https://api.mistral.ai.example.com/v1", None),
        ("https://example.com/api.mistral.ai", None),
        ("https://notapi.openai.com.evil.net", None),
    ],
)
def test_a_provider_is_recognised_by_its_host_alone(url, provider):
    route = route_of(SimpleNamespace(model="m", base_url=url))
    assert route.kind == "api"
    assert (route.provider and route.provider.id) == provider


def test_without_an_address_the_model_runs_in_this_process():
    route = route_of(SimpleNamespace(model="smollm2-135m-instruct"))
    assert (route.kind, route.official_model) == ("process", "HuggingFaceTB/SmolLM2-135M-Instruct")


@pytest.mark.parametrize(
    ("model", "id_"),
    [
        ("smollm2-135m-instruct", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("hub:acme/x@1234", "acme/x"),
        ("path:models/x", "path:models/x"),
        ("whatever", "whatever"),
    ],
)
def test_the_official_id_behind_a_name(model, id_):
    assert official(model) == id_


def test_a_providers_own_name_of_a_model_leads_to_the_official_one():
    route = route_of(SimpleNamespace(model="zai-glm-5-3-flash", base_url="https://api.mistral.ai/v1"))
    assert route.official_model == "zai-org/GLM-5.3-Flash"
