"""Latency under load: a loopback endpoint of a known pace, hostile streams, an engine in this process, the cap."""

import asyncio
import json

import pytest

from distill.config import Load, Objective, Serving
from distill.errors import TeacherUnavailable
from distill.providers import fake, openai, transformers
from distill.providers._base import Context, NoAnswer
from distill.query.store import Store
from distill.records import Message, Request, Sampling
from evals import load, load_report
from evals.asking import Desk, Exam
from evals.closed_loop import Client
from evals.load_report import Level, Timing, best, percentiles, summary
from tests.unit.evals.streaming import FIRST_S, NEXT_S, TOKENS, Streaming, event

PRICE = {"input": 1, "output": 1, "currency": "EUR", "as_of": "2026-11-01"}


class Task:
    """Stands for a task's settings."""

    read_only = always_held = False
    title = "t"


def exams(count=6, tokens=TOKENS):
    requests = [Request((Message("user", f"question {n}"),), Sampling(tokens)) for n in range(count)]
    return [Exam(None, Task, None, request) for request in requests]


def endpoint(server, **settings):
    return openai.Config(model="m", base_url=server.url, timeout_s=30, **settings)


def asked(server, **settings):
    provider = openai.build(endpoint(server, **settings), Context())

    async def once():
        try:
            return provider, await provider.stream(exams(1)[0].request)
        finally:
            await provider.aclose()

    return asyncio.run(once())


def swept(settings, tmp_path, wanted, *, name="student", count=6, cap=0.0, machine="here", held=False):
    desk = Desk(tmp_path, tmp_path / "speed.json", cap, Serving())
    subject = load.Subject(name, settings, exams(count), held, desk)
    with Store(tmp_path / "run.db") as store:
        found = load.sweep(wanted, [subject], store, tmp_path / "load.json", machine)
        return load.report(wanted, found, [subject]), store.totals(), store.audit()


# -- one streamed answer ------------------------------------------------------------------------------------------


def test_the_pace_of_a_stream_is_recovered():
    with Streaming(FIRST_S, NEXT_S) as server:
        provider, answer = asked(server)
    completion = provider.parse(answer.raw)
    assert completion.text == "w0 w1 w2 w3 w4 "
    assert (completion.finish, completion.usage.prompt, completion.usage.completion) == ("stop", 11, TOKENS)
    assert FIRST_S <= answer.first_s < answer.last_s <= answer.latency_s
    assert answer.last_s >= FIRST_S + (TOKENS - 1) * NEXT_S
    timing = Timing(answer.latency_s, answer.first_s, answer.last_s, 11, TOKENS)
    assert timing.tpot_s >= NEXT_S / 2  # a busy machine sees the first token late, never early


def test_a_faster_endpoint_shows_as_faster():
    with Streaming(0.0, 0.0) as quick, Streaming(0.5, 0.2) as slow:
        (_, one), (_, other) = asked(quick), asked(slow)
    assert one.first_s < other.first_s
    assert other.last_s - other.first_s > 0.4 > one.last_s - one.first_s


def test_an_endpoint_that_does_not_stream_has_no_first_token():
    with Streaming(script=[]) as server:
        server.status = lambda body: (200, {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]})
        provider, answer = asked(server)
    assert (answer.first_s, answer.last_s) == (None, None)
    assert answer.latency_s > 0
    assert provider.parse(answer.raw).text == "x"


def test_an_endpoint_that_does_not_know_stream_options_is_asked_without():
    def status(body):
        return (422, {"error": {"message": "extra field stream_options"}}) if "stream_options" in body else None

    with Streaming(status=status) as server:
        provider, answer = asked(server)
        assert ["stream_options" in body for body in server.bodies] == [True, False]
    assert answer.first_s is not None
    assert provider.parse(answer.raw).usage.completion == 0  # nobody says how many tokens
    assert not provider.streams_usage


@pytest.mark.parametrize(
    "script",
    [
        [event({"choices": [{"delta": {"content": "half an ans"}}]})],
        [b"data: {broken\n\n"],
        [],
    ],
)
def test_a_stream_without_an_end_is_no_answer(script):
    with Streaming(script=script) as server, pytest.raises(NoAnswer, match="stream_cut"):
        asked(server)


@pytest.mark.parametrize(
    ("script", "reject"),
    [
        ([event({"error": {"message": "overloaded"}})], "error_body"),
        ([event([1, 2]), event({"choices": "x"}), b"data: [DONE]\n\n"], "empty"),
        ([event({"choices": [{"delta": None, "finish_reason": "stop"}]})], "empty"),
        ([event({"choices": [{"delta": {"content": "\ud800"}, "finish_reason": "stop"}]})], "bad_unicode"),
        ([event({"choices": [{"delta": {"content": "x"}, "finish_reason": "length"}]})], "truncated"),
    ],
)
def test_hostile_streams_are_rejected_with_a_reason_and_never_a_traceback(script, reject):
    with Streaming(script=script) as server:
        provider, answer = asked(server)
    assert provider.parse(answer.raw).reject == reject


def test_thoughts_are_tokens_too():
    said = [{"delta": {"reasoning_content": "hm"}}, {"delta": {"content": "yes"}, "finish_reason": "stop"}]
    with Streaming(script=[event({"choices": [said[0]]}), 0.2, event({"choices": [said[1]]})]) as server:
        provider, answer = asked(server)
    assert (provider.parse(answer.raw).reasoning, provider.parse(answer.raw).text) == ("hm", "yes")
    assert answer.first_s < answer.last_s


def test_a_key_that_the_endpoint_echoes_is_struck_out(monkeypatch):
    monkeypatch.setenv("SOME_KEY", "k" * 30 + "-secret")
    script = [event({"choices": [{"delta": {"content": "k" * 30 + "-secret"}, "finish_reason": "stop"}]})]
    with Streaming(script=script) as server:
        provider, answer = asked(server, api_key_env="SOME_KEY")
        assert "Bearer kkk" in server.heads[0]
    assert b"-secret" not in answer.raw
    assert provider.parse(answer.raw).text == "*" * 37


def test_a_stream_is_cut_at_the_byte_limit(monkeypatch):
    defaults = {**openai.OpenAIProvider.send.__kwdefaults__, "most": 100}
    monkeypatch.setattr(openai.OpenAIProvider.send, "__kwdefaults__", defaults)
    with Streaming(tokens=50) as server, pytest.raises(NoAnswer, match="too_large"):
        asked(server)


# -- the loop -----------------------------------------------------------------------------------------------------


def test_the_loop_holds_exactly_the_concurrency():
    """The endpoint answers only when three are there, so fewer would hang; it never sees a fourth."""
    with Streaming(together=3) as server:
        provider = openai.build(endpoint(server), Context())
        client = Client(provider)

        async def go():
            try:
                return await client.run([exam.request for exam in exams(9)], 3)
            finally:
                await provider.aclose()

        timings, seconds = asyncio.run(go())
        assert (server.most, client.most_in_flight, len(server.bodies)) == (3, 3, 9)
    assert [t.error for t in timings] == [""] * 9
    assert seconds >= max(t.e2e_s for t in timings)


def test_an_engine_in_this_process_is_asked_in_batches_of_the_concurrency(monkeypatch):
    sizes = []
    provider = fake.build(fake.Config(latency_s=0.05), Context())
    ask = provider.ask

    async def seen(requests):
        sizes.append(len(requests))
        return await ask(requests)

    monkeypatch.setattr(provider, "ask", seen)
    timings, seconds = asyncio.run(Client(provider).run([exam.request for exam in exams(8)], 4))
    assert sizes == [4, 4]
    assert all(t.e2e_s >= 0.05 and t.first_s is None for t in timings)
    assert seconds >= 0.1


def test_a_real_engine_tells_when_its_tokens_came(tiny_student):
    config = transformers.Config(model=f"path:{tiny_student}", dtype="float32", threads=1)
    provider = transformers.build(config, Context())
    provider.vocab  # noqa: B018 - loads the weights
    timings, _ = asyncio.run(Client(provider).run([exam.request for exam in exams(4, tokens=20)], 4))
    for t in timings:
        assert 0 < t.first_s <= t.last_s <= t.e2e_s
        assert (t.tpot_s is None) == (t.completion == 1)
    assert any(t.completion > 1 and t.first_s < t.last_s for t in timings)
    held = [Request((Message("user", "q"),), Sampling(4), choices=("red", "blue"))]
    (chosen,) = asyncio.run(provider.ask(held))
    assert (chosen.first_s, chosen.last_s) == (None, None)  # options are weighed, not written


# -- what the timings add up to -----------------------------------------------------------------------------------

GOAL = Objective(ttft_s=1.0, tpot_s=0.1, e2e_s=3.0, share=0.75)


def level(*timings, seconds=2.0):
    return summary(Level(4, seconds, timings), GOAL)


def test_a_level_is_summed_up_as_by_hand():
    good = Timing(2.0, 0.5, 1.4, 10, 10)  # (1.4 - 0.5) / 9 = 0.1
    late = Timing(2.0, 1.5, 1.5, 10, 1)
    found = level(good, good, good, late)
    assert (found["requests"], found["errors"]) == (4, 0)
    assert found["ttft"] == pytest.approx({"p50": 0.5, "p95": 0.5 + 0.85, "p99": 0.5 + 0.97})
    assert found["tpot"] == pytest.approx({"p50": 0.1, "p95": 0.1, "p99": 0.1})  # one token has no time between tokens
    assert (found["prompt_tokens"], found["completion_tokens"]) == (40, 31)
    assert (found["requests_per_s"], found["tokens_per_s"]) == (2.0, 35.5)
    assert (found["within"], found["goodput_per_s"]) == (0.75, 1.5)


def test_an_error_never_meets_the_objective_however_fast_it_came():
    good, broken = Timing(0.5, 0.1, 0.2, 10, 5), Timing(0.001, error="http_500")
    whole, part = level(*[good] * 10), level(*[good] * 9, broken)
    assert (whole["within"], part["within"]) == (1.0, 0.9)
    assert part["goodput_per_s"] < whole["goodput_per_s"]
    assert part["requests_per_s"] < whole["requests_per_s"]
    assert part["e2e"] == whole["e2e"]  # and its quick end is no latency


def test_what_is_not_known_is_null_and_no_request_is_said_to_have_met_it():
    unseen = Timing(0.5, None, None, 10, 5)
    found = level(unseen, Timing(0.5, 0.1, 0.2, None, None))
    assert (found["ttft"], found["tpot"], found["within"], found["goodput_per_s"]) == (None,) * 4
    assert (found["prompt_tokens"], found["tokens_per_s"]) == (None, None)
    assert found["e2e"]["p50"] == 0.5
    too_late = Timing(5.0, None, None, 10, 5)
    assert load_report.met(too_late, GOAL) is False  # one missed part is enough
    nothing_asked = summary(Level(1, 1.0, [unseen]), Objective())
    assert (nothing_asked["within"], best([nothing_asked], 0.95)) == (None, None)


def test_a_single_token_has_no_time_between_tokens_to_miss():
    assert load_report.met(Timing(0.5, 0.1, 0.1, 10, 1), GOAL) is True
    assert load_report.met(Timing(0.5, 0.1, 0.1, 10, None), GOAL) is None


def test_percentiles_stay_inside_what_was_seen():
    assert percentiles([1, 1, 9])["p95"] <= 9
    assert percentiles([]) is None


def test_the_best_level_has_the_highest_goodput_of_those_that_hold_the_share():
    def rung(within, goodput):
        return {"within": within, "goodput_per_s": goodput}

    rungs = [rung(1.0, 2.0), rung(0.97, 5.0), rung(0.6, 9.0), rung(None, None)]
    assert best(rungs, 0.95) == 1
    assert best(rungs, 0.5) == 2
    assert best(rungs[2:], 0.95) is None


# -- the sweep ----------------------------------------------------------------------------------------------------


def test_a_sweep_measures_each_level_and_leaves_the_first_round_out(tmp_path):
    wanted = Load(concurrency=(2, 1), requests=3, objective=Objective(e2e_s=20))
    with Streaming() as server:
        report, totals, _ = swept(endpoint(server), tmp_path, wanted)
        assert len(server.bodies) == (1 + 3) + (2 + 3)
        assert server.most <= 2
    (arm,) = report["arms"]
    assert (report["prompts"], arm["streamed"], "openai endpoint" in arm["engine"]) == (6, True, True)
    assert [rung["concurrency"] for rung in arm["levels"]] == [1, 2]
    assert all(rung["requests"] == 3 and rung["within"] == 1.0 for rung in arm["levels"])
    assert arm["best"] is not None
    assert totals.requests == 0  # nothing that is free goes through the store


def test_levels_ask_other_items_while_there_are_some(tmp_path):
    with Streaming() as server:
        swept(endpoint(server), tmp_path, Load(concurrency=(1, 2), requests=2), count=7)
        said = [body["messages"][-1]["content"] for body in server.bodies]
    assert sorted(said) == sorted(f"question {n}" for n in range(7))


def test_a_finished_level_is_not_measured_again(tmp_path):
    wanted = Load(concurrency=(1, 2), requests=2)
    with Streaming() as server:
        first, _, _ = swept(endpoint(server), tmp_path, wanted)
        count = len(server.bodies)
        again, _, _ = swept(endpoint(server), tmp_path, wanted)
        goal = wanted.model_copy(update={"objective": Objective(e2e_s=1e-9)})
        strict, _, _ = swept(endpoint(server), tmp_path, goal)  # another objective: the same timings
        assert len(server.bodies) == count
        assert again == first
        assert [rung["goodput_per_s"] for rung in strict["arms"][0]["levels"]] == [0.0, 0.0]
        swept(endpoint(server), tmp_path, wanted, machine="elsewhere")
        assert len(server.bodies) == 2 * count
        swept(endpoint(server, extra_body={"x": 1}), tmp_path, wanted, machine="elsewhere")
        assert len(server.bodies) == 3 * count
        swept(endpoint(server, extra_body={"x": 1}), tmp_path, wanted, machine="elsewhere", count=5)
        assert len(server.bodies) > 3 * count


def test_a_damaged_file_of_levels_is_measured_again(tmp_path):
    wanted = Load(concurrency=(1,), requests=2)
    with Streaming() as server:
        swept(endpoint(server), tmp_path, wanted)
        kept = json.loads((tmp_path / "load.json").read_text())
        kept["student"]["1"]["level"] = {"concurrency": 1}
        (tmp_path / "load.json").write_text(json.dumps(kept))
        report, _, _ = swept(endpoint(server), tmp_path, wanted)
        assert len(server.bodies) == 6
    assert report["arms"][0]["levels"][0]["requests"] == 2


def test_failed_requests_are_counted_and_lower_the_goodput(tmp_path):
    wanted = Load(concurrency=(1,), requests=9, objective=Objective(e2e_s=20))
    with Streaming() as server:
        whole, _, _ = swept(endpoint(server), tmp_path, wanted, name="one", count=10)
    with Streaming(broken_every=5) as server:
        part, _, _ = swept(endpoint(server), tmp_path, wanted, name="two", count=10)
    (good,), (bad,) = whole["arms"][0]["levels"], part["arms"][0]["levels"]
    assert (good["errors"], bad["errors"], good["within"]) == (0, 2, 1.0)
    assert bad["within"] == pytest.approx(7 / 9)


def test_a_dead_endpoint_ends_the_sweep_and_what_was_finished_stays(tmp_path):
    wanted = Load(concurrency=(1,), requests=2)
    with Streaming() as server:
        swept(endpoint(server), tmp_path, wanted)
    settings = endpoint(server)
    with pytest.raises(TeacherUnavailable, match="answers nothing under load"):
        swept(settings, tmp_path, Load(concurrency=(1, 2), requests=2))
    assert list(json.loads((tmp_path / "load.json").read_text())["student"]) == ["1"]


def test_only_the_named_arms_are_measured(tmp_path):
    with Streaming() as server:
        report, _, _ = swept(endpoint(server), tmp_path, Load(requests=16, arms=("teacher",)))
        assert not server.bodies
    assert report["arms"] == []


# -- money --------------------------------------------------------------------------------------------------------


def test_a_paid_system_is_left_out_until_it_is_allowed(tmp_path, capsys):
    with Streaming() as server:
        report, _, _ = swept(endpoint(server, price=PRICE), tmp_path, Load(requests=16), cap=1.0)
        assert not server.bodies
    assert report["arms"] == []
    assert "load.paid" in capsys.readouterr().err


def test_every_paid_call_is_in_the_ledger_at_its_price(tmp_path):
    wanted = Load(concurrency=(1, 2), requests=3, paid=True)
    with Streaming(broken_every=4) as server:
        report, totals, complaints = swept(endpoint(server, price=PRICE), tmp_path, wanted, cap=1.0, count=20)
        sent = len(server.bodies)
    assert complaints == []
    assert (totals.answers + totals.released, totals.uncertain, totals.balance.reserved) == (sent, 0, 0)
    assert totals.balance.spent == totals.answers * (11 + TOKENS) * 1000  # EUR 1 per million: 1,000 nano-EUR a token
    assert len(report["arms"][0]["levels"]) == 2


def test_a_level_that_the_cap_may_not_hold_is_not_begun(tmp_path, capsys):
    wanted = Load(concurrency=(1, 2), requests=3, paid=True)
    with Streaming() as server:
        report, totals, complaints = swept(endpoint(server, price=PRICE), tmp_path, wanted, cap=1e-6, count=20)
        assert not server.bodies
    assert (complaints, totals.balance.committed, report["arms"]) == ([], 0, [])
    assert "left out" in capsys.readouterr().err


def test_a_paid_sweep_without_a_cap_is_refused(tmp_path):
    from distill.errors import ConfigError

    with Streaming() as server, pytest.raises(ConfigError, match="no cap is set"):
        swept(endpoint(server, price=PRICE), tmp_path, Load(requests=16, paid=True))


def test_paid_calls_cut_off_in_flight_stay_charged_at_their_worst_case(tmp_path):
    """Negative control of the ledger: the endpoint hangs up in the middle of every answer but the first."""
    with Streaming() as server:
        server.script = [event({"choices": [{"delta": {"content": "x"}}]})]
        with pytest.raises(TeacherUnavailable):
            swept(endpoint(server, price=PRICE), tmp_path, Load(concurrency=(2,), requests=2, paid=True), cap=1.0)
    with Store(tmp_path / "run.db") as store:
        totals = store.totals()
        assert (totals.uncertain, totals.released, store.audit()) == (2, 2, [])  # two left, two never did
        assert totals.balance.uncertain > 0


def test_a_paid_call_that_times_out_is_an_error_and_may_have_been_billed(tmp_path):
    with Streaming(first_s=30.0) as server, pytest.raises(TeacherUnavailable, match="timeout"):
        settings = openai.Config(model="m", base_url=server.url, timeout_s=0.3, price=PRICE)
        swept(settings, tmp_path, Load(concurrency=(1,), requests=2, paid=True), cap=1.0)
    with Store(tmp_path / "run.db") as store:
        totals = store.totals()
    assert (totals.uncertain, totals.released) == (1, 2)
