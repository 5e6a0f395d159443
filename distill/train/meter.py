"""What a training has taken so far: seconds, tokens, euros, watt-hours. What is not known stays unknown."""

from __future__ import annotations

import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
WH = 3600.0  # joules


class Meter:
    """Counts on from what earlier processes of the same run took."""

    def __init__(self, tokens: int, seconds: float, wh: float | None, eur_per_hour: float | None):
        self.tokens, self._tokens, self._seconds, self._wh = tokens, tokens, seconds, wh
        self._eur_per_hour = eur_per_hour
        self._started = time.monotonic()
        self._joules = joules()

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
        """Energy of processors and cards as they report it; None where one part of the run could not be read."""
        now = joules()
        if now is None or self._joules is None or self._wh is None or now < self._joules:
            return None
        return self._wh + (now - self._joules) / WH

    def shown(self, loss: float, ce: float, kd: float) -> dict[str, str]:
        """What stands beside the progress bar."""
        parts = f"{loss:.4g} (ce {ce:.4g}, kd {kd:.4g})" if kd else f"{loss:.4g}"
        speed = (self.tokens - self._tokens) / max(self._here, 1e-9)
        return {"loss": parts, "tokens/s": f"{speed:,.0f}", "EUR": _number(self.eur), "Wh": _number(self.wh)}


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"


def joules() -> float | None:
    """Energy counters of processor packages (RAPL) and cards (NVML) together, since they last began; None without."""
    found = [*_packages(), *_cards()]
    return sum(found) if found else None


def _packages() -> list[float]:
    try:
        return [float(file.read_text("ascii")) / 1e6 for file in sorted(POWERCAP.glob("intel-rapl:?/energy_uj"))]
    except (OSError, ValueError):  # only root may read it on most machines
        return []


def _cards() -> list[float]:
    if find_spec("pynvml") is None:
        return []
    pynvml = import_module("pynvml")
    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return [pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3 for handle in handles]
    except pynvml.NVMLError:
        return []
