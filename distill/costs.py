"""Tokens and hours as money. Integers: nano-EUR (10^-9 EUR); a rate is nano-EUR per million tokens.

An unknown price is None, never 0. A price is dated and keeps its original currency, amounts and exchange rate.
"""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from distill import catalog
from distill.catalog.route import route_of
from distill.errors import ConfigError

if TYPE_CHECKING:
    from distill.catalog.rows import PriceRow, Rates
    from distill.records import Request, Usage

NANO = 10**9
MTOK = 10**6
# A chat template wraps each turn in a few special tokens and may add a system text of its own.
TOKENS_PER_MESSAGE = 16
TOKENS_PER_REQUEST = 64


@dataclass(frozen=True)
class Tier:
    """Rates (nano-EUR per million tokens) of a request with more than ``above_tokens`` input tokens."""

    above_tokens: int
    input: int
    cached: int
    output: int


@dataclass(frozen=True)
class Hours:
    """Rates (nano-EUR per million tokens) from one hour of the day to another, UTC."""

    from_utc: int
    to_utc: int
    input: int
    cached: int
    output: int


@dataclass(frozen=True)
class Price:
    """A dated price. ``input``, ``cached`` and ``output`` are nano-EUR per million tokens."""

    input: int
    cached: int
    output: int
    currency: str
    amounts: tuple[str, str, str]
    """Input, cached and output per million tokens in ``currency``, as the source prints them."""
    per_eur: str
    """Units of ``currency`` for one euro."""
    fx_as_of: datetime.date | None
    source: str
    as_of: datetime.date
    batch_discount: float | None = None
    """Share taken off for batch processing; None = no batch offer known."""
    tiers: tuple[Tier, ...] = ()
    hours: tuple[Hours, ...] = ()
    """Parts of the day with other rates than the above."""
    verified: bool = True
    note: str = ""

    def rates(self, prompt_tokens: int, at: datetime.datetime | None = None) -> Tier:
        """The rates of a request with this many input tokens; ``at`` None: at the dearest hour of the day."""
        reached = [tier for tier in self.tiers if prompt_tokens > tier.above_tokens]
        if reached:
            return max(reached, key=lambda tier: tier.above_tokens)
        day = [Tier(0, rate.input, rate.cached, rate.output) for rate in self.hours]
        own = Tier(0, self.input, self.cached, self.output)
        if at is None:
            return max([own, *day], key=lambda rate: (rate.output, rate.input))
        hour = at.astimezone(datetime.UTC).hour
        return next((t for t, h in zip(day, self.hours, strict=True) if h.from_utc <= hour < h.to_utc), own)

    def __str__(self) -> str:
        rate = "" if self.currency == "EUR" else f", 1 EUR = {self.per_eur} {self.currency} on {self.fx_as_of}"
        return f"{self.amounts[0]} in, {self.amounts[2]} out {self.currency} per 1M tokens ({self.as_of}{rate})"


class StatedPrice(BaseModel):
    """A price that the user states, per million tokens. It wins over the catalogue."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    input: Annotated[Decimal, Field(ge=0)]
    """Input tokens, per million."""
    output: Annotated[Decimal, Field(ge=0)]
    """Output tokens, reasoning included, per million."""
    cached: Annotated[Decimal, Field(ge=0)] | None = None
    """Cached input tokens, per million. Default: like other input tokens."""
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] = "EUR"
    """Currency of the amounts. Others than EUR are converted at the catalogue's dated rate."""
    batch_discount: Annotated[Decimal, Field(ge=0, lt=1)] | None = None
    """Share taken off for batch processing."""
    as_of: datetime.date
    """The day it was read."""
    source: str = "stated in the configuration"
    """Where it was read."""


def cost_nano(usage: Usage, price: Price, *, batch: bool = False, at: datetime.datetime | None = None) -> int:
    """Cost of one answer in nano-EUR, rounded up. Cached tokens are part of the prompt and not counted twice.

    ``at``: when it was answered, for a tariff that changes over the day; None = at the dearest hour.
    """
    rates = price.rates(usage.prompt, at)
    cached = min(usage.cached, usage.prompt)
    total = (usage.prompt - cached) * rates.input + cached * rates.cached + usage.completion * rates.output
    return _ceil(total, price, batch)


def mean_cost_eur(price: Price, prompt_tokens: float, completion_tokens: float) -> float:
    """EUR of a request of average length, asked at any hour: for estimates, never for a bill."""
    tokens = round(prompt_tokens)
    moments = [
        datetime.datetime(2000, 1, 1, hour, tzinfo=datetime.UTC) for hour in (range(24) if price.hours else (0,))
    ]
    day = [price.rates(tokens, moment) for moment in moments]
    nano = sum(prompt_tokens * rates.input + completion_tokens * rates.output for rates in day) / len(day)
    return nano / MTOK / NANO


def worst_case_nano(request: Request, price: Price, *, batch: bool = False) -> int:
    """The most that one request can cost, in nano-EUR: what a budget reserves before the call."""
    prompt = prompt_tokens_bound(request)
    reachable = [price.rates(0), *(tier for tier in price.tiers if prompt > tier.above_tokens)]
    rate_in = max(max(tier.input, tier.cached) for tier in reachable)
    rate_out = max(tier.output for tier in reachable)
    return _ceil(prompt * rate_in + request.sampling.max_new_tokens * rate_out, price, batch)


def prompt_tokens_bound(request: Request) -> int:
    """No tokenizer makes more input tokens of this request: at least one UTF-8 byte per token, plus the template."""
    text = sum(len(message.content.encode("utf-8", "surrogatepass")) for message in request.messages)
    return text + TOKENS_PER_MESSAGE * len(request.messages) + TOKENS_PER_REQUEST


def _ceil(nano_per_mtok: int, price: Price, batch: bool) -> int:
    if batch and price.batch_discount:
        kept = 1 - Decimal(str(price.batch_discount))
        nano_per_mtok = int((nano_per_mtok * kept).to_integral_value(ROUND_CEILING))
    return -(-nano_per_mtok // MTOK)


def price_of(provider_config: Any) -> Price | None:
    """The price of a provider's settings: its own `price`, else the catalogue's; None when neither knows.

    An engine in this process or in one's own network has no token price: None too (see ``costs_tokens``).
    """
    stated = getattr(provider_config, "price", None)
    if isinstance(stated, StatedPrice):
        return from_stated(stated)
    route = route_of(provider_config)
    if route.kind != "api" or route.provider is None:
        return None
    row = find_price(route.provider.id, route.model)
    return from_row(row) if row else None


def costs_tokens(provider_config: Any) -> bool:
    """True when somebody else's endpoint is asked, so that tokens are billed."""
    return route_of(provider_config).kind == "api"


def find_price(provider: str, model: str) -> PriceRow | None:
    """The catalogue's row for a model at a provider, by exact name or alias without regard to case."""
    wanted = model.casefold()
    rows = (row for row in catalog.prices() if row.provider == provider)
    return next((r for r in rows if wanted in {n.casefold() for n in (r.model, *r.rates.aliases)}), None)


def from_row(row: PriceRow, day: datetime.date | None = None) -> Price:
    """A catalogue row as a Price on ``day`` (default: today), announced changes included."""
    day = day or catalog.today()
    due = [later for later in row.rates.later if later.from_ <= day]
    rates: Rates = max(due, key=lambda later: later.from_) if due else row.rates
    return _price(rates, row.currency, row.source, row.as_of, row.rates.batch_discount, row)


def from_stated(stated: StatedPrice) -> Price:
    """A stated price as a Price."""
    return _price(stated, stated.currency, stated.source, stated.as_of, stated.batch_discount, None)


def _price(
    rates: Rates | StatedPrice,
    currency: str,
    source: str,
    as_of: datetime.date,
    discount: Decimal | None,
    row: PriceRow | None,
) -> Price:
    per_eur, fx_as_of = exchange_rate(currency)
    cached = rates.input if rates.cached is None else rates.cached

    def nano(step: Rates) -> tuple[int, int, int]:
        return (
            to_nano(step.input, per_eur),
            to_nano(step.input if step.cached is None else step.cached, per_eur),
            to_nano(step.output, per_eur),
        )

    steps = None if row is None else row.rates
    return Price(
        input=to_nano(rates.input, per_eur),
        cached=to_nano(cached, per_eur),
        output=to_nano(rates.output, per_eur),
        currency=currency,
        amounts=(_plain(rates.input), _plain(cached), _plain(rates.output)),
        per_eur=_plain(per_eur),
        fx_as_of=fx_as_of,
        source=source,
        as_of=as_of,
        batch_discount=None if discount is None else float(discount),
        tiers=tuple(Tier(tier.above_tokens, *nano(tier)) for tier in steps.tiers) if steps else (),
        hours=tuple(Hours(part.from_utc, part.to_utc, *nano(part)) for part in steps.hours) if steps else (),
        verified=True if row is None else row.verified,
        note="" if row is None else row.note,
    )


def exchange_rate(currency: str) -> tuple[Decimal, datetime.date | None]:
    """(units of ``currency`` for one euro, the day of the rate). Raises ConfigError for an unknown currency."""
    if currency == "EUR":
        return Decimal(1), None
    fx = catalog.fx()
    if currency not in fx.per_eur:
        raise ConfigError(
            f"no exchange rate for {currency}",
            where="catalogue",
            next=f"state the price in one of {', '.join(fx.per_eur)}, or give `fx` in {catalog.USER_FILE}",
        )
    return fx.per_eur[currency], fx.as_of


def to_nano(amount: Decimal, per_eur: Decimal) -> int:
    """An amount in a currency as nano-EUR, rounded up."""
    return int((amount * NANO / per_eur).to_integral_value(ROUND_CEILING))


def eur(nano: int) -> float:
    """Nano-EUR as EUR, for display."""
    return nano / NANO


def _plain(value: Decimal) -> str:
    return format(value.normalize(), "f")


# -- a machine of one's own -------------------------------------------------------------------------------------


HOURS_PER_MONTH = 730


def break_even_requests(
    fixed_eur_per_month: float,
    one_off_eur: float,
    months: int,
    api_eur_per_request: float,
    student_eur_per_request: float = 0.0,
) -> float | None:
    """Requests per month from which the student is cheaper, its one-off cost spread over ``months``.

    None = never: each request costs no less than the API's.
    """
    saved = api_eur_per_request - student_eur_per_request
    return (fixed_eur_per_month + one_off_eur / months) / saved if saved > 0 else None


def break_even_month(one_off_eur: float, saving_eur_per_month: float) -> int | None:
    """First month whose accumulated saving covers the one-off cost; None = never."""
    if saving_eur_per_month <= 0:
        return None
    return max(1, math.ceil(one_off_eur / saving_eur_per_month - 1e-9))
