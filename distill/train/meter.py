"""What a training has taken so far: seconds, tokens, euros, watt-hours. What is not known stays unknown."""

from __future__ import annotations

import time

from distill.counters import Counters

WH = 3600.0  # joules


class Meter:
    """Counts on from what earlier processes of the same run took."""

    def __init__(self, tokens: int, seconds: float, wh: float | None, eur_per_hour: float | None):
        self.tokens, self._tokens, self._seconds, self._wh = tokens, tokens, seconds, wh
        self._eur_per_hour = eur_per_hour
        self._started = time.monotonic()
        self._counters = Counters()

    @property
    def seconds(self) -> float:
        """Of all processes of this run."""
        return self._seconds + self._here

    @property
    def _here(self) -> float:
        return time.monotonic() - self._started

    @property
    def eur(self) -> float | None:
        """Price of the machine x time; None without a price."""
        return None if self._eur_per_hour is None else self._eur_per_hour * self.seconds / 3600

    @property
    def wh(self) -> float | None:
        """Energy as the machine's counters report it; None where a part of the machine, or of the run, was not read."""
        joules = self._counters.joules() if self._counters.whole else None
        return None if joules is None or self._wh is None else self._wh + joules / WH

    def shown(self, loss: float, ce: float, kd: float) -> dict[str, str]:
        """What stands beside the progress bar."""
        parts = f"{loss:.4g} (ce {ce:.4g}, kd {kd:.4g})" if kd else f"{loss:.4g}"
        speed = (self.tokens - self._tokens) / max(self._here, 1e-9)
        return {"loss": parts, "tokens/s": f"{speed:,.0f}", "EUR": _number(self.eur), "Wh": _number(self.wh)}


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"
