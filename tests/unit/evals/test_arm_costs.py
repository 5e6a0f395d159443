"""What an arm behind an endpoint costs, item by item: tier, cache, batch, region, and every send that was paid."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from distill import costs
from distill.config import Prompts, Serving
from distill.costs import Tier, cost_nano
from distill.providers import openai
from distill.providers._base import parse_chat
from distill.query.store import Store
from distill.records import Usage
from evals.analysis import Arm
from evals.asking import Desk, ask, exams
from evals.tasks.exact import Config as Exact
from tests.fault.batch_server import BatchServer
from tests.fault.hostile import HostileTeacher, usage_of
from tests.unit.query.prices import PRICE

TEXTS = [f"item {n} " + "word " * (n * 20) for n in range(6)]
TIERED = replace(PRICE, tiers=(Tier(60, 4 * PRICE.input, 4 * PRICE.cached, 2 * PRICE.output),))


@pytest.fixture
def answered(tmp_path, monkeypatch):
    """The arm after the items were put to a server at a price."""
    rows = [{"id": str(n), "prompt": text.strip(), "answer": "x"} for n, text in enumerate(TEXTS)]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def put(server, price=PRICE, **settings):
        monkeypatch.setattr(costs, "price_of", lambda config: price)
        task = Exact(kind="exact", path="items.jsonl", cluster_field="id")
        questions = exams([task], Prompts(path="items.jsonl"), 32, tmp_path, 0)
        config = openai.Config(model="hostile-1", base_url=server.url, **settings)
        desk = Desk(tmp_path, tmp_path / "speed.json", 1.0, Serving())
        with Store(tmp_path / "run.db") as store:
            arm = ask(Arm("api", "api", ()), config, questions, store, desk, held=False)
            assert store.audit() == []
            assert sum(s.cost_nano for s in arm.samples) == store.totals().balance.committed
        return arm

    return put


def expected(price, batch=False):
    return [cost_nano(usage_of(text.strip()), price, batch=batch) for text in TEXTS]


def test_the_tier_of_each_item_is_that_of_its_own_request(answered):
    with HostileTeacher() as server:
        arm = answered(server, TIERED)
    assert [s.cost_nano for s in arm.samples] == expected(TIERED)
    assert arm.costs == tuple(float(nano) for nano in expected(TIERED))
    # Some are in the upper tier and some are not; the sum of all as one request would be in it.
    usages = [usage_of(text.strip()) for text in TEXTS]
    assert 0 < sum(usage.prompt > 60 for usage in usages) < len(TEXTS)
    assert cost_nano(sum(usages, Usage()), TIERED) > sum(expected(TIERED))


def test_cached_tokens_are_a_part_of_the_prompt_and_cost_their_own_rate(answered):
    class Caching(HostileTeacher):
        def _body(self, call):
            body = super()._body(call)
            body["usage"]["prompt_tokens_details"] = {"cached_tokens": body["usage"]["prompt_tokens"] // 2}
            return body

    with Caching() as server:
        arm = answered(server)
    for sample, text in zip(arm.samples, TEXTS, strict=True):
        usage = usage_of(text.strip())
        assert (sample.prompt_tokens, sample.cached_tokens) == (usage.prompt, usage.prompt // 2)
        assert sample.cost_nano == cost_nano(replace(usage, cached=usage.prompt // 2), PRICE)
        assert sample.cost_nano < cost_nano(usage, PRICE)


def test_an_answer_of_a_batch_costs_the_batch_s_price_and_so_does_a_million_tokens(answered):
    halved = replace(PRICE, batch_discount=0.5)
    with BatchServer() as server:
        arm = answered(server, halved, batch=True, batch_poll_s=0.05)
    assert [s.cost_nano for s in arm.samples] == expected(halved, batch=True)
    assert sum(expected(halved, batch=True)) == pytest.approx(sum(expected(halved)) / 2, abs=len(TEXTS))
    assert (arm.price["input"], arm.price["output"]) == (0.5, 1.5)
    assert all(s.latency_s is None for s in arm.samples)


def test_a_regional_endpoint_s_surcharge_reaches_every_item(answered):
    here, eu = (costs.from_row(costs.find_price(name, "gpt-6-luna")) for name in ("openai", "openai-eu"))
    with HostileTeacher() as server:
        arm = answered(server, eu)
    assert [s.cost_nano for s in arm.samples] == expected(eu)
    assert sum(expected(eu)) == pytest.approx(1.1 * sum(expected(here)), rel=1e-3)


@pytest.mark.parametrize("fault", ["html", "reset"])
def test_a_send_that_was_repeated_is_in_the_item_s_cost(answered, fault):
    def script(text, nth):
        return fault if nth == 1 and text.startswith("item 2") else "ok"

    with HostileTeacher(script) as server:
        arm = answered(server)
    plain = expected(PRICE)
    assert server.sends() == len(TEXTS) + 1
    assert [s.cost_nano for n, s in enumerate(arm.samples) if n != 2] == [c for n, c in enumerate(plain) if n != 2]
    assert arm.samples[2].text.startswith("answer")
    assert arm.samples[2].cost_nano > 2 * plain[2]  # the answer, and a send that may be billed up to its worst case


def test_an_item_that_the_endpoint_refused_cost_nothing_and_the_arm_s_cost_stays_known(answered):
    with HostileTeacher(lambda text, nth: "500" if text.startswith("item 3") else "ok") as server:
        arm = answered(server, max_attempts=2)
    assert [s.cost_nano for s in arm.samples] == [c if n != 3 else 0 for n, c in enumerate(expected(PRICE))]
    assert arm.samples[3].reject
    assert arm.costs is not None


def test_without_a_price_no_item_has_a_cost(tmp_path):
    (tmp_path / "items.jsonl").write_text('{"id": "1", "prompt": "x", "answer": "x"}\n')
    questions = exams([Exact(kind="exact", path="items.jsonl", cluster_field="id")], Prompts(path="x"), 32, tmp_path, 0)
    with HostileTeacher() as server, Store(tmp_path / "run.db") as store:
        desk = Desk(tmp_path, tmp_path / "speed.json", 1.0, Serving())
        config = openai.Config(model="hostile-1", base_url=server.url)
        arm = ask(Arm("own", "own", ()), config, questions, store, desk, held=False)
        assert set(store.charges().values()) == {None}
    assert arm.costs is arm.samples[0].cost_nano is arm.price is None


@pytest.mark.parametrize(
    ("reported", "read"),
    [
        # OpenAI and those like it: cached tokens are among the prompt's.
        ({"prompt_tokens": 100, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 60}},
         Usage(100, 7, cached=60)),
        # Anthropic: what was read from the cache, and what was written to it, stand beside the input.
        ({"input_tokens": 40, "cache_read_input_tokens": 60, "cache_creation_input_tokens": 0, "output_tokens": 7},
         Usage(100, 7, cached=60)),
        ({"input_tokens": 30, "cache_read_input_tokens": 60, "cache_creation_input_tokens": 10, "output_tokens": 7},
         Usage(100, 7, cached=60)),
        # The Responses shape: input_tokens holds them all.
        ({"input_tokens": 100, "output_tokens": 7, "input_tokens_details": {"cached_tokens": 60}},
         Usage(100, 7, cached=60)),
    ],
)  # fmt: skip
def test_every_way_to_count_cached_tokens_comes_to_the_same_bill(reported, read):
    body = {"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}], "usage": reported}
    usage = parse_chat(json.dumps(body).encode()).usage
    assert usage == read
    assert cost_nano(usage, PRICE) == 40 * 1000 + 60 * 500 + 7 * 3000
