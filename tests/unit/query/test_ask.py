"""ask_all over the fake provider: order, duplicates, resume, refusals."""

from __future__ import annotations

import pytest

from distill.errors import ConfigError, RunLocked
from distill.providers import fake
from distill.providers._base import Capabilities, Context
from distill.query.ask import ask_all
from distill.query.store import Store
from distill.records import Message, Request


def requests_of(*texts):
    return [Request((Message("user", text),)) for text in texts]


def provider_of(**settings):
    return fake.build(fake.Config(**settings), Context())


class Counting:
    """The fake provider, with a list of everything it was asked."""

    def __init__(self, **settings):
        self.inner = provider_of(**settings)
        self.config, self.batch_size, self.capabilities = (
            self.inner.config,
            self.inner.batch_size,
            self.inner.capabilities,
        )
        self.identity, self.parse, self.close = self.inner.identity, self.inner.parse, self.inner.close
        self.asked = []

    async def ask(self, requests):
        self.asked += [request.messages[0].content for request in requests]
        return await self.inner.ask(requests)


def test_outcomes_keep_the_order_and_a_duplicate_is_asked_once(tmp_path):
    provider = Counting(replies=("red", "green", "blue"), batch_size=3, concurrency=2)
    texts = [f"question {n % 20}" for n in range(50)]
    with Store(tmp_path / "run.db") as store:
        outcomes = ask_all(provider, requests_of(*texts), store, title="test")
        assert store.audit() == []
    assert sorted(provider.asked) == sorted(set(texts))
    by_text = dict(zip(texts, outcomes, strict=True))
    assert [o.key for o in outcomes] == [by_text[t].key for t in texts]
    assert [o.cached for o in outcomes] == [False] * 20 + [True] * 30
    assert all(o.completion.text in ("red", "green", "blue") and o.cost_nano is None for o in outcomes)


def test_a_second_run_asks_only_what_is_new(tmp_path):
    provider = Counting()
    with Store(tmp_path / "run.db") as store:
        first = ask_all(provider, requests_of("a", "b"), store, title="test")
    provider.asked.clear()
    with Store(tmp_path / "run.db") as store:
        second = ask_all(provider, requests_of("b", "c", "a"), store, title="test")
    assert provider.asked == ["c"]
    assert [o.cached for o in second] == [True, False, True]
    assert second[2].completion == first[0].completion


def test_another_model_is_another_question(tmp_path):
    first, second = Counting(model="fake-1"), Counting(model="fake-2")
    with Store(tmp_path / "run.db") as store:
        ask_all(first, requests_of("a"), store, title="test")
        ask_all(second, requests_of("a"), store, title="test")
    assert second.asked == ["a"]


def test_the_canonical_request_is_kept(tmp_path):
    provider = provider_of()
    request = requests_of("a" * 1000)[0]
    with Store(tmp_path / "run.db") as store:
        (outcome,) = ask_all(provider, [request], store, title="test")
        assert store.canonical(outcome.key) == request.canonical(provider.identity())


def test_a_paid_teacher_without_price_or_cap_is_refused_before_any_call(tmp_path):
    from tests.unit.query.prices import PRICE

    provider = Counting()
    provider.capabilities = Capabilities(paid=True)
    with Store(tmp_path / "run.db") as store:
        with pytest.raises(ConfigError, match="no dated price"):
            ask_all(provider, requests_of("a"), store, title="test", max_cost_eur=1)
        with pytest.raises(ConfigError, match="no cap"):
            ask_all(provider, requests_of("a"), store, title="test", price=PRICE)
    assert provider.asked == []


def test_more_logprobs_than_the_engine_has_are_refused_before_any_call(tmp_path):
    provider = Counting()
    with Store(tmp_path / "run.db") as store, pytest.raises(ConfigError, match="log-probabilities"):
        ask_all(provider, [Request((Message("user", "a"),), top_logprobs=5)], store, title="test")
    assert provider.asked == []


def test_a_store_in_use_is_locked(tmp_path):
    with Store(tmp_path / "run.db"), pytest.raises(RunLocked):
        Store(tmp_path / "run.db")
    Store(tmp_path / "run.db").close()
