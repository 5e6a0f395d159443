"""The types of the catalogue's rows. Every row is a dated claim: ``source`` and ``as_of`` are not optional."""

from __future__ import annotations

import datetime
import fnmatch
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

# From best to worst: the strictest of several verdicts is the last one in this order.
Verdict = Literal["allowed", "allowed_with_obligations", "restricted", "unknown", "prohibited"]
Use = Literal["commercial", "internal", "research"]
Money = Annotated[Decimal, Field(ge=0)]


class Row(BaseModel):
    """A dated, sourced fact."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    source: str
    """Where it was read."""
    as_of: datetime.date
    """The day it was true, according to the source."""
    verified: bool = True
    """False: from memory, or from a source that leaves a doubt. Check before relying on it."""
    note: str = ""
    """What a reader must know."""


class LicenceRow(Row):
    """What a licence of weights, or the terms of an API, allow."""

    id: str
    """Short name, for example `apache-2.0` or `mistral-api`."""
    kind: Literal["weights", "terms"]
    """`weights`: a licence of weights. `terms`: terms of a service."""
    verdict: Verdict
    """May the outputs train a student that is sold?"""
    verdicts: dict[Use, Verdict] = Field(default_factory=dict)
    """Other verdicts for other uses."""
    base_verdict: Verdict | None = None
    """May the weights be the base of a student? Default: like `verdict`."""
    models: tuple[str, ...] = ()
    """Ids it covers, with `*`; the longest pattern that fits a model decides."""
    not_models: tuple[str, ...] = ()
    """Ids that the patterns above would catch but that have another licence."""
    obligations: tuple[str, ...] = ()
    """Codes of what must be done (see OBLIGATIONS)."""
    clause: str = ""
    """Where in the text."""
    unblock: str = ""
    """What would make it allowed."""

    def key(self) -> str:
        """What a user's row replaces."""
        return self.id

    def fit(self, model: str) -> int:
        """Length of the longest pattern that covers ``model`` (without regard to case); 0 when none does."""
        name = model.casefold()
        if any(fnmatch.fnmatchcase(name, pattern.casefold()) for pattern in self.not_models):
            return 0
        return max((len(p) for p in self.models if fnmatch.fnmatchcase(name, p.casefold())), default=0)

    def for_use(self, use: Use, *, base: bool = False) -> Verdict:
        """The verdict for a use; ``base``: as the base of the student, not as the teacher."""
        if use in self.verdicts:
            return self.verdicts[use]
        return self.base_verdict if base and self.base_verdict else self.verdict


class Rates(BaseModel):
    """Amounts per million tokens, in the sheet's currency."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    input: Money
    output: Money
    cached: Money | None = None
    """A cached input token; default: like any other."""


class TierRates(Rates):
    """Rates of a request whose input is longer than a limit."""

    above_tokens: Annotated[int, Field(ge=1)]


class LaterRates(Rates):
    """Announced rates."""

    from_: datetime.date = Field(alias="from")


class HourRates(Rates):
    """Rates of a part of the day, UTC. The others are the model's own."""

    from_utc: Annotated[int, Field(ge=0, le=23)]
    to_utc: Annotated[int, Field(ge=1, le=24)]

    @model_validator(mode="after")
    def _in_order(self) -> HourRates:
        if self.from_utc >= self.to_utc:
            raise ValueError("from_utc comes before to_utc; split hours that pass midnight in two")
        return self


class ModelRates(Rates):
    """Rates of one model on a sheet."""

    batch_discount: Annotated[Decimal, Field(ge=0, lt=1)] | None = None
    """Share taken off for batch processing; None = no batch offer known."""
    tiers: tuple[TierRates, ...] = ()
    hours: tuple[HourRates, ...] = ()
    later: tuple[LaterRates, ...] = ()
    aliases: tuple[str, ...] = ()
    note: str = ""

    @model_validator(mode="after")
    def _one_kind_of_step(self) -> ModelRates:
        if sum(map(bool, (self.tiers, self.hours, self.later))) > 1:
            raise ValueError("only one of tiers, hours and later: give the dearer rates")
        return self

    def times(self, factor: Decimal) -> ModelRates:
        """The same list, dearer or cheaper by a factor."""

        def scaled(rates: Rates) -> dict[str, Any]:
            amounts = {"input": rates.input * factor, "output": rates.output * factor}
            return amounts | ({} if rates.cached is None else {"cached": rates.cached * factor})

        steps = {
            name: tuple(step.model_copy(update=scaled(step)) for step in getattr(self, name))
            for name in ("tiers", "hours", "later")
        }
        return self.model_copy(update=scaled(self) | steps)


class PriceRow(Row):
    """The price of one model at one provider."""

    provider: str
    model: str
    currency: str
    rates: ModelRates


class PriceSheet(Row):
    """Prices of one provider, read on one day."""

    provider: str
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")]
    also: dict[str, Annotated[Decimal, Field(gt=0)]] = Field(default_factory=dict)
    """Other providers with the same list, and by what it is multiplied: a regional endpoint at a surcharge."""
    models: dict[str, ModelRates]

    def key(self) -> str:
        """What a user's sheet replaces: nothing, its rows come first."""
        return f"{self.provider} {self.source} {self.as_of}"

    def rows(self) -> list[PriceRow]:
        """One row for each provider and model."""
        return [
            PriceRow(
                provider=provider,
                model=model,
                currency=self.currency,
                rates=rates if factor == 1 else rates.times(factor),
                source=self.source,
                as_of=self.as_of,
                verified=self.verified,
                note=rates.note or self.note,
            )
            for provider, factor in {self.provider: Decimal(1), **self.also}.items()
            for model, rates in self.models.items()
        ]


class Fx(BaseModel):
    """Exchange rates of one day."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    per_eur: dict[str, Annotated[Decimal, Field(gt=0)]]
    """Units of the currency for one euro."""
    as_of: datetime.date
    source: str


class ProviderRow(Row):
    """An endpoint."""

    id: str
    name: str
    hosts: tuple[str, ...]
    """Host names, with `*`."""
    base_url: str = ""
    env: str = ""
    """Name of the environment variable that holds the key."""
    hq: str
    """Country of the company."""
    regions: tuple[str, ...]
    """Countries (ISO 3166-1 alpha-2), or `EU`, where data may be processed. Empty = not known."""
    terms: str = ""
    """Licence row of its own terms on outputs; empty = a host of others' models whose terms we have not read."""
    models: dict[str, str] = Field(default_factory=dict)
    """Its name of a model -> official id, where the two differ."""
    own_models: tuple[str, ...] = ()
    """Names of models that are its own: only `terms` decide."""
    top_logprobs: Literal["yes", "no", "unknown"] = "unknown"
    """Does it return log-probabilities of alternatives?"""
    batch: Literal["yes", "no", "unknown"] = "unknown"
    """Does it have a batch API?"""

    def key(self) -> str:
        """What a user's row replaces."""
        return self.id

    def serves(self, host: str) -> bool:
        """True when ``host`` is one of its host names."""
        return any(fnmatch.fnmatchcase(host.casefold(), pattern.casefold()) for pattern in self.hosts)


class ModelRow(Row):
    """A model: what it is, and where its weights come from."""

    name: str
    """Short name, usable as `student.model`."""
    id: str
    """Official id on the hub."""
    aliases: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    """Where the weights come from, tried in order (see distill.models). Default: the hub, at its newest commit."""
    licence: str
    """Id of a row of `licences`."""
    origin: str = ""
    params_b: Annotated[float, Field(gt=0)] | None = None
    """Parameters, in billions (10^9)."""
    active_b: Annotated[float, Field(gt=0)] | None = None
    """Parameters used for one token, when fewer (mixture of experts)."""
    layers: int | None = None
    hidden: int | None = None
    tokenizer: str = ""
    """Models with the same name here are believed to share a tokenizer; the run checks the real ones."""
    vocab: int | None = None
    context: int | None = None
    pretrain_tokens_t: Annotated[float, Field(gt=0)] | None = None
    """Tokens of pre-training, in 10^12."""
    languages: str = ""

    @model_validator(mode="after")
    def _default_source(self) -> ModelRow:
        if not self.sources:
            object.__setattr__(self, "sources", (f"hub:{self.id}@main",))
        return self

    def key(self) -> str:
        """What a user's row replaces."""
        return self.name


class HourPrice(Row):
    """What one accelerator costs per hour, on demand, without VAT."""

    provider: str
    sku: str = ""
    region: str = ""
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")]
    per_hour: Money


class GpuRow(Row):
    """An accelerator."""

    id: str
    memory_gb: Annotated[float, Field(gt=0)]
    """10^9 bytes."""
    tdp_w: Annotated[float, Field(gt=0)]
    bf16_tflops: Annotated[float, Field(gt=0)]
    """Dense bfloat16 peak, 10^12 operations per second."""
    bandwidth_gb_s: Annotated[float, Field(gt=0)]
    embodied_kg: float | None = None
    """Making and shipping it, kg CO2e."""
    prices: tuple[HourPrice, ...] = ()

    def key(self) -> str:
        """What a user's row replaces."""
        return self.id


class GridRow(Row):
    """Carbon intensity of a zone's electricity: location-based, life cycle."""

    zone: str
    """ISO 3166-1 alpha-3, or a bidding zone."""
    g_per_kwh: Annotated[float, Field(ge=0)]
    """g CO2e per kWh."""
    year: int | None
    """Year of the value; None = the source does not say."""

    def key(self) -> str:
        """What a user's row replaces."""
        return self.zone
