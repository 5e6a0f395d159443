"""This release against the one before it: what changed, and whether the student got worse on the same items."""

from __future__ import annotations

import hashlib
import importlib
import json
from typing import TYPE_CHECKING, Any

from distill.errors import ConfigError, DataError, GateFailed, GateInconclusive, IntegrityError
from distill.release import verify_bundle
from distill.release.card import interval, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SCORES = "scores.json"
# Differ from release to release by their nature; listing them would hide what matters.
DULL = ("release.version", "release.previous", "release.declared.release_date")


def scores(samples: Path) -> dict[str, list[Any]]:
    """Item -> [score, cluster] of the evaluated student, names hashed: enough to pair two releases, no text."""
    import pyarrow.parquet as pq

    rows = pq.read_table(samples, columns=["task", "id", "cluster", "correct"]).to_pylist()
    return {_hash(r["task"], r["id"]): [r["correct"], _hash(r["task"], r["cluster"])] for r in rows}


def _hash(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def compare(new: Path, old: Path, margin: float) -> dict[str, Any]:
    """What changed from bundle ``old`` to ``new``, as JSON values.

    Raises ConfigError (no bundle), IntegrityError (the old bundle is not sound).
    """
    try:
        problems = verify_bundle.check(str(old))
    except (verify_bundle.NotABundle, OSError):
        raise ConfigError(
            "not a bundle", where=str(old), next="release.previous names the folder of a release"
        ) from None
    if problems:
        raise IntegrityError(f"the previous release is not sound: {problems[0]}", where=str(old))
    before, after = _read(old, "release.json"), _read(new, "release.json")
    return {
        "previous": {"name": before["name"], "version": before["version"]},
        "settings": list(_changes(_read(old, "config/run.json")["config"], _read(new, "config/run.json")["config"])),
        "base_changed": before["base"]["sha256"] != after["base"]["sha256"],
        "targets": {
            kind: [_form(before["targets"].get(kind)), _form(after["targets"].get(kind))]
            for kind in sorted({*before["targets"], *after["targets"]})
        },
        "quality": _quality(_scores(new), _scores(old), margin),
    }


def _read(bundle: Path, name: str) -> dict[str, Any]:
    try:
        return dict(json.loads((bundle / name).read_bytes()))
    except (OSError, ValueError):
        raise DataError("missing or not JSON", where=str(bundle / name)) from None


def _scores(bundle: Path) -> dict[str, list[Any]]:
    return _read(bundle, SCORES) if (bundle / SCORES).is_file() else {}


def _form(facts: Mapping[str, Any] | None) -> str | None:
    return None if facts is None else f"{facts.get('precision', 'serving files')}, {facts.get('bytes', 0) / 1e6:.1f} MB"


def _changes(old: Any, new: Any, name: str = "") -> Iterator[list[Any]]:
    """[dotted setting, old, new] of each setting that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _changes(old.get(key), new.get(key), f"{name}.{key}".lstrip("."))
    elif old != new and name not in DULL:
        yield [name, old, new]


def _quality(new: Mapping[str, list[Any]], old: Mapping[str, list[Any]], margin: float) -> dict[str, Any]:
    """The paired difference on the items both releases answered, and its non-inferiority outcome."""
    # By name, as in the command table: `evals` stands beside this package and is imported by none of it.
    stats = importlib.import_module("evals.stats")
    common = sorted(set(new) & set(old))
    if len(common) < 2:
        return {
            "items": len(common),
            "difference": None,
            "lost": 0,
            "gained": 0,
            "margin": margin,
            "outcome": "inconclusive",
        }
    difference = stats.paired_difference(
        [new[i][0] for i in common], [old[i][0] for i in common], [new[i][1] for i in common]
    )
    return {
        "items": len(common),
        "difference": {k: v if abs(v) != float("inf") else None for k, v in difference.as_dict().items()},
        "lost": sum(new[i][0] < 0.5 <= old[i][0] for i in common),
        "gained": sum(old[i][0] < 0.5 <= new[i][0] for i in common),
        "margin": margin,
        "outcome": stats.non_inferiority(difference, margin),
    }


def gate(changes: Mapping[str, Any]) -> None:
    """Raise GateFailed or GateInconclusive unless the new student is non-inferior to the previous release."""
    quality = changes["quality"]
    if quality["outcome"] == "pass":
        return
    error = GateFailed if quality["outcome"] == "fail" else GateInconclusive
    shown = f"{interval(quality['difference'])} on {quality['items']} common items, margin {quality['margin']:g}"
    raise error(
        f"against release {changes['previous']['version']}: {shown}",
        where="release.previous",
        safe="the trained student; no bundle was written",
        next="train again, ask more items, or leave release.previous empty to release without this gate",
    )


def summary(changes: Mapping[str, Any]) -> list[str]:
    """What changed, one line each: for a person who waits."""
    quality, name = changes["quality"], f"{changes['previous']['name']}-{changes['previous']['version']}"
    shown = interval(quality["difference"]) or "not known"
    lines = [f"after {name}: accuracy {shown} on {quality['items']} common items, {quality['outcome']}"]
    lines.append(f"right before and wrong now: {quality['lost']}; wrong before and right now: {quality['gained']}")
    return [*lines, *(f"{setting}: {old!r} -> {new!r}" for setting, old, new in changes["settings"])]


def markdown(changes: Mapping[str, Any], title: str) -> str:
    """papers/changes.md."""
    quality, before = changes["quality"], changes["previous"]
    rows = [
        ("items answered by both", quality["items"]),
        ("accuracy, new minus previous, 95 % interval", interval(quality["difference"])),
        ("right before, wrong now", quality["lost"]),
        ("wrong before, right now", quality["gained"]),
        ("margin", quality["margin"]),
        ("non-inferior to the previous release", quality["outcome"]),
        ("base weights", "changed" if changes["base_changed"] else "the same"),
    ]
    parts = [
        f"# What changed: {title}, after {before['name']}-{before['version']}\n",
        *table(("", ""), rows),
        "## Settings\n",
        *(table(("setting", "before", "now"), changes["settings"]) or ["None.", ""]),
        "## Forms\n",
        *table(
            ("form", "before", "now"), ((k, old or "-", new or "-") for k, (old, new) in changes["targets"].items())
        ),
        "To go back, serve the previous bundle: releases are versioned, and none is overwritten by another.",
    ]
    return "\n".join(parts) + "\n"
