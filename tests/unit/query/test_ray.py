"""`generate.executor: ray`: the same questions and the same ledger on a local cluster, also when a worker dies."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from distill.errors import ConfigError, EnvironmentProblem
from distill.executors import ray as executor
from distill.providers import fake, openai, transformers
from distill.providers._base import Context, NoAnswer
from distill.query.ask import ask_all
from distill.query.store import Store
from tests.fault.asking import QUICK, requests_of
from tests.fault.hostile import HostileTeacher
from tests.unit.query.prices import PRICE

TEXTS = [f"question {n}" for n in range(60)]
LOST = Context()


def pool(settings, context=LOST, **config):
    return executor.spread(executor.Config(**({"workers": 2, "cpus": 0.5} | config)), settings, context)


@pytest.fixture(scope="module")
def cluster():
    """One local cluster for all tests."""
    executor._open(executor.Config())
    yield
    executor._leave()


def ask(provider, path, texts=TEXTS, **more):
    with Store(path) as store:
        outcomes = ask_all(provider, requests_of(texts), store, title="test", policy=QUICK, **more)
        return outcomes, store.totals(), store.audit()


# -- without a cluster --------------------------------------------------------------------------------------------


def test_a_cluster_that_is_not_there_is_one_line_at_once():
    pytest.importorskip("ray")
    started = time.monotonic()
    with pytest.raises(EnvironmentProblem, match="no Ray cluster") as caught:
        pool(fake.Config(), address="127.0.0.1:1")
    assert time.monotonic() - started < 5
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "error",
    [
        NoAnswer("http_500", billed=False, status=500, retry_after_s=2.0, detail="x"), NoAnswer("timeout"),
        EnvironmentProblem("what", where="where", safe="safe", next="next"), ConfigError("what", where="teacher"),
    ],
)  # fmt: skip
def test_an_error_is_the_same_on_both_sides(error):
    there = executor._unpacked(executor._packed(error))
    assert (type(there), str(there), vars(there)) == (type(error), str(error), vars(error))


# -- with one -----------------------------------------------------------------------------------------------------


@pytest.mark.ray
def test_a_pool_answers_commits_and_pays_as_one_process_does(tmp_path, cluster):
    with HostileTeacher() as server:
        settings = openai.Config(model="hostile-1", base_url=server.url, concurrency=4)
        local, _, _ = ask(openai.build(settings, Context()), tmp_path / "local.db", price=PRICE, max_cost_eur=1.0)
        before = server.bill(PRICE)
        provider = pool(settings)
        try:
            assert provider.config.concurrency == 8
            spread, totals, contradictions = ask(provider, tmp_path / "ray.db", price=PRICE, max_cost_eur=1.0)
            again, _, _ = ask(provider, tmp_path / "local.db", price=PRICE, max_cost_eur=1.0)
        finally:
            provider.close()
        assert totals.balance.spent == server.bill(PRICE) - before
    assert [(o.key, o.completion) for o in spread] == [(o.key, o.completion) for o in local]
    assert all(o.cached for o in again), "what was asked locally is not asked on the cluster"
    assert contradictions == []


@pytest.mark.ray
def test_a_killed_worker_costs_its_leases_and_no_answer(tmp_path, cluster):
    provider = pool(fake.Config(latency_s=0.1, batch_size=3, replies=("red", "green", "blue")))
    try:
        victim = provider._pool.pids[0]
        threading.Timer(0.45, os.kill, (victim, signal.SIGKILL)).start()
        outcomes, totals, contradictions = ask(provider, tmp_path / "run.db", [f"question {n}" for n in range(120)])
        assert victim != provider._pool.pids[0] or 0 in provider._pool._down
    finally:
        provider.close()
    assert totals.uncertain == 3, "one lease was with the worker"
    assert totals.answers == 120
    assert all(o.completion.text in ("red", "green", "blue") for o in outcomes)
    assert contradictions == []


@pytest.mark.ray
def test_a_local_engine_scores_where_its_weights_are(tmp_path, tiny_teacher, cluster):
    settings = transformers.Config(model=f"path:{tiny_teacher}", device="cpu", threads=1, batch_size=4)
    local, provider = transformers.build(settings, Context()), pool(settings, workers=1)
    try:
        assert provider.identity() == local.identity()
        items = [(request.messages, "an answer") for request in requests_of(TEXTS[:2])]
        here, there = local.score_tokens(items, 4), provider.score_tokens(items, 4)
        assert [list(scored.token_ids_T) for scored in here] == [list(scored.token_ids_T) for scored in there]
        assert provider.vocab == local.vocab
        assert provider._inner._engine is None, "this process loads nothing"
        spread, _, _ = ask(provider, tmp_path / "run.db", TEXTS[:6])
        assert {o.completion.reject for o in spread} <= {"", "truncated", "empty"}
    finally:
        provider.close()


@pytest.mark.ray
def test_what_a_worker_lacks_is_told_in_one_line(monkeypatch, cluster):
    with pytest.raises(EnvironmentProblem, match="did not start within"):
        pool(fake.Config(), cpus=4096, start_timeout_s=1.0)
    monkeypatch.setenv("ONLY_HERE", "a-key")
    settings = openai.Config(model="m", base_url="http://127.0.0.1:1/v1", api_key_env="ONLY_HERE")
    with pytest.raises(ConfigError, match="ONLY_HERE"):
        pool(settings)
