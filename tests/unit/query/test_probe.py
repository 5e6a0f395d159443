"""The capability probe: what an endpoint can do is seen once, in the ledger, and what it lacks is refused unsent."""

from __future__ import annotations

import datetime
import json

import pytest

from distill.errors import BudgetReached, ConfigError
from distill.query import probe
from distill.query.ask import ask_all
from distill.query.store import Store
from distill.records import Message, Request, Sampling
from tests.fault.asking import QUICK, provider_of, requests_of
from tests.fault.hostile import HostileTeacher
from tests.unit.query.prices import PRICE

ALL = {"n": True, "seed": True, "schema": True, "top_logprobs": 20}
TEXTS = ["one", "two"]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ALAMBIC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(probe, "WAIT_S", 0.01)


def ask(server, tmp_path, cap=1.0, top_logprobs=0, choices=(), **settings):
    wanted = [Request(r.messages, r.sampling, choices, top_logprobs) for r in requests_of(TEXTS)]
    with Store(tmp_path / "run.db") as store:
        provider = provider_of(server.url, **({"top_logprobs": top_logprobs} | settings))
        outcomes = ask_all(provider, wanted, store, title="t", price=PRICE, max_cost_eur=cap, policy=QUICK)
        return outcomes, store.totals()


def found(server, tmp_path, **settings):
    import asyncio

    provider = provider_of(server.url, **settings)

    async def go():
        try:
            return await probe.abilities(provider, store, None)
        finally:
            await provider.aclose()

    with Store(tmp_path / "probe.db") as store:
        return asyncio.run(go())


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    "able", [ALL, ALL | {"n": False}, ALL | {"schema": False}, ALL | {"top_logprobs": 5}, ALL | {"top_logprobs": 0}]
)
def test_what_an_endpoint_can_do_is_seen(tmp_path, able, strict):
    with HostileTeacher(able=able | {"strict": strict}) as server:
        seen = found(server, tmp_path, top_logprobs=20)
    assert (seen.samples, seen.schema, seen.top_logprobs) == (able["n"], able["schema"], able["top_logprobs"])
    assert seen.seed
    assert seen.as_of == datetime.datetime.now(datetime.UTC).date().isoformat()


def test_a_seed_that_is_refused_is_seen(tmp_path):
    with HostileTeacher(able=ALL | {"seed": False, "strict": True}) as server:
        assert found(server, tmp_path).seed is False


@pytest.mark.parametrize(
    ("able", "wanted", "said"),
    [
        ({"top_logprobs": 5}, {"top_logprobs": 20}, "at most 5 log-probabilities"),
        ({"top_logprobs": 0}, {"top_logprobs": 5}, "no log-probabilities"),
        ({"n": False}, {"samples_per_request": 4}, "one answer per request"),
        ({"schema": False}, {"choices": ("red", "blue"), "constrain": "json_schema"}, "JSON Schema"),
    ],
)
def test_what_it_lacks_is_refused_before_the_question_is_sent(tmp_path, able, wanted, said):
    with HostileTeacher(able=ALL | able) as server:
        with pytest.raises(ConfigError, match=said) as caught:
            ask(server, tmp_path, **wanted)
        assert sum(server.sends(text) for text in TEXTS) == 0
        assert server.sends() < 10
        with Store(tmp_path / "run.db") as store:
            assert store.totals().balance.spent == server.bill(PRICE), "the probe is in the ledger"
        before = server.sends()
        with pytest.raises(ConfigError, match=said):
            ask(server, tmp_path, **wanted)
        assert server.sends() == before, "and is not repeated"
    assert caught.value.exit_code == 2
    assert len(str(caught.value).splitlines()) == 1


def test_a_plain_question_needs_no_probe(tmp_path):
    with HostileTeacher() as server:
        ask(server, tmp_path)
        assert server.sends() == len(TEXTS)


def test_what_it_can_do_is_asked_for(tmp_path):
    with HostileTeacher(able=ALL) as server:
        outcomes, totals = ask(server, tmp_path, top_logprobs=20)
        assert totals.balance.spent == server.bill(PRICE)
    assert all(len(o.completion.logprobs.top[0]) == 20 for o in outcomes)


def test_findings_are_dated_and_grow_old(tmp_path):
    with HostileTeacher(able=ALL) as server:
        found(server, tmp_path)
        (file,) = (tmp_path / "cache/endpoints").glob("*.json")
        value = json.loads(file.read_text())
        assert value["endpoint"] == server.url
        before = server.sends()
        for as_of in ("2020-01-01", "2099-01-01", "yesterday"):
            file.write_text(json.dumps(value | {"as_of": as_of}))
            found(server, tmp_path)
            assert server.sends() > before, as_of
            before = server.sends()


def test_an_endpoint_that_does_not_answer_is_unknown_not_unable(tmp_path):
    with HostileTeacher(lambda text, nth: "503") as server:
        seen = found(server, tmp_path, top_logprobs=5)
        assert (seen.top_logprobs, seen.samples, seen.seed, seen.schema) == (None, None, None, None)
        assert not (tmp_path / "cache/endpoints").exists()
    provider = provider_of("http://127.0.0.1:1/v1", samples_per_request=4)
    probe.refuse(seen, provider, [Request((Message("user", "x"),), Sampling(), top_logprobs=5)])


def test_a_probe_respects_the_cap(tmp_path):
    with HostileTeacher(able=ALL) as server, pytest.raises(BudgetReached):
        ask(server, tmp_path, cap=1e-8, top_logprobs=20)
    assert server.sends() == 0
