"""What the saving and the break-even become when one assumption moves and all others stay.

EUR per request. A system on a machine costs price / (speed x utilisation), so its cost moves with all three.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from evals.breakeven import payback

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What a break-even rests on. ``own``, ``other``: EUR per request; ``hosted``: it runs on the stated machine."""

    one_off: float | None
    other: float
    own: float
    utilisation: float
    own_hosted: bool = True
    other_hosted: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.utilisation <= 1:
            raise ValueError(f"utilisation is a share of the paid hours above 0 and at most 1, not {self.utilisation}")

    def price(self, factor: float) -> Assumptions:
        """The reference's price times ``factor``."""
        return replace(self, other=self.other * factor)

    def machine(self, factor: float) -> Assumptions:
        """The machine's hourly price times ``factor``: all that runs on it gets dearer."""
        return replace(
            self,
            own=self.own * (factor if self.own_hosted else 1),
            other=self.other * (factor if self.other_hosted else 1),
        )

    def busy(self, factor: float) -> Assumptions:
        """Utilisation times ``factor``, at most 1: nobody works more than all the time."""
        share = min(1.0, self.utilisation * factor)
        return replace(self.machine(self.utilisation / share), utilisation=share)

    def speed(self, factor: float) -> Assumptions:
        """The candidate's answers per second times ``factor``."""
        return replace(self, own=self.own / factor if self.own_hosted else self.own)

    def bill(self, factor: float) -> Assumptions:
        """The one-off bill times ``factor``."""
        return replace(self, one_off=None if self.one_off is None else self.one_off * factor)


Move = tuple[str, "Callable[[Assumptions, float], Assumptions]", float]
# Case, what moves, by how much up and down.
MOVES: tuple[Move, ...] = (
    ("reference price", Assumptions.price, 0.5),
    ("machine price", Assumptions.machine, 0.25),
    ("utilisation", Assumptions.busy, 0.5),
    ("speed", Assumptions.speed, 0.5),
    ("one-off bill", Assumptions.bill, 0.5),
)


def tornado(base: Assumptions, against: str) -> dict[str, Any] | None:
    """Requests to break even with each assumption at its low and at its high value, the widest bar first.

    ``low`` and ``high`` are None where the ending is `never`. None when the one-off bill is unknown.
    """
    if base.one_off is None:
        return None
    bars = [_bar(base, move) for move in MOVES]
    _, requests = payback(base.one_off, base.other, base.own)
    return {"base": requests, "against": against, "bars": sorted(bars, key=_width, reverse=True)}


def _bar(base: Assumptions, move: Move) -> dict[str, Any]:
    name, moved, by = move
    ends = [moved(base, factor) for factor in (1 - by, 1 + by)]
    (low_ending, low), (high_ending, high) = (payback(a.one_off, a.other, a.own) for a in ends)
    case = f"{name} \u00b1{100 * by:g} %{_capped(base, moved, 1 + by)}"
    return {"case": case, "low": low, "high": high, "low_ending": low_ending, "high_ending": high_ending}


def _capped(base: Assumptions, moved: Any, factor: float) -> str:
    """Said where a machine cannot be used more than fully."""
    return ", at most 100 %" if moved is Assumptions.busy and base.utilisation * factor > 1 else ""


def _width(bar: dict[str, Any]) -> float:
    """How far a bar reaches; one that ends in `never` on one side alone is the widest."""
    ends = [bar["low"], bar["high"]]
    if None in ends:
        return float("inf") if ends != [None, None] else 0.0
    return float(abs(ends[0] - ends[1]))


def shocks(base: Assumptions) -> list[dict[str, Any]]:
    """EUR per 1,000 requests of both systems, and their ratio, when one assumption moves."""
    cases = (
        ("as measured", base),
        ("reference price -50 %", base.price(0.5)),
        ("machine price +25 %", base.machine(1.25)),
        ("utilisation -50 %", base.busy(0.5)),
        (f"utilisation +50 %{_capped(base, Assumptions.busy, 1.5)}", base.busy(1.5)),
        ("speed -50 %", base.speed(0.5)),
    )
    return [
        {
            "case": name,
            "reference": a.other * 1000,
            "candidate": a.own * 1000,
            "times": a.other / a.own if a.own > 0 else None,
        }
        for name, a in cases
    ]
