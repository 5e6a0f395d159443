"""Where a model is asked: in this process, on a machine of one's own, or at a provider. Terms and prices follow."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from distill import catalog
from distill.catalog.rows import ProviderRow  # noqa: TC001 - a dataclass field

BARE_NAME = re.compile(r"[a-z][a-z0-9-]*")
OWN_SUFFIXES = (".local", ".internal", ".lan", ".home.arpa", ".localhost")


@dataclass(frozen=True)
class Route:
    """``kind``: `process` (weights loaded here), `own` (an endpoint in one's own network), `api` (somebody else's)."""

    kind: Literal["process", "own", "api"]
    model: str
    host: str = ""
    provider: ProviderRow | None = None

    @property
    def official_model(self) -> str:
        """The model's official id, as far as the catalogue knows it; else the name as given."""
        if self.provider is not None:
            return self.provider.models.get(self.model, self.model)
        return official(self.model)

    def __str__(self) -> str:
        if self.kind == "process":
            return f"{self.model} in this process"
        name = self.provider.name if self.provider else self.host
        return f"{self.model} at {name}" + (" (own network)" if self.kind == "own" else "")


def route_of(config: Any) -> Route:
    """The route of a provider's settings: `base_url` decides; without one the engine runs in this process."""
    model, url = str(config.model), str(getattr(config, "base_url", None) or "")
    if not url:
        return Route("process", model)
    host = (urlsplit(url if "//" in url else f"//{url}").hostname or "").casefold()
    provider = next((row for row in catalog.providers() if row.serves(host)), None)
    if provider is None and is_own(host):
        return Route("own", model, host)
    return Route("api", model, host, provider)


def is_own(host: str) -> bool:
    """True for loopback and private addresses, and for names that only a local network resolves."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # A bare number is an address in disguise (134744072 is 8.8.8.8), not the name of a machine.
        return bool(BARE_NAME.fullmatch(host)) or host.endswith(OWN_SUFFIXES)
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or (address.is_private and not address.is_unspecified)


def official(model: str) -> str:
    """The hub id behind a `student.model` or a local teacher: catalogue name, `hub:ID@REVISION`, or as given."""
    if model.startswith("hub:"):
        return model.removeprefix("hub:").partition("@")[0]
    row = catalog.find_model(model)
    if row is None:  # a `package:` or `path:` that a catalogue entry lists as its source is that model
        row = next((m for m in catalog.models().values() if model in m.sources), None)
    return row.id if row else model
