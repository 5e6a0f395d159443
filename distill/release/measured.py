"""What the evaluation found of one side of the comparison; None where its report has no figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def side_arm(report: Mapping[str, Any], side: str) -> dict[str, Any]:
    """The arm that is the ``side``: `candidate` or `reference`."""
    return next((arm for arm in report.get("arms", []) if arm["name"] == report.get(side)), {})


def eur_per_1000(report: Mapping[str, Any], side: str) -> float | None:
    """EUR per 1,000 requests."""
    return _value(side_arm(report, side).get("cost"), "per_1000_requests")


def wh_per_1000(report: Mapping[str, Any], side: str) -> tuple[float | None, str]:
    """(Wh per 1,000 requests, `measured`, `estimated` or `unknown`)."""
    rows = (report.get("energy") or {}).get("arms", [])
    row: Mapping[str, Any] = next((row for row in rows if row["name"] == report.get(side)), {})
    return _value(row, "wh_per_1000_requests"), str(row.get("how", "unknown"))


def _value(facts: Mapping[str, Any] | None, key: str) -> float | None:
    found = (facts or {}).get(key)
    return None if found is None or found.get("value") is None else float(found["value"])
