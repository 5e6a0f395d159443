"""The arithmetic of a quote: what it costs, what it saves a client, when it pays back, what could upset that."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from distill import costs
from distill.records import canonical_json

if TYPE_CHECKING:
    from distill.costs import Price

HORIZON_MONTHS = 24
FAILED_RUNS = 0.2  # share of training that is paid for and thrown away


@dataclass(frozen=True)
class Deal:
    """EUR, without VAT. ``one_off`` is what the studio spends; the client pays ``price``."""

    api_month: float
    """What the client pays the API per month today."""
    hosting_month: float
    maintenance_month: float
    coverage: float
    """Share of the requests that the student answers; the rest still goes to the API."""
    one_off: float
    margin: float
    """Share of the price that is not cost."""
    share: float
    """Share of the first twelve months' saving that the studio asks for."""

    @property
    def student_month(self) -> float:
        """What the client pays per month afterwards: machine, upkeep, and the API for the rest."""
        return self.hosting_month + self.maintenance_month + (1 - self.coverage) * self.api_month

    @property
    def saving_month(self) -> float:
        """Negative when the student costs more."""
        return self.api_month - self.student_month

    @property
    def cost_plus(self) -> float:
        """Cost with the margin."""
        return self.one_off / (1 - self.margin)

    @property
    def value_price(self) -> float:
        """The share of the first year's saving; 0 when there is none."""
        return max(0.0, self.share * 12 * self.saving_month)

    @property
    def price(self) -> float:
        """The larger of the two."""
        return max(self.cost_plus, self.value_price)

    @property
    def pays_back(self) -> int | None:
        """Month in which the savings have covered the price; None = never."""
        return costs.break_even_month(self.price, self.saving_month)


@dataclass(frozen=True)
class Scenario:
    """A deal after something has changed; the price quoted stays."""

    name: str
    saving_month: float
    pays_back: int | None


def scenarios(deal: Deal) -> list[Scenario]:
    """The base, and the shocks a client should know before signing."""
    changed = {
        "base": deal,
        "api_half": replace(deal, api_month=deal.api_month * 0.5),
        "tariff": replace(deal, api_month=deal.api_month * 1.25),
        "volume_half": replace(deal, api_month=deal.api_month * 0.5),
        "volume_double": replace(deal, api_month=deal.api_month * 2),
        "fallback": replace(deal, coverage=max(0.0, deal.coverage - 0.2)),
    }
    return [
        Scenario(name, other.saving_month, costs.break_even_month(deal.price, other.saving_month))
        for name, other in changed.items()
    ]


def finding(deal: Deal) -> str:
    """`distil`, `slow` (pays back after the horizon), or `never`."""
    if deal.pays_back is None:
        return "never"
    return "distil" if deal.pays_back <= HORIZON_MONTHS else "slow"


def cumulative(deal: Deal, months: int = HORIZON_MONTHS) -> tuple[list[float], list[float]]:
    """(EUR paid so far to the API, EUR paid so far with the student) for months 0..``months``."""
    return (
        [deal.api_month * month for month in range(months + 1)],
        [deal.price + deal.student_month * month for month in range(months + 1)],
    )


def snapshot(*prices: Price | None) -> str:
    """SHA-256 of the dated prices and rates that a quote rests on."""
    rows: list[dict[str, Any]] = [
        {key: str(value) for key, value in asdict(price).items()} for price in prices if price is not None
    ]
    return hashlib.sha256(canonical_json(rows)).hexdigest()
