"""Electricity and CO2e of the teacher's answers: estimated before they are asked, by the formulas of distill.energy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distill import catalog
from distill.energy import MFU, PUE, kwh_per_mtok_read, kwh_per_mtok_written, zones_of
from distill.gates import expand

if TYPE_CHECKING:
    from distill.catalog.route import Route
    from distill.commands._tokens import Tokens
    from distill.commands._training import Size


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
    return zones_of(expand(route.provider.regions) if route.provider else ())
