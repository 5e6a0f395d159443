"""Money against hand-worked examples; what is unknown stays unknown."""

from dataclasses import replace

import pytest

from distill.config import Serving
from evals.economics import Speed, billed, nano_per_second, self_hosted
from tests.unit.evals.synthetic import systems

ROWS = systems()["student"]


def test_a_token_costs_the_hour_over_speed_and_utilisation():
    serving = Serving(eur_per_hour=1.09, utilisation=0.3)
    tokens = sum(s.tokens for s in ROWS)
    speed = Speed(240, sum(s.prompt_tokens for s in ROWS), sum(s.completion_tokens for s in ROWS), tokens / 1500)
    costs = self_hosted(ROWS, speed, serving)
    # The seconds spent, at the hourly price, over the share of the time that works.
    assert sum(costs) / 1e9 == pytest.approx(tokens / 1500 / 3600 * 1.09 / 0.3)
    assert nano_per_second(serving) == pytest.approx(1.09e9 / 3600 / 0.3)


@pytest.mark.parametrize(
    ("hourly", "speed", "worked"),
    [(0.38, 500, (0.21, 0.70, 2.11)), (0.38, 1500, (0.07, 0.23, 0.70)), (0.38, 3000, (0.04, 0.12, 0.35)),
     (1.09, 500, (0.61, 2.02, 6.06)), (1.09, 1500, (0.20, 0.67, 2.02)), (1.09, 3000, (0.10, 0.34, 1.01)),
     (2.29, 500, (1.27, 4.24, 12.7)), (2.29, 1500, (0.42, 1.41, 4.24)), (2.29, 3000, (0.21, 0.71, 2.12)),
     (3.85, 500, (2.14, 7.13, 21.4)), (3.85, 1500, (0.71, 2.38, 7.13)), (3.85, 3000, (0.36, 1.19, 3.56))],
)  # fmt: skip
def test_a_million_tokens_on_a_card_of_ones_own_cost_what_the_worked_table_says(hourly, speed, worked):
    for share, expected in zip((1, 0.3, 0.1), worked, strict=True):
        rate = nano_per_second(Serving(eur_per_hour=hourly, utilisation=share))
        last_digit = 2 if expected < 10 else 1  # the table has three figures at most
        assert rate / 1e9 / speed * 1e6 == pytest.approx(expected, abs=0.501 * 10**-last_digit)


def test_speed_measured_on_a_part_prices_the_whole():
    serving = Serving(eur_per_hour=1.0, utilisation=1.0)
    half = Speed(120, 12_000, 360, 10.0)
    assert self_hosted(ROWS, half, serving) == self_hosted(ROWS, half + half, serving)


def test_without_tokens_each_answer_costs_its_share_of_the_seconds():
    rows = [replace(s, prompt_tokens=None, completion_tokens=None) for s in ROWS]
    costs = self_hosted(rows, Speed(240, 0, 0, 24.0), Serving(eur_per_hour=3.6, utilisation=1.0))
    assert costs == pytest.approx((0.1 * 1e6,) * 240)


@pytest.mark.parametrize(
    ("speed", "serving"),
    [
        (None, Serving(eur_per_hour=1.0)),
        (Speed(240, 1, 1, 1.0), Serving()),
        (Speed(0, 0, 0, 0.0), Serving(eur_per_hour=1.0)),
    ],
)
def test_an_unknown_price_or_speed_is_never_nothing(speed, serving):
    assert self_hosted(ROWS, speed, serving) is None


def test_one_unpriced_answer_makes_the_sum_unknown():
    priced = [replace(s, cost_nano=7) for s in ROWS]
    assert sum(billed(priced)) == 7 * 240
    assert billed([*priced[:-1], replace(priced[-1], cost_nano=None)]) is None
