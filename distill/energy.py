"""Electricity and CO2e that are not measured: formulas, each with its assumptions and its range. Pure.

Writing by a large server: the published regression of EcoLogits (H100 servers, bfloat16, up to 512 requests at once).
For a token written a card takes A exp(B batch) P_active + C Wh; the server around eight cards, 1.2 kW for the
token's latency. Reading is not in that regression: 2 P_active FLOP per token at MFU of an H100's peak.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from distill.catalog.rows import GpuRow

MFU = 0.35  # share of a GPU's peak that training and reading reach
POWER_SHARE = 0.75  # mean power of a card at work, as a share of its limit ...
POWER_SHARES = (0.3, 1.0)  # ... and where that may lie
HOST_W = 150  # the server around one GPU
PUE = 1.5  # of the data centre ...
BEST_PUE = 1.09  # ... and the least that EcoLogits 0.11.3 has for a provider
LIFE_H = 26_280  # three years: over which making a machine is spread

BATCH = 64
BATCHES = (256, 16)  # what a busy and an idle server answer at once
WH_A, WH_B, WH_C = 1.1665e-6, -0.011206, 4.0529e-5  # Wh per token and card; P_active in 10^9 parameters
S_A, S_B, S_C = 6.785e-4, 3.119e-4, 0.01947  # seconds per token
CARD_BYTES, CARDS, SERVER_W = 80e9, 8, 1200
H100_FLOPS, H100_W = 989e12, 700
CARD_KG, CARD_KG_MOST, SERVER_KG = 273, 575.1, 5700  # making: EcoLogits 0.11.3, boaviztapi 2.5.0, EcoLogits 0.11.3
# ISO 3166-1 alpha-2 -> zone of the grid table
ZONES = dict(
    zip(
        "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK "  # noqa: SIM905
        "CH GB IS NO US CN".split(),
        "AUT BEL BGR CYP CZE DEU DNK EST ESP FIN FRA GRC HRV HUN IRL ITA LTU LUX LVA MLT NLD POL PRT ROU SWE SVN SVK "  # noqa: SIM905
        "CHE GBR ISL NOR USA CHN".split(),
        strict=True,
    )
)
WORLD = "WOR"


@dataclass(frozen=True, slots=True)
class Range:
    """A figure, and the least and most it may be. What was measured is all three."""

    value: float
    low: float
    high: float

    def __mul__(self, factor: float) -> Range:
        return Range(self.value * factor, self.low * factor, self.high * factor)

    def times(self, other: Range) -> Range:
        """The product of two such figures, both positive."""
        return Range(self.value * other.value, self.low * other.low, self.high * other.high)

    def as_dict(self) -> dict[str, float]:
        """`value`, `low`, `high`."""
        return asdict(self)


def exactly(value: float) -> Range:
    """A figure without a range of its own."""
    return Range(value, value, value)


def cards_for(total_b: float) -> int:
    """H100 cards that hold ``total_b`` x 10^9 parameters in bfloat16, a fifth of room left: a power of two."""
    cards: int = 2 ** math.ceil(math.log2(math.ceil(1.2 * total_b * 1e9 * 2 / CARD_BYTES)))
    return cards


def seconds_per_token(active_b: float, batch: int) -> float:
    """Seconds that a server answering ``batch`` requests at once needs for a token of each."""
    return S_A * active_b + S_B * batch + S_C


def kwh_per_mtok_written(active_b: float, total_b: float, batch: int = BATCH, pue: float = PUE) -> float:
    """kWh for a million tokens written. ``active_b``, ``total_b``: 10^9 parameters in bfloat16."""
    cards = cards_for(total_b)
    card = WH_A * math.exp(WH_B * batch) * active_b + WH_C
    server = SERVER_W * seconds_per_token(active_b, batch) / 3600 * cards / CARDS / batch
    return pue * (server + cards * card) * 1e6 / 1000


def kwh_per_mtok_read(active_b: float, pue: float = PUE) -> float:
    """kWh for a million tokens read."""
    seconds = 2 * active_b * 1e9 * 1e6 / (H100_FLOPS * MFU)
    return pue * seconds * (POWER_SHARE * H100_W + HOST_W) / 3.6e6


def api_wh(active_b: float, total_b: float, prompt: float, completion: float) -> Range:
    """Wh of one request with so many tokens, on somebody's H100 servers.

    Least: 256 at once, the best data centre, reading free (as EcoLogits has it). Most: 16 at once, PUE 1.5.
    """
    read = kwh_per_mtok_read(active_b) * prompt
    least = kwh_per_mtok_written(active_b, total_b, BATCHES[0], BEST_PUE) * completion
    most = read + kwh_per_mtok_written(active_b, total_b, BATCHES[1]) * completion
    return Range(read + kwh_per_mtok_written(active_b, total_b) * completion, least, most) * (1e3 / 1e6)


def api_embodied_g(active_b: float, total_b: float, completion: float) -> Range:
    """g CO2e of making those servers that one request uses up: its share of three years."""

    def grams(card_kg: float, batch: int) -> float:
        kg = cards_for(total_b) * (SERVER_KG / CARDS + card_kg)
        return 1000 * kg * completion * seconds_per_token(active_b, batch) / (batch * LIFE_H * 3600)

    return Range(grams(CARD_KG, BATCH), grams(CARD_KG, BATCHES[0]), grams(CARD_KG_MOST, BATCHES[1]))


def cards_w(gpu: GpuRow, count: int) -> Range:
    """Watts of ``count`` cards at work with the server around them, from the card's limit."""
    shares = Range(POWER_SHARE, *POWER_SHARES)
    return Range(*(count * (share * gpu.tdp_w + HOST_W) for share in (shares.value, shares.low, shares.high)))


def cards_embodied_g(gpu: GpuRow, count: int, seconds: float) -> Range | None:
    """g CO2e of making ``count`` cards and their part of a server, for ``seconds`` of three years.

    Least: the card by another method, about half. None where the catalogue does not know the card's.
    """
    if gpu.embodied_kg is None:
        return None
    server, card = SERVER_KG / CARDS, gpu.embodied_kg
    kg = Range(server + 0.75 * card, server + 0.5 * card, server + card)
    return kg * (1000 * count * seconds / (LIFE_H * 3600))


def zones_of(countries: Iterable[str]) -> set[str]:
    """Zones of the grid table in which these countries lie; the world's when none is known."""
    return {ZONES.get(country, WORLD) for country in countries} or {WORLD}
