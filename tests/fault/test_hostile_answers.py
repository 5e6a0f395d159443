"""Every way a server may misbehave ends in a typed reason or a known ending, never in a traceback or a lost answer."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from distill.errors import BudgetReached, Refused, TeacherRefused, TeacherUnavailable
from distill.query.ask import ask_all
from distill.query.store import Store
from distill.records import Request
from tests.fault.asking import QUICK, provider_of, requests_of
from tests.fault.hostile import HostileTeacher, Limiter
from tests.unit.query.prices import PRICE

TEXTS = [f"question {n}" for n in range(20)]


def always(fault):
    return lambda text, nth: fault


def on_first(fault):
    return lambda text, nth: fault if nth == 1 else "ok"


def ask(server, tmp_path, texts=TEXTS, policy=QUICK, cap=1.0, **settings):
    """(outcomes, totals, contradictions in the store) of asking a hostile server at a price."""
    with Store(tmp_path / "run.db") as store:
        outcomes = ask_all(
            provider_of(server.url, **settings), requests_of(texts), store,
            title="test", price=PRICE, max_cost_eur=cap, policy=policy,
        )  # fmt: skip
        return outcomes, store.totals(), store.audit()


def test_a_well_behaved_teacher_is_billed_to_the_nano(tmp_path):
    with HostileTeacher() as server:
        outcomes, totals, contradictions = ask(server, tmp_path)
        assert server.sends() == len(TEXTS)
        assert totals.balance.spent == server.bill(PRICE) == sum(o.cost_nano for o in outcomes)
    assert totals.balance.reserved == totals.balance.uncertain == 0
    assert [o.completion.text for o in outcomes] == [f"answer to {t}" for t in TEXTS]
    assert contradictions == []


@pytest.mark.parametrize(
    "fault", ["500", "503", "502", "429", "429_ms", "429_silent", "429_past", "reset", "reset_before", "short_body"]
)
def test_a_fault_on_the_first_send_is_survived_within_the_attempt_budget(tmp_path, fault):
    with HostileTeacher(on_first(fault)) as server:
        outcomes, totals, contradictions = ask(server, tmp_path)
        assert all(server.sends(t) >= 2 for t in TEXTS)
        assert server.sends() <= 3 * len(TEXTS)
        billed = server.bill(PRICE)
    assert [o.completion.text for o in outcomes] == [f"answer to {t}" for t in TEXTS]
    assert totals.balance.spent + totals.balance.uncertain >= billed
    assert contradictions == []


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("error_body", "error_body"), ("html", "html"), ("truncated_json", "not_json"), ("empty_body", "not_json"),
        ("a_list", "not_an_object"), ("deep", "not_json"), ("no_choices", "no_choices"), ("choices_null", "no_choices"),
        ("null_content", "null_content"), ("empty_text", "empty"), ("length", "truncated"),
        ("content_filter", "content_filter"), ("400", "http_400"), ("500", "http_500"), ("big", "too_large"),
        ("gzip_bomb", "too_large"), ("hang", "timeout"), ("slow_loris", "timeout"), ("reset", "connection_lost"),
    ],
)  # fmt: skip
def test_each_hostile_shape_has_its_own_reason_and_the_others_are_answered(tmp_path, fault, reason):
    texts = [*TEXTS, "bad"]
    with HostileTeacher(lambda text, nth: fault if text == "bad" else "ok") as server:
        started = time.monotonic()
        policy = replace(QUICK, timeout_s=1.0 if reason == "timeout" else 4.0)
        outcomes, totals, contradictions = ask(server, tmp_path, texts, policy)
        assert time.monotonic() - started < 8
        sends, billed = server.sends("bad"), server.bill(PRICE)
    assert outcomes[-1].completion.reject == reason
    assert [o.completion.text for o in outcomes[:-1]] == [f"answer to {t}" for t in TEXTS]
    assert 1 <= sends <= 4
    if reason in ("truncated", "content_filter", "empty", "null_content", "http_400", "too_large"):
        assert sends == 1, "what will not get better is not bought again"
    assert totals.balance.spent + totals.balance.uncertain >= billed
    assert contradictions == []


@pytest.mark.parametrize("fault", ["no_usage", "negative_usage", "text_usage", "huge_usage"])
def test_a_usage_that_cannot_be_true_is_charged_at_worst_case(tmp_path, fault):
    with HostileTeacher(always(fault)) as server:
        outcomes, totals, _ = ask(server, tmp_path)
    from distill.costs import worst_case_nano

    assert totals.balance.spent == sum(worst_case_nano(r, PRICE) for r in requests_of(TEXTS))
    assert all(o.completion.text and not o.completion.reject for o in outcomes)


def test_impossible_logprobs_are_dropped_and_the_answer_kept(tmp_path):
    with HostileTeacher(always("nan_logprobs")) as server:
        outcomes, _, contradictions = ask(server, tmp_path)
    assert all(o.completion.text and o.completion.logprobs is None and not o.completion.reject for o in outcomes)
    assert contradictions == []


def test_half_a_character_is_kept_as_bytes_and_rejected_as_text(tmp_path):
    with HostileTeacher(always("surrogate")) as server:
        outcomes, _, contradictions = ask(server, tmp_path, TEXTS[:3], replace(QUICK, breaker_rate=1.0))
    assert [o.completion.reject for o in outcomes] == ["bad_unicode"] * 3
    assert all("\ufffd" in o.completion.text for o in outcomes)
    assert all(o.completion.text.encode() for o in outcomes)
    with Store(tmp_path / "run.db") as store:
        assert all(b"\\ud800" in answer.raw for answer in store.get_many([o.key for o in outcomes]).values())
    assert contradictions == []


@pytest.mark.parametrize(
    ("fault", "ending"),
    [("401", TeacherRefused), ("404", TeacherRefused), ("quota", TeacherRefused), ("redirect", Refused)],
)
def test_a_refusal_stops_at_once_and_loses_nothing(tmp_path, fault, ending):
    texts = [f"question {n}" for n in range(300)]
    with HostileTeacher(lambda text, nth: fault if int(text.split()[1]) >= 100 else "ok", latency_s=0.01) as server:
        with pytest.raises(ending) as caught:
            ask(server, tmp_path, texts)
        assert len([c for c in server.calls if c.fault == fault]) <= 16, "no more than were in flight"
    assert len(str(caught.value).splitlines()) == 1
    with Store(tmp_path / "run.db") as store:
        assert store.totals().answers >= 100 - 16
        assert store.audit() == []


def test_an_alias_that_begins_to_mean_another_model_stops_the_run(tmp_path):
    texts = [f"question {n}" for n in range(200)]
    with HostileTeacher(lambda t, n: "other_model" if int(t.split()[1]) >= 100 else "ok", latency_s=0.01) as server:
        with pytest.raises(TeacherRefused, match="'hostile-1' and now come from 'hostile-2'"):
            ask(server, tmp_path, texts)
        drifted = [call for call in server.calls if call.fault == "other_model"]
        assert len(drifted) <= 32, "no more than were in flight, twice"
        before = server.sends()
        with pytest.raises(TeacherRefused, match="hostile-2"):  # the same command does not go on with another teacher
            ask(server, tmp_path, texts)
        assert server.sends() <= before + 32
        outcomes, _, _ = ask(server, tmp_path, texts, model_drift="report")
    assert {o.completion.model for o in outcomes} == {"hostile-1", "hostile-2"}


def test_a_long_pause_is_not_waited_for(tmp_path):
    with HostileTeacher(always("429_long")) as server, pytest.raises(TeacherUnavailable, match="pause"):
        ask(server, tmp_path)
    assert server.sends() <= 16


def test_a_server_that_is_down_is_given_up_after_the_patience(tmp_path):
    with HostileTeacher() as server:
        url = server.url
    provider = provider_of(url)
    started = time.monotonic()
    with Store(tmp_path / "run.db") as store, pytest.raises(TeacherUnavailable):
        ask_all(provider, requests_of(TEXTS), store, title="test", policy=replace(QUICK, patience_s=0.5))
    assert time.monotonic() - started < 3


def test_a_slow_loris_is_dropped_at_the_deadline(tmp_path):
    policy = replace(QUICK, timeout_s=0.8, retry_uncertain=0)
    with HostileTeacher(always("slow_loris")) as server:
        started = time.monotonic()
        outcomes, totals, _ = ask(server, tmp_path, ["one", "two"], policy)
        assert time.monotonic() - started < 8  # it would drip for a minute
        assert totals.balance.uncertain >= server.bill(PRICE)
    assert [o.completion.reject for o in outcomes] == ["timeout", "timeout"]


def test_a_teacher_that_turns_to_rubbish_is_stopped_within_250_paid_calls(tmp_path):
    texts = [f"question {n}" for n in range(1000)]
    seen = []

    def script(text, nth):
        seen.append(text)
        return "ok" if len(seen) <= 50 else "empty_text"

    with HostileTeacher(script) as server:
        with pytest.raises(TeacherUnavailable, match="unusable"):
            ask(server, tmp_path, texts)
        assert server.sends() <= 50 + 250
    with Store(tmp_path / "run.db") as store:
        assert store.totals().balance.spent == server.bill(PRICE)


def test_mixed_faults_lose_nothing_and_cost_at_most_one_and_a_half_sends_per_row(tmp_path):
    import random

    texts = [f"question {n}" for n in range(400)]
    faults = ["500", "503", "429", "reset_before", "html", "reset"]

    def script(text, nth):  # of text and attempt alone: whichever comes first, the faults are the same
        draw = random.Random(f"{text}/{nth}")
        return draw.choice(faults) if draw.random() < 0.3 else "ok"

    with HostileTeacher(script, latency_s=0.005) as server:
        outcomes, totals, contradictions = ask(
            server, tmp_path, texts, replace(QUICK, max_attempts=8, retry_uncertain=4)
        )
        assert server.sends() <= 1.5 * len(texts)
        assert totals.balance.spent + totals.balance.uncertain >= server.bill(PRICE)
    assert [o.completion.text for o in outcomes] == [f"answer to {t}" for t in texts]
    assert contradictions == []


def test_the_cap_holds_and_nearly_all_of_it_is_used(tmp_path):
    texts = [f"question {n}" for n in range(500)]
    with HostileTeacher() as server:
        with pytest.raises(BudgetReached) as caught:
            ask(server, tmp_path, texts, cap=0.01)
        billed = server.bill(PRICE)
    assert caught.value.exit_code == 10
    assert 0.97 * 10_000_000 < billed <= 10_000_000
    with Store(tmp_path / "run.db") as store:
        book = store.totals().balance
        assert (book.spent, book.reserved, book.uncertain) == (billed, 0, 0)
    with HostileTeacher() as server:  # a higher cap goes on where it stopped
        ask(server, tmp_path, texts, cap=0.1)


def test_a_key_that_the_server_echoes_is_nowhere_on_disk_or_in_the_error(tmp_path, monkeypatch, capsys):
    canary = "canary-0123456789-secret"
    monkeypatch.setenv("CANARY_KEY", canary)
    script = lambda text, nth: "echo_key" if text != "stop" else "401"  # noqa: E731
    with HostileTeacher(script, key=canary) as server:
        ask(server, tmp_path, api_key_env="CANARY_KEY")
        assert all(call.fault == "echo_key" for call in server.calls), "the key did reach the server"
        with pytest.raises(TeacherRefused) as caught:
            ask(server, tmp_path, ["stop"], api_key_env="CANARY_KEY")
    assert "CANARY_KEY" in str(caught.value)
    assert canary not in str(caught.value) + repr(caught.value) + "".join(capsys.readouterr())
    for file in tmp_path.rglob("*"):
        assert canary.encode() not in file.read_bytes()
    with Store(tmp_path / "run.db") as store:  # compressed columns too
        for codec, raw in store._reader.execute("SELECT codec, raw FROM response"):
            from distill.query.database import unpack

            assert canary.encode() not in unpack(codec, raw)


def test_a_rate_limit_in_the_headers_is_kept(tmp_path):
    texts = [f"question {n}" for n in range(300)]
    with HostileTeacher(latency_s=0.05) as server:
        server.limiter = Limiter(per_minute=6000, burst=50)
        started = time.monotonic()
        outcomes, _, _ = ask(server, tmp_path, texts, concurrency=50)
        took, ideal = time.monotonic() - started, (300 - 50) / 100
        refused = len([c for c in server.calls if c.fault == "429_limit"])
    assert all(not o.completion.reject for o in outcomes)
    assert took <= 1.4 * ideal + 0.3
    assert refused <= 0.05 * len(texts)


def test_an_endpoint_that_ignores_its_own_kind_of_choices_costs_one_call(tmp_path):
    requests = [Request(r.messages, r.sampling, choices=("red", "blue")) for r in requests_of(TEXTS)]
    with HostileTeacher() as server, Store(tmp_path / "bad.db") as store:
        with pytest.raises(TeacherRefused, match="choices"):
            ask_all(provider_of(server.url, constrain="vllm"), requests, store, title="test", policy=QUICK)
        assert server.sends() == 1
    with HostileTeacher(always("one_choice"), latency_s=0.05) as server, Store(tmp_path / "good.db") as store:
        provider = provider_of(server.url, constrain="vllm")
        outcomes = ask_all(provider, requests, store, title="test", policy=QUICK)
        assert {o.completion.text for o in outcomes} == {"red"}
        assert server.most_in_flight > 1, "after the first answer they leave together"


def test_an_endpoint_that_stops_doing_what_its_probe_showed_costs_one_call(tmp_path):
    requests = [Request(r.messages, r.sampling, top_logprobs=5) for r in requests_of(TEXTS)]
    with HostileTeacher(able={"top_logprobs": 20}) as server, Store(tmp_path / "run.db") as store:
        provider = provider_of(server.url, top_logprobs=5)
        ask_all(provider, requests[:1], store, title="test", policy=QUICK)
        server.able["top_logprobs"], before = 0, server.sends()
        with pytest.raises(TeacherRefused, match="log-probabilities"):
            ask_all(provider, requests[1:], store, title="test", policy=QUICK)
        assert server.sends() == before + 1


def test_a_short_outage_costs_no_row(tmp_path):
    import socket
    import threading

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = HostileTeacher(port=port)
    timer = threading.Timer(1.0, server.__enter__)
    timer.start()
    try:
        with Store(tmp_path / "run.db") as store:
            provider = provider_of(f"http://127.0.0.1:{port}/v1", concurrency=2)
            outcomes = ask_all(provider, requests_of(TEXTS), store, title="test", policy=QUICK)
            assert store.totals().uncertain == 0, "what never left is not charged"
    finally:
        timer.join()
        server.__exit__()
    assert [o.completion.text for o in outcomes] == [f"answer to {t}" for t in TEXTS]
    assert server.sends() == len(TEXTS)


def test_the_deadline_of_a_request_covers_all_its_attempts(tmp_path):
    policy = replace(QUICK, max_attempts=20, deadline_s=1.0, backoff_s=0.4, backoff_cap_s=0.4)
    with HostileTeacher(lambda text, nth: "500" if text == "bad" else "ok") as server:
        started = time.monotonic()
        outcomes, totals, _ = ask(server, tmp_path, [*TEXTS, "bad"], policy)
        assert time.monotonic() - started < 3
        assert 2 <= server.sends("bad") < 20
    assert outcomes[-1].completion.reject in ("http_500", "deadline")
    assert totals.balance.uncertain == 0
