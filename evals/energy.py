"""Electricity and CO2e per 1,000 requests of every system: measured, estimated, or unknown, and always said which.

Measured: this machine's counters while the system answered. Estimated: a machine's stated or catalogued power over the
measured seconds, or for somebody else's servers the published regression of EcoLogits, with the range of its
assumptions. Unknown stays None. All figures are of the whole site: what the machine takes, times the PUE.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill import catalog, energy, gates
from distill.catalog.route import route_of
from distill.energy import Range, exactly
from evals.meter import is_here

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from distill.catalog.route import Route
    from distill.catalog.rows import GpuRow, GridRow
    from distill.config import Energy
    from distill.plugins import PluginConfig
    from evals.analysis import Arm
    from evals.load_report import Level
    from evals.meter import Meter, Spent

SHORT_S = 30.0  # below it the counters' own steps and chance matter
GRAMS = 1 / 1000  # g per kWh -> g per Wh


@dataclass(frozen=True)
class Figures:
    """One system, per 1,000 requests: Wh at the site, Wh above idle, g CO2e of making the machine."""

    how: str
    meter: str
    note: str
    wh: Range | None = None
    above: float | None = None
    idle_w: float | None = None
    embodied: Range | None = None


@dataclass(frozen=True)
class Work:
    """What the figures of a system are taken from."""

    requests: int
    seconds: float
    spent: Spent | None
    words: str


def statement(
    settings: Energy,
    arms: Sequence[Arm],
    systems: Mapping[str, PluginConfig],
    best: Mapping[str, Level],
    meter: Meter | None,
) -> dict[str, Any]:
    """`energy` of report.json. ``systems``: settings of the arms that are models. ``best``: their best load level."""
    home = [row for row in catalog.grid() if row.zone == settings.zone]
    return {
        "zone": settings.zone or None,
        "pue": settings.pue,
        "grid": {"g_per_kwh": home[0].g_per_kwh, "year": home[0].year, "source": home[0].source} if home else None,
        "arms": [_arm(settings, arm, systems.get(arm.name), best.get(arm.name), home, meter) for arm in arms],
    }


def _arm(
    settings: Energy,
    arm: Arm,
    system: PluginConfig | None,
    level: Level | None,
    home: Sequence[GridRow],
    meter: Meter | None,
) -> dict[str, Any]:
    route = route_of(system) if system is not None else None
    grids = home
    if route is not None and route.kind == "api":
        grids = _grids(route)
        found = _of_an_api(arm, route, [row.zone for row in grids])
    else:
        found = _of_a_machine(settings, _work(arm, level), system, meter)
    wh = found.wh
    return {
        "name": arm.name,
        "how": found.how,
        "meter": found.meter,
        "idle_w": found.idle_w,
        "wh_per_1000_requests": wh and wh.as_dict(),
        "above_idle_wh_per_1000_requests": found.above,
        "co2e_g_per_1000_requests": wh.times(_intensity(grids)).as_dict() if wh is not None and grids else None,
        "embodied_g_per_1000_requests": found.embodied and found.embodied.as_dict(),
        "note": found.note,
    }


def _intensity(grids: Sequence[GridRow]) -> Range:
    """g CO2e per Wh: the mean of the zones it may be, the cleanest, the dirtiest."""
    values = [row.g_per_kwh * GRAMS for row in grids]
    return Range(sum(values) / len(values), min(values), max(values))


def _work(arm: Arm, level: Level | None) -> Work | None:
    """What was metered before what was only timed; the best load level before the answers to the items."""
    found = []
    if level is not None:
        answered = sum(not t.error for t in level.timings)
        found.append(Work(answered, level.seconds, level.spent, f"at its best load, {level.concurrency} in flight"))
    if arm.spent is not None:
        found.append(Work(arm.spent.requests, arm.spent.seconds, arm.spent, "while it answered the items"))
    elif arm.speed is not None:
        found.append(Work(arm.speed.answers, arm.speed.seconds, None, "while it answered the items"))
    metered = [work for work in found if work.spent is not None and work.spent.wh_per_1000 is not None]
    return next(iter([*metered, *found]), None)


# -- a machine of one's own ------------------------------------------------------------------------------------


def _of_a_machine(settings: Energy, work: Work | None, system: PluginConfig | None, meter: Meter | None) -> Figures:
    if work is None or not work.requests or work.seconds <= 0:
        return Figures("unknown", "", "nothing of it was timed here")
    gpu = next((row for row in catalog.gpus() if row.id == settings.gpu), None)
    made = energy.cards_embodied_g(gpu, settings.gpus, 1000 * work.seconds / work.requests) if gpu else None
    if work.spent is not None and (wh := work.spent.wh_per_1000) is not None and meter is not None:
        return _measured(settings, work, work.spent, wh, meter, made)
    why = _why_not(system, meter)
    watts, source = _watts(settings, gpu, system)
    if watts is None:
        return Figures(
            "unknown", "", f"{why}; eval.energy.watts or eval.energy.gpu would allow an estimate", embodied=made
        )
    estimate = watts * (settings.pue * work.seconds / work.requests / 3.6)
    note = f"{why}; {source} over {work.seconds:.3g} s {work.words}, PUE {settings.pue:g}{_making(made)}"
    return Figures("estimated", "", note, estimate, embodied=made)


def _measured(settings: Energy, work: Work, spent: Spent, wh: float, meter: Meter, made: Range | None) -> Figures:
    above = spent.above_idle_wh_per_1000
    parts = [
        f"{work.requests} requests in {work.seconds:.3g} s, {work.words}; everything that ran on the machine is in it",
        f"PUE {settings.pue:g}",
    ]
    if work.seconds < SHORT_S:
        parts.append(f"under {SHORT_S:g} s: rough")
    parts += [f"not in it: {what}" for what in meter.counters.missing]
    return Figures(
        "measured",
        meter.counters.names,
        "; ".join(parts) + _making(made),
        exactly(wh * settings.pue),
        None if above is None else above * settings.pue,
        spent.idle_w,
        made,
    )


def _making(made: Range | None) -> str:
    if made is None:
        return ""
    return "; making the cards and their part of a server over three years (boaviztapi 2.5.0, EcoLogits 0.11.3)"


def _why_not(system: PluginConfig | None, meter: Meter | None) -> str:
    """Why there is no measurement."""
    if system is not None and not is_here(system):
        return "it runs on another machine"
    if system is None or meter is None or meter.counters.whole:
        return "it was not metered"
    return "; ".join(meter.counters.missing) or "this machine's counters cannot be read"


def _watts(settings: Energy, gpu: GpuRow | None, system: PluginConfig | None) -> tuple[Range | None, str]:
    """The power at work and where it comes from. Stated watts are of this machine only."""
    if settings.watts is not None and (system is None or is_here(system)):
        low, high = settings.watts
        return Range((low + high) / 2, low, high), f"{low:g} to {high:g} W as stated in eval.energy.watts"
    if gpu is not None:
        low, high = energy.POWER_SHARES
        return energy.cards_w(gpu, settings.gpus), (
            f"{settings.gpus} x {gpu.id} at {low:.0%} to {high:.0%} of its {gpu.tdp_w:g} W, {energy.HOST_W} W around "
            f"it ({gpu.source}, {gpu.as_of})"
        )
    return None, ""


# -- somebody else's servers -----------------------------------------------------------------------------------


def _grids(route: Route) -> list[GridRow]:
    """The grids that answers of an API may come from."""
    zones = energy.zones_of(gates.expand(route.provider.regions) if route.provider else ())
    return [row for row in catalog.grid() if row.zone in zones]


def _of_an_api(arm: Arm, route: Route, zones: Sequence[str]) -> Figures:
    """EcoLogits' range for the model's size and the tokens of this evaluation; unknown for a model of unknown size."""
    row = catalog.find_model(route.official_model)
    if row is None or row.params_b is None:
        return Figures("unknown", "", f"nobody says how large {route.official_model} is")
    tokens = [(s.prompt_tokens, s.completion_tokens) for s in arm.samples]
    known = [(p, c) for p, c in tokens if p is not None and c is not None]
    if not known or len(known) < len(tokens):
        return Figures("unknown", "", "the tokens of some answers are not known")
    prompt, completion = (sum(pair[n] for pair in known) / len(known) for n in (0, 1))
    total, active = row.params_b, row.active_b or row.params_b
    places = f"{', '.join(sorted(zones)[:4])}{' ...' if len(zones) > 4 else ''}"
    return Figures(
        "estimated",
        "",
        f"EcoLogits' regression for {active:.3g}B active of {total:.3g}B parameters on H100 servers, "
        f"{energy.BATCHES[0]} to {energy.BATCHES[1]} requests at once, PUE {energy.BEST_PUE:g} to {energy.PUE:g}, "
        f"reading from free to {energy.MFU:.0%} of the peak; {prompt:.0f} and {completion:.0f} tokens a request; "
        f"grids {places}; making the servers over three years; {row.source}, {row.as_of}",
        energy.api_wh(active, total, prompt, completion) * 1000,
        embodied=energy.api_embodied_g(active, total, completion) * 1000,
    )
