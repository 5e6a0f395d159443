"""What went where: requests and bytes by host, read from the store. No host of one's own network is named."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from distill.catalog.route import route_of
from distill.query import database

if TYPE_CHECKING:
    from pathlib import Path

# Attempts that ended before a byte of the request left.
UNSENT = "state = 'released' AND reason IN ('not_sent', 'connect', 'deadline')"
ROWS = f"""
SELECT q.codec, q.canonical, count(a.id), coalesce(sum(length(r.raw)), 0)
FROM request q JOIN attempt a ON a.request_id = q.id LEFT JOIN response r ON r.attempt_id = a.id
WHERE NOT ({UNSENT}) GROUP BY q.id
"""


def table(path: Path) -> list[dict[str, Any]]:
    """One row for each model and place: `model host company regions sends bytes_sent bytes_kept`; [] without a store.

    ``bytes_sent``: of the requests' canonical JSON, each send counted. ``bytes_kept``: of the answers, as stored.
    """
    if not path.is_file():
        return []
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    connection = database.connect(path)
    try:
        connection.execute("PRAGMA query_only = ON")
        for codec, blob, sends, kept in connection.execute(ROWS):
            identity, size = _parts(database.unpack(codec, blob))
            place = _place(identity)
            row = rows.setdefault(
                (place["model"], place["host"]), {**place, "sends": 0, "bytes_sent": 0, "bytes_kept": 0}
            )
            row["sends"] += sends
            row["bytes_sent"] += sends * size
            row["bytes_kept"] += kept
    finally:
        connection.close()
    return sorted(rows.values(), key=lambda row: (row["host"], row["model"]))


def _parts(canonical: bytes) -> tuple[dict[str, Any], int]:
    """(the provider's identity, bytes of the request itself)."""
    body = json.loads(canonical)
    return body["provider"], len(
        json.dumps(body["request"], ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    )


def _place(identity: dict[str, Any]) -> dict[str, Any]:
    """Where a model with this identity was asked, as the catalogue knows it. Own machines have no host or region."""
    model = str(identity.get("model", identity.get("kind", "")))
    route = route_of(SimpleNamespace(model=model, base_url=identity.get("base_url")))
    if route.kind != "api":
        where = "this machine" if route.kind == "process" else "your own network"
        return {"model": model.rpartition("/")[2] if model.startswith("path:") else model, "host": where} | {
            "company": None,
            "regions": [],
        }
    provider = route.provider
    return {
        "model": model,
        "host": route.host,
        "company": f"{provider.name}, {provider.hq}" if provider else None,
        "regions": list(provider.regions) if provider else [],
    }
