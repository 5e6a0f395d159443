"""Money is exact: integers, dated, never zero when unknown, never below what the bill can be."""

from __future__ import annotations

import datetime
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill import catalog, costs
from distill.catalog.rows import ModelRates, PriceSheet
from distill.costs import Price, StatedPrice, Tier
from distill.errors import ConfigError
from distill.records import Message, Request, Sampling, Usage

DAY = datetime.date(2026, 11, 23)


def price(
    input_: str, output: str, cached: str | None = None, currency: str = "EUR", discount: str | None = None
) -> Price:
    return costs.from_stated(
        StatedPrice(input=input_, output=output, cached=cached, currency=currency, batch_discount=discount, as_of=DAY)
    )


def in_eur(nano: int) -> Decimal:
    return Decimal(nano) / costs.NANO


# -- the worked tables: 1500 tokens in, 300 out, 1000 requests ----------------------------------------------------

TABLE = [  # input, output, cached, per 1000 requests, with 60 % of the input cached, in batch
    ("opus 5.5", "4", "20", "0.2", "12.00", "8.58", "6.00"),
    ("sonnet 5.5", "2", "10", "0.1", "6.00", "4.29", "3.00"),
    ("mistral large 4", "0.70", "2.10", "0.07", "1.68", "1.11", "0.84"),
    ("mistral large 3", "0.5", "1.5", "0.05", "1.20", "0.80", "0.60"),
    ("mistral small 4", "0.15", "0.60", "0.015", "0.405", "0.28", "0.20"),
    ("luna", "0.10", "0.50", "0.01", "0.30", "0.22", "0.15"),
]


@pytest.mark.parametrize(("name", "input_", "output", "cached", "plain", "with_cache", "batch"), TABLE)
def test_a_thousand_requests_cost_what_the_worked_table_says(name, input_, output, cached, plain, with_cache, batch):
    listed = price(input_, output, cached, discount="0.5")
    thousand = 1000 * costs.cost_nano(Usage(1500, 300), listed)
    assert in_eur(thousand) == Decimal(plain)
    cents = Decimal("0.01")
    assert in_eur(1000 * costs.cost_nano(Usage(1500, 300, cached=900), listed)).quantize(cents) == Decimal(with_cache)
    assert abs(in_eur(1000 * costs.cost_nano(Usage(1500, 300), listed, batch=True)) - Decimal(batch)) <= Decimal(
        "0.003"
    )


NOON = datetime.datetime(2026, 11, 23, 12, tzinfo=datetime.UTC)  # off-peak everywhere


@pytest.mark.parametrize(
    ("provider_id", "model", "plain", "with_cache"),
    [
        ("anthropic", "claude-opus-5-5", "12.00", "8.58"),
        ("anthropic", "claude-sonnet-5-5", "6.00", "4.29"),
        ("openai", "gpt-6.1-sol", "6.00", "4.29"),
        ("mistral", "mistral-large-4", "1.68", "1.11"),
        ("deepseek", "deepseek-v4-pro", "1.58", "1.01"),
        ("mistral", "mistral-large-2512", "1.20", "0.80"),
        ("mistral", "mistral-small-2603", "0.405", "0.28"),
        ("deepseek", "deepseek-flash", "0.405", "0.27"),
        ("openai", "gpt-6-luna", "0.30", "0.22"),
        ("anthropic", "claude-haiku-5-5", "0.30", "0.22"),
        ("ovhcloud", "Qwen3-32B", "0.21", None),
    ],
)
def test_the_catalogues_own_prices_give_the_worked_table_in_dollars(provider_id, model, plain, with_cache):
    row = costs.find_price(provider_id, model)
    assert row is not None
    listed = costs.from_row(row, DAY)
    for cached, shown in ((0, plain), (900, with_cache)):
        if shown is not None:
            thousand = in_eur(1000 * costs.cost_nano(Usage(1500, 300, cached=cached), listed, at=NOON))
            assert (thousand * Decimal(listed.per_eur)).quantize(Decimal(shown)) == Decimal(shown)


@pytest.mark.parametrize(
    ("per_thousand", "requests", "last_digit"),
    [
        (12.00, 75e3, 1e3),
        (6.00, 149e3, 1e3),
        (1.68, 533e3, 1e3),
        (1.584, 565e3, 1e3),
        (1.20, 746e3, 1e3),
        (0.405, 2.2e6, 1e5),
        (0.30, 3.0e6, 1e5),
        (0.21, 4.3e6, 1e5),
    ],
)
def test_the_break_even_volume_is_that_of_the_worked_table_to_its_last_digit(per_thousand, requests, last_digit):
    fixed = 1.09 * costs.HOURS_PER_MONTH  # one card at 1.09 per hour, always on
    assert round(fixed) == 796
    found = costs.break_even_requests(fixed, 1200, 12, per_thousand / 1000)
    assert found is not None
    assert round(found / last_digit) == round(requests / last_digit)


@pytest.mark.parametrize(
    ("api", "cards", "hourly", "student", "month"),
    [
        (400, 1, 0.79, 1377, None),  # 100M in, 20M out per month: the student costs more than the API
        (8000, 2, 0.79, 1953, 6),
        (400, 2, 0.79, 1953, None),
        (30000, 2, 1.47, 2946, 2),
        (11200, 2, 1.47, 2946, 5),
    ],
)
def test_the_break_even_month_is_that_of_the_worked_examples(api, cards, hourly, student, month):
    monthly = 800 + cards * hourly * costs.HOURS_PER_MONTH
    assert round(monthly) == student
    assert costs.break_even_month(35_000, api - monthly) == month


def test_a_student_that_costs_as_much_per_request_never_pays():
    assert costs.break_even_requests(100, 1200, 12, 0.001, 0.001) is None
    assert costs.break_even_month(1200, 0) is None


# -- exactness and bounds ----------------------------------------------------------------------------------------


def test_a_dollar_price_is_converted_at_its_dated_rate():
    converted = price("1.1172", "11.172", currency="USD")
    assert (converted.input, converted.output) == (costs.NANO, 10 * costs.NANO)
    assert (converted.per_eur, str(converted.fx_as_of)) == ("1.1172", "2026-10-30")


def test_a_currency_without_a_rate_is_one_clear_line():
    with pytest.raises(ConfigError, match="no exchange rate for XAU"):
        price("1", "1", currency="XAU")


def test_cached_tokens_are_not_counted_twice():
    listed = price("1", "0", cached="0.1")
    assert costs.cost_nano(Usage(1_000_000, 0, cached=1_000_000), listed) == costs.NANO // 10
    assert costs.cost_nano(Usage(1_000_000, 0), listed) == costs.NANO


def test_without_a_cached_price_cached_tokens_cost_like_the_others():
    assert costs.cost_nano(Usage(1000, 0, cached=1000), price("1", "0")) == costs.cost_nano(
        Usage(1000, 0), price("1", "0")
    )


def test_the_tier_is_chosen_by_the_requests_own_input():
    listed = replace(price("1", "5"), tiers=(Tier(272_000, 2 * costs.NANO, 2 * costs.NANO, 7 * costs.NANO),))
    assert costs.cost_nano(Usage(272_000, 0), listed) == 272_000_000
    assert costs.cost_nano(Usage(272_001, 0), listed) == 544_002_000


def day_tariff() -> Price:
    """1 in, 4 out; from 1 to 4 and from 6 to 10 UTC the double."""
    sheet = PriceSheet.model_validate(
        {"provider": "x", "currency": "EUR", "as_of": DAY, "source": "s", "models": {"m": {
            "input": 1, "output": 4, "cached": 0.1, "hours": [
                {"from_utc": 1, "to_utc": 4, "input": 2, "output": 8, "cached": 0.2},
                {"from_utc": 6, "to_utc": 10, "input": 2, "output": 8, "cached": 0.2}]}}}
    )  # fmt: skip
    return costs.from_row(sheet.rows()[0])


@pytest.mark.parametrize(("hour", "eur"), [(0, 5), (1, 10), (3, 10), (4, 5), (6, 10), (9, 10), (10, 5), (23, 5)])
def test_a_tariff_of_the_day_is_billed_at_the_hour_of_the_answer(hour, eur):
    at = datetime.datetime(2026, 11, 23, hour, 30, tzinfo=datetime.UTC)
    assert in_eur(costs.cost_nano(Usage(10**6, 10**6), day_tariff(), at=at)) == eur
    paris = at.astimezone(datetime.timezone(datetime.timedelta(hours=1)))
    assert in_eur(costs.cost_nano(Usage(10**6, 10**6), day_tariff(), at=paris)) == eur


def test_without_an_hour_the_dearest_one_is_billed_and_reserved_and_an_estimate_takes_the_mean():
    assert in_eur(costs.cost_nano(Usage(10**6, 10**6), day_tariff())) == 10
    request = Request((Message("user", "x"),), Sampling(max_new_tokens=10**6))
    assert costs.worst_case_nano(request, day_tariff()) >= 8 * costs.NANO
    assert costs.mean_cost_eur(day_tariff(), 10**6, 10**6) == pytest.approx(5 * (17 + 2 * 7) / 24)


def test_a_regional_endpoint_charges_the_same_list_times_its_surcharge():
    sheet = PriceSheet.model_validate(
        {"provider": "x", "also": {"x-eu": "1.1"}, "currency": "EUR", "as_of": DAY, "source": "s", "models": {"m": {
            "input": 1, "output": 4, "tiers": [{"above_tokens": 9, "input": 2, "output": 8}]}}}
    )  # fmt: skip
    here, eu = (costs.from_row(row) for row in sheet.rows())
    for usage in (Usage(5, 5), Usage(50, 5)):
        assert costs.cost_nano(usage, eu) == pytest.approx(1.1 * costs.cost_nano(usage, here), rel=1e-4)


@pytest.mark.parametrize(
    "rates",
    [{"hours": [{"from_utc": 4, "to_utc": 1, "input": 1, "output": 1}]},
     {"hours": [{"from_utc": 0, "to_utc": 25, "input": 1, "output": 1}]},
     {"hours": [{"from_utc": 0, "to_utc": 1, "input": 1, "output": 1}],
      "tiers": [{"above_tokens": 9, "input": 2, "output": 8}]}],
)  # fmt: skip
def test_a_tariff_that_makes_no_sense_is_refused(rates):
    with pytest.raises(ValueError, match=r"from_utc|to_utc|only one of"):
        ModelRates.model_validate({"input": 1, "output": 1, **rates})


def test_a_fraction_of_a_nano_is_rounded_up():
    assert costs.cost_nano(Usage(1, 0), price("0.0000001", "0")) == 1


@given(
    st.lists(st.text(max_size=60), min_size=1, max_size=4),
    st.integers(1, 4000),
    st.integers(0, 50),
    st.integers(0, 50),
    st.booleans(),
)
def test_no_bill_of_a_request_is_above_its_worst_case(texts, longest, rate_in, rate_out, batch):
    listed = price(str(rate_in / 10), str(rate_out / 10), cached=str(rate_in / 100), discount="0.5")
    listed = replace(listed, tiers=(Tier(100, 3 * listed.input, 3 * listed.cached, 2 * listed.output),))
    request = Request(tuple(Message("user", text) for text in texts), Sampling(max_new_tokens=longest))
    bound = costs.prompt_tokens_bound(request)
    assert bound > sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    worst = costs.worst_case_nano(request, listed, batch=batch)
    for prompt in {0, 1, bound // 2, 100, 101, bound}:
        if prompt <= bound:
            assert costs.cost_nano(Usage(prompt, longest), listed, batch=batch) <= worst


# -- where a price comes from ------------------------------------------------------------------------------------


def provider(model: str, base_url: str = "", stated: StatedPrice | None = None) -> SimpleNamespace:
    return SimpleNamespace(kind="openai", model=model, base_url=base_url, price=stated)


def test_the_catalogue_knows_the_price_of_a_model_at_its_provider():
    found = costs.price_of(provider("mistral-large-4", "https://api.mistral.ai/v1"))
    assert found is not None
    assert found.amounts == ("0.7", "0.07", "2.1")
    assert found.currency == "USD"
    assert found.batch_discount == 0.5
    assert found.input == costs.to_nano(Decimal("0.7"), Decimal("1.1172")) == 626_566_417


def test_a_stated_price_wins():
    stated = StatedPrice(input=9, output=9, as_of=DAY)
    found = costs.price_of(provider("mistral-large-4", "https://api.mistral.ai/v1", stated))
    assert found is not None
    assert found.input == 9 * costs.NANO


@pytest.mark.parametrize(
    ("model", "url"),
    [("mistral-large-99", "https://api.mistral.ai/v1"), ("mistral-large-4", "https://api.example.com/v1")],
)
def test_an_unknown_price_is_none_and_never_zero(model, url):
    assert costs.price_of(provider(model, url)) is None
    assert costs.costs_tokens(provider(model, url))


@pytest.mark.parametrize("url", ["", "http://localhost:8000/v1", "http://10.0.0.7:8000/v1", "http://gpu-box:8000/v1"])
def test_an_engine_of_ones_own_has_no_token_price(url):
    assert costs.price_of(provider("mistral-large-4", url)) is None
    assert not costs.costs_tokens(provider("mistral-large-4", url))


def test_an_announced_price_holds_from_its_day():
    row = costs.find_price("google", "gemini-4-argon")
    assert row is not None
    before, after = (costs.from_row(row, datetime.date(2026, month, 1)) for month in (11, 12))
    assert (before.amounts[2], after.amounts[2]) == ("10", "20")


@pytest.mark.parametrize("row", catalog.prices(), ids=lambda row: f"{row.provider}/{row.model}")
def test_every_price_of_the_catalogue_can_be_used(row):
    found = costs.from_row(row, DAY)
    assert found.output >= found.cached >= 0
    assert found.cached <= found.input
    assert found.source
    assert isinstance(found.input, int)


def test_a_sheet_gives_its_date_and_source_to_each_row():
    sheet = PriceSheet.model_validate(
        {"provider": "x", "currency": "EUR", "as_of": DAY, "source": "s", "models": {"m": {"input": 1, "output": 2}}}
    )
    (row,) = sheet.rows()
    assert (row.as_of, row.source, row.rates.output) == (DAY, "s", 2)
