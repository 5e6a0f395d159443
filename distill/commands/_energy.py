"""Electricity and CO2e of the teacher's answers: estimated, never measured here.

Writing: the published regression of EcoLogits (fitted on H100 servers, bfloat16, 64 requests at once). For a token
written a card takes A exp(B batch) P_active + C Wh; the server around eight cards, 1.2 kW for the token's latency.
Reading is not in that regression: 2 P_active FLOP per token at MFU of an H100's peak. Both times PUE.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from distill import catalog
from distill.commands._training import HOST_W, MFU, POWER_SHARE, PUE
from distill.gates import expand

if TYPE_CHECKING:
    from distill.catalog.route import Route
    from distill.commands._tokens import Tokens
    from distill.commands._training import Size

BATCH = 64
WH_A, WH_B, WH_C = 1.1665e-6, -0.011206, 4.0529e-5  # Wh per token and card; P_active in 10^9 parameters
S_A, S_B, S_C = 6.785e-4, 3.119e-4, 0.01947  # seconds per token
CARD_BYTES, CARDS, SERVER_W = 80e9, 8, 1200
H100_FLOPS, H100_W = 989e12, 700
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


def kwh_per_mtok_written(active_b: float, total_b: float) -> float:
    """kWh for a million tokens written. ``active_b``, ``total_b``: 10^9 parameters in bfloat16."""
    cards = 2 ** math.ceil(math.log2(math.ceil(1.2 * total_b * 1e9 * 2 / CARD_BYTES)))
    card = WH_A * math.exp(WH_B * BATCH) * active_b + WH_C
    latency = S_A * active_b + S_B * BATCH + S_C
    server = SERVER_W * latency / 3600 * cards / CARDS / BATCH
    return PUE * (server + cards * card) * 1e6 / 1000


def kwh_per_mtok_read(active_b: float) -> float:
    """kWh for a million tokens read."""
    seconds = 2 * active_b * 1e9 * 1e6 / (H100_FLOPS * MFU)
    return PUE * seconds * (POWER_SHARE * H100_W + HOST_W) / 3.6e6


def answers(tokens: Tokens, size: Size | None, route: Route, zone: str) -> dict[str, Any]:
    """kWh (expected, at most) and g CO2e (least, most: over the grids it may run on); None = the size is not known."""
    zones = where(route, zone)
    grids = [row for row in catalog.grid() if row.zone in zones]
    if size is None:
        return {"kwh": None, "kwh_most": None, "g_co2e": None, "zones": sorted(zones), "how": "size not known"}
    write, read = kwh_per_mtok_written(size.active / 1e9, size.params / 1e9), kwh_per_mtok_read(size.active / 1e9)
    expected, most = ((read * tokens.prompt[n] + write * tokens.completion[n]) / 1e6 for n in (1, 2))
    found = [expected * row.g_per_kwh for row in grids]
    return {
        "kwh": expected,
        "kwh_most": most,
        "g_co2e": [min(found), max(found)] if found else None,
        "zones": sorted(zones),
        "how": f"estimated: EcoLogits' regression for {size.active / 1e9:.3g}B active of {size.params / 1e9:.3g}B "
        f"parameters on H100 servers, plus reading at {MFU:.0%} of the peak, PUE {PUE:g}",
    }


def where(route: Route, zone: str) -> set[str]:
    """Zones of the grid that answers may come from: one's own for one's own machines, the world's when not known."""
    if route.kind != "api":
        return {zone}
    countries = expand(route.provider.regions) if route.provider else frozenset()
    return {ZONES.get(country, "WOR") for country in countries} or {"WOR"}
