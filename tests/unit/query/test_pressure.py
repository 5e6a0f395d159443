"""Waiting: Retry-After in all its forms, AIMD, pacing by headers, breakers."""

from __future__ import annotations

import time
from dataclasses import replace
from email.utils import formatdate

import pytest

from distill.providers._base import Pace
from distill.providers._headers import duration, pace, retry_after
from distill.query.pressure import OUTAGE, Lane, Policy


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None), ({"retry-after": "3"}, 3.0), ({"retry-after": "0.25"}, 0.25), ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "100", "retry-after": "9"}, 0.1), ({"retry-after": "-1"}, None),
        ({"retry-after": "soon"}, None), ({"retry-after": "nan"}, None), ({"retry-after": "inf"}, None),
        ({"retry-after": "1e400"}, None), ({"retry-after": ""}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, None), ({"retry-after": "Wed, 99 Foo 2015"}, None),
    ],
)  # fmt: skip
def test_retry_after_is_read_in_every_form(headers, seconds):
    assert retry_after(headers) == seconds


def test_a_retry_after_date_is_seconds_from_now():
    assert 28 <= (retry_after({"retry-after": formatdate(time.time() + 30, usegmt=True)}) or 0) <= 30


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1.5", 1.5), ("20ms", 0.02), ("1m30s", 90.0), ("2h", 7200.0), ("6m0s", 360.0), ("x", None), ("5", 5.0),
        (None, None), ("3 s", None),
    ],
)  # fmt: skip
def test_reset_times_are_read_in_every_form(text, seconds):
    assert duration(text) == seconds


def test_the_pace_is_what_the_headers_say():
    headers = {"x-ratelimit-limit-requests": "3000", "x-ratelimit-remaining-requests": "2990"}
    assert pace(headers) == Pace(3000, 2990, 50.0)
    assert pace(headers | {"x-ratelimit-reset-requests": "2s"}) == Pace(3000, 2990, 5.0)
    assert pace({}) is None
    assert pace({"x-ratelimit-limit-requests": "many"}) is None


def lane_of(most=100, **changes):
    return Lane(most, replace(Policy(), **changes))


def test_a_refusal_cuts_concurrency_once_and_answers_win_it_back_slowly():
    lane = lane_of()
    for _ in range(100):
        lane.leave(0.0)
    for _ in range(40):
        lane.throttle(2.0, now=10.0)
    assert lane.limit == 70.0
    assert lane.wait_s(10.0) is None, "100 are in flight"
    for _ in range(100):
        lane.back()
    assert lane.wait_s(10.0) == 2.0
    for _ in range(70):
        lane.answered(True)
    assert 70.9 < lane.limit < 71.1
    for _ in range(100_000):
        lane.answered(True)
    assert lane.limit == 100.0


def test_concurrency_never_falls_below_one():
    lane = lane_of(4)
    for n in range(50):
        lane.throttle(None, now=float(n * 100))
    lane.paused_until = 0.0
    assert lane.wait_s(1e6) == 0.0


def test_failures_in_a_row_are_an_outage_and_one_answer_ends_it():
    lane = lane_of()
    assert [lane.failed(5.0) for _ in range(OUTAGE)] == [False] * (OUTAGE - 1) + [True]
    assert lane.wait_s(5.0) > 0.0
    lane.answered(True)
    assert lane.failed(6.0) is False


def test_silence_has_a_limit_that_pauses_on_request_extend():
    lane = lane_of(patience_s=10, throttle_limit_s=100)
    lane.failed(0.0)
    assert not lane.gone(9.0)
    assert lane.gone(11.0)
    lane = lane_of(patience_s=10, throttle_limit_s=100)
    lane.throttle(50.0, now=0.0)
    assert not lane.gone(55.0), "it asked for 50 s"
    assert lane.gone(101.0)


def test_calls_keep_to_the_pace_the_server_reports():
    lane = lane_of(100)
    lane.told(Pace(60, 2, 1.0), now=0.0, took=0.2)
    sent, now = 0, 0.0
    while now < 20:
        if (wait := lane.wait_s(now)) == 0.0:
            lane.leave(now)
            lane.back()
            sent += 1
        else:
            now += max(wait or 0.0, 1e-3)
    assert 21 <= sent <= 23


def test_only_calls_that_just_left_are_thought_to_be_uncounted():
    """50 left at once and the first answer says 10 are left: the other 49 are in that count, 3 new ones are not."""
    lane = lane_of(100)
    for _ in range(50):
        lane.leave(0.0)
    lane.back()
    for _ in range(3):
        lane.leave(0.19)
    lane.told(Pace(3000, 10, 50.0), now=0.2, took=0.2)
    free = 0
    while lane.wait_s(0.2) == 0.0:
        lane.leave(0.2)
        free += 1
    assert free == 7


def test_unusable_answers_are_judged_only_when_there_are_enough():
    lane = lane_of(breaker_window=20)
    for _ in range(9):
        lane.answered(False)
    assert lane.unusable() == 0.0
    lane.answered(False)
    assert lane.unusable() == 1.0
    for _ in range(20):
        lane.answered(True)
    assert lane.unusable() == 0.0
