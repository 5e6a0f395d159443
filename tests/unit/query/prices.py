"""A made-up price for tests: 1 EUR per million input tokens, 3 per million output tokens."""

import datetime

from distill.costs import Price

PRICE = Price(
    input=1_000_000_000,
    cached=500_000_000,
    output=3_000_000_000,
    currency="EUR",
    amounts=("1", "0.5", "3"),
    per_eur="1",
    fx_as_of=None,
    source="test",
    as_of=datetime.date(2026, 1, 1),
)
