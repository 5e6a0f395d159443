"""Energy counters of this machine: processor packages and their memory (RAPL), NVIDIA cards (NVML).

Linux shows a RAPL domain as a folder of /sys/class/powercap: `intel-rapl:N` is a package or, called psys, the whole
platform; `intel-rapl:N:M` is a part of it. Cores and graphics are inside the package and are not added to it; memory
(dram) is not and is. AMD's packages have the same names. A counter begins again at `max_energy_range_uj`.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")
ACCELERATORS = (Path("/dev/nvidia0"), Path("/dev/kfd"))
POLL_S = 20.0  # a package of 300 W runs once round its counter in a quarter of an hour


@dataclass
class Domain:
    """One RAPL counter, in microjoules."""

    name: str
    path: Path
    range_uj: int
    last_uj: int
    total_uj: int = 0

    def read(self) -> None:
        """Add what came since the last reading; at most one turn of the counter may lie between. Raises OSError."""
        now = _whole(self.path / "energy_uj")
        self.total_uj += now - self.last_uj if now >= self.last_uj else self.range_uj - self.last_uj + now
        self.last_uj = now


class Counters:
    """What this machine has taken since the object was made. A context manager: a thread then follows the counters."""

    def __init__(self, powercap: Path | None = None):
        self.missing: list[str] = []
        """Parts of the machine that cannot be read, and why."""
        self._domains = self._packages(POWERCAP if powercap is None else powercap)
        self._nvml, self._cards = self._find_cards()
        self._cards_mj = [self._card_mj(card) for card in self._cards]
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._failed = False

    def __enter__(self) -> Counters:
        threading.Thread(target=self._follow, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()

    @property
    def names(self) -> str:
        """What is read, in words; "" when nothing is."""
        parts = [f"RAPL {', '.join(d.name for d in self._domains)}"] if self._domains else []
        parts += [f"NVML {len(self._cards)} card{'s' * (len(self._cards) > 1)}"] if self._cards else []
        return "; ".join(parts)

    @property
    def whole(self) -> bool:
        """Something is read, and no accelerator of this machine is left out."""
        blind = not self._cards and any(path.exists() for path in ACCELERATORS)
        return bool(self._domains or self._cards) and not blind

    def joules(self) -> float | None:
        """Taken so far by all parts that are read; None without any, or after one of them failed."""
        if self._failed or not (self._domains or self._cards):
            return None
        with self._lock:
            try:
                for domain in self._domains:
                    domain.read()
                cards = sum(self._card_mj(c) - first for c, first in zip(self._cards, self._cards_mj, strict=True))
            except Exception:  # the driver's own errors among them
                self._failed = True
                return None
        return sum(d.total_uj for d in self._domains) / 1e6 + cards / 1e3

    def _follow(self) -> None:
        while not self._over.wait(POLL_S):
            self.joules()

    # -- what there is ----------------------------------------------------------------------------------------

    def _packages(self, powercap: Path) -> list[Domain]:
        """Packages and their memory; all of them or none."""
        found: list[Domain] = []
        try:
            for folder in sorted(powercap.glob("intel-rapl:*")):
                name = (folder / "name").read_text("ascii").strip()
                inner = folder.name.count(":") > 1
                if name == "dram" if inner else name != "psys":
                    label = f"{name} of {folder.name}" if inner else name
                    most = _whole(folder / "max_energy_range_uj")
                    found.append(Domain(label, folder, most, _whole(folder / "energy_uj")))
        except PermissionError:
            self.missing.append("the processor's counter may be read by root only")
            return []
        except (OSError, ValueError):
            self.missing.append("the processor's counter cannot be read")
            return []
        if not found:
            self.missing.append("the processor shows no energy counter here")
        return found

    def _find_cards(self) -> tuple[Any, list[Any]]:
        """(the NVML module, handles of the cards this process may use); all of them or none."""
        if find_spec("pynvml") is None:
            if ACCELERATORS[0].exists():
                self.missing.append("the cards' counters need nvidia-ml-py")
            return None, []
        nvml = import_module("pynvml")
        try:
            nvml.nvmlInit()
            cards = [nvml.nvmlDeviceGetHandleByIndex(n) for n in range(nvml.nvmlDeviceGetCount())]
            cards = [card for number, card in enumerate(cards) if _visible(number, str(nvml.nvmlDeviceGetUUID(card)))]
            for card in cards:
                nvml.nvmlDeviceGetTotalEnergyConsumption(card)
        except nvml.NVMLError as error:
            if ACCELERATORS[0].exists():
                self.missing.append(f"the cards' counters cannot be read: {error}")
            return None, []
        return nvml, cards

    def _card_mj(self, card: Any) -> int:
        return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(card))


def _visible(number: int, uuid: str) -> bool:
    """Whether CUDA_VISIBLE_DEVICES leaves this card to us."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return True
    return any(part.strip() in (str(number), uuid) for part in chosen.split(","))


def _whole(path: Path) -> int:
    return int(path.read_text("ascii"))
