"""Break-even against worked examples and against plain search; what is unknown stays unknown."""

import math

import pytest

from evals.breakeven import POINTS, Hosting, curve, entry, payback, replicas, utilisation, volume

L40S = Hosting(1.09, answers_per_s=5.0, amortise_months=12)


@pytest.mark.parametrize(
    ("per_thousand", "requests", "last_digit"),
    [(12.00, 75e3, 1e3), (6.00, 149e3, 1e3), (1.68, 533e3, 1e3), (1.584, 565e3, 1e3), (1.20, 746e3, 1e3),
     (0.405, 2.2e6, 1e5), (0.30, 3.0e6, 1e5), (0.21, 4.3e6, 1e5)],
)  # fmt: skip
def test_an_always_on_card_pays_from_the_volume_of_the_worked_table(per_thousand, requests, last_digit):
    # An L40S at 1.09 an hour (796 a month), 1,200 one-off over 12 months, 1500 tokens in and 300 out.
    found = volume(1200.0, per_thousand / 1000, L40S)
    assert round(found.requests / last_digit) == round(requests / last_digit)
    assert found.machines == 1  # 13.1 million answers a month


def test_without_a_one_off_bill_the_same_card_pays_from_the_known_volumes():
    # 133k requests a month against 6.00 per 1,000, 2.65 million against 0.30.
    assert round(volume(0.0, 0.006, L40S).requests, -3) == 133_000
    assert round(volume(0.0, 0.0003, L40S).requests, -4) == 2_650_000


def test_two_machines_are_paid_when_one_cannot_answer_enough():
    # By hand: 730 a month and 100,000 answers each, 0.01 a request, 12,000 over 12 months. One machine full earns
    # 1,000 < 1,730; n machines earn 270 n >= 1,000 from n = 4: (4 x 730 + 1,000) / 0.01 = 392,000 <= 400,000.
    hosting = Hosting(1.0, 100_000 / (3600 * 730), 12)
    found = volume(12_000.0, 0.01, hosting)
    assert (found.requests, found.machines) == (392_000, 4)
    assert replicas(found.requests, hosting.capacity) == 4
    # The fifth machine loses at first; from seven on every volume pays: (7 x 730 + 1,000) / 0.01.
    assert found.steady == 611_000
    assert [replicas(v, 100_000) for v in (0, 1, 100_000, 100_001)] == [1, 1, 1, 2]


@pytest.mark.parametrize("one_off", [0, 5, 40, 173])
@pytest.mark.parametrize("price", [0.3, 0.55, 1.0])
@pytest.mark.parametrize("capacity", [37, 50.5, 91])
def test_the_least_and_the_steady_volume_are_those_that_a_plain_search_finds(one_off, price, capacity):
    hosting = Hosting(20 / 730, capacity / (3600 * 730), 1)

    def pays(v):
        return price * v >= replicas(v, hosting.capacity) * hosting.monthly_eur + one_off - 1e-9

    found = volume(float(one_off), price, hosting)
    upto = 30_000
    paying = [v for v in range(1, upto) if pays(v)]
    if found is None:
        assert not paying
        assert utilisation(price, hosting) > 1
        return
    assert found.requests == paying[0]
    assert found.machines == replicas(paying[0], hosting.capacity)
    assert found.steady == next(v for v in range(upto - 1, 0, -1) if not pays(v)) + 1


def test_a_price_that_a_full_machine_does_not_earn_is_never_reached_whatever_the_volume():
    slow = Hosting(1.09, answers_per_s=0.01)
    assert volume(1200.0, 0.006, slow) is None
    assert utilisation(0.006, slow) == pytest.approx(1.09 / 3600 / 0.01 / 0.006)
    assert utilisation(0.006, slow) > 1


def test_the_break_even_of_utilisation_is_that_of_the_formula_per_token():
    # P x 1e6 / (3600 x T x price per million): 1,500 tokens/s at 1.09 against 1.00 per million, 1,800 per request.
    found = utilisation(1.00 * 1800 / 1e6, Hosting(1.09, 1500 / 1800))
    assert found == pytest.approx(1.09e6 / (3600 * 1500 * 1.00))
    # At that share of the time, an own request costs as much as the other's.
    assert 1.09 / 3600 / (1500 / 1800) / found == pytest.approx(1.00 * 1800 / 1e6)


def test_a_bill_is_paid_back_after_bill_over_saving_never_or_nobody_knows():
    assert payback(1200.0, 0.006, 0.0005) == ("after", math.ceil(1200 / 0.0055))
    assert payback(10.0, 0.001, 0.002) == ("never", None)
    assert payback(10.0, 0.001, 0.001) == ("never", None)
    for missing in [(None, 0.1, 0.01), (10.0, None, 0.01), (10.0, 0.1, None)]:
        assert payback(*missing) == ("unknown", None)
        assert curve(*missing) is None


@pytest.mark.parametrize(
    "hosting", [Hosting(None, 5.0), Hosting(1.0, None), Hosting(1.0, 0.0)], ids=["price", "speed", "no speed"]
)
def test_without_the_price_or_speed_of_the_machine_no_volume_is_claimed(hosting):
    assert volume(10.0, 0.01, hosting) is None
    assert utilisation(0.01, hosting) is None
    assert volume(None, 0.01, L40S) is None
    assert volume(10.0, None, L40S) is None
    found = entry("teacher", 10.0, 0.01, 0.001, hosting, None)
    assert found["requests"] == 1112
    assert found["per_month"] is found["utilisation"] is found["machines"] is None


def test_the_two_lines_cross_at_the_break_even():
    _, requests = payback(100.0, 0.003, 0.001)
    found = curve(100.0, 0.003, 0.001)
    assert [len(values) for values in found.values()] == [POINTS] * 3
    assert (found["requests"][0], found["own_eur"][0], found["other_eur"][0]) == (0, 100.0, 0)
    assert found["requests"][-1] == 3 * requests
    for count, own, other in zip(*found.values(), strict=True):
        assert (other >= own) == (count >= requests)
    never = curve(100.0, 0.001, 0.003)
    assert all(own > other for own, other in zip(never["own_eur"], never["other_eur"], strict=True))
