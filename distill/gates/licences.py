"""May these weights, this service or this data set be learnt from, and may the base be changed and passed on?"""

from __future__ import annotations

import difflib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from distill import catalog
from distill.catalog import rows
from distill.catalog.route import Route, official
from distill.errors import ConfigError
from distill.gates.verdict import STRICTNESS, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from distill.config import RunConfig, Waiver

PERMISSIVE = frozenset({"apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "cc0-1.0", "cc-by-4.0"})
DATA_UNREAD = "the catalogue has no row for this data set"


def teacher_licence(role: str, route: Route, config: RunConfig) -> Verdict:
    """The strictest of the service's terms and the weights' licence, with its waiver."""
    return waive(_teacher_licence(role, route, config), {route.model, route.official_model}, config)


def _teacher_licence(role: str, route: Route, config: RunConfig) -> Verdict:
    held: list[rows.LicenceRow] = []
    extra: tuple[str, ...] = ()
    if route.kind == "api":
        if route.provider is None:
            return Verdict(
                "licence",
                role,
                str(route),
                "unknown",
                f"the catalogue knows neither the host {route.host} nor its terms",
                unblock=f"a `providers` row for {route.host} in {catalog.USER_FILE}",
            )
        if route.provider.terms:
            held.append(_licence(route.provider.terms))
        else:
            extra = ("HOST_TERMS",)
    elif route.kind == "process":
        _exists(route.model, config)
    if not _is_own_model(route):
        weights = weights_licence(route.official_model) or _stated(route.model, config)
        if weights is None:
            return _unknown(role, str(route), route.official_model)
        held.append(weights)
    return _strictest(role, str(route), held, config, extra=extra)


def base_licence(config: RunConfig) -> Verdict:
    """May the base of the student be changed, and passed on? With its waiver."""
    model = config.student.model
    _exists(model, config)
    row = weights_licence(official(model)) or _stated(model, config)
    if row is None:
        found = _unknown("student base", model, official(model))
    else:
        found = _strictest("student base", model, [row], config, base=True)
    return waive(found, {model, official(model)}, config)


def student_licence(config: RunConfig, base: Verdict) -> list[Verdict]:
    """The released weights may not be freer than their base: [] when they are not. ``base``: its finding."""
    released = config.release.licence.lower()
    bound = [row for row in base.rows if row not in PERMISSIVE and not row.endswith("-distill-qwen")]
    if not bound or released not in PERMISSIVE:
        return []
    return [
        Verdict(
            "licence",
            "student",
            config.name,
            "prohibited",
            f"its base {base.subject} is under {bound[0]}, which a student keeps; release.licence says {released}",
            rows=tuple(bound),
            unblock=f"release.licence: the base's own ({bound[0]}); or a base under a free licence",
        )
    ]


# -- data sets --------------------------------------------------------------------------------------------------


def data_licences(config: RunConfig) -> Iterator[Verdict]:
    """What the prompts bring along: models and data sets named in ``policy.made_with``, and an earlier run's card."""
    for source in config.policy.made_with:
        row = weights_licence(official(source))
        found = _strictest("prompts", source, [row], config) if row else _unknown("prompts", source, official(source))
        yield waive(found, {source, official(source)}, config)
    path = config.prompts.path
    if path.startswith("hub:"):
        name = official(path)
        row = weights_licence(name)
        unread = Verdict(
            "licence", "prompts", path, "allowed_with_obligations", DATA_UNREAD, obligations=("DATA_TERMS",)
        )
        yield waive(_strictest("prompts", path, [row], config) if row else unread, {path, name}, config)
    elif (earlier := _earlier(config)) is not None:
        yield waive(earlier, {config.prompts.path}, config)


def _earlier(config: RunConfig) -> Verdict | None:
    """A file beside a data card takes the strictest row of all that wrote it; None = no card lies beside it."""
    path = config.resolve(config.prompts.path)
    card = (path if path.is_dir() else path.parent) / "card.json"
    findings = _findings(card)
    if findings is None:
        return None
    subject = config.prompts.path
    known = {row.id: row for row in catalog.licences()}
    wrote = [f for f in findings if f["kind"] == "licence" and f["role"] != "student base"]
    named = [row for finding in wrote for row in finding["rows"]]
    lost = [row for row in named if row not in known]
    if lost or any(f["verdict"] == "unknown" for f in wrote):
        what = (
            f"the licence row {lost[0]!r} is no longer in the catalogue" if lost else "one of its teachers is unknown"
        )
        return Verdict(
            "licence",
            "prompts",
            subject,
            "unknown",
            f"{card} says who wrote this data set, and {what}",
            unblock=f"the row in {catalog.USER_FILE}, or a policy.waivers entry with model: {subject}",
        )
    if not named:
        return None
    return _strictest("prompts", subject, [known[row] for row in dict.fromkeys(named)], config)


def _findings(card: Path) -> list[dict[str, Any]] | None:
    """The `permission` of a data card of ours; None when the file is not one."""
    try:
        found = json.loads(card.read_text("utf-8"))["permission"]
        return [{name: f[name] for name in ("kind", "role", "rows", "verdict")} for f in found]
    except (OSError, ValueError, KeyError, TypeError):
        return None


# -- rows -------------------------------------------------------------------------------------------------------


def weights_licence(model: str) -> rows.LicenceRow | None:
    """The licence row whose longest pattern covers the official id; else the one its catalogue entry names."""
    found = [(row.fit(model), row) for row in catalog.licences() if row.kind == "weights"]
    length, row = max(found, key=lambda pair: pair[0])
    if length:
        return row
    entry = catalog.find_model(model)
    return next((r for r in catalog.licences() if entry and r.id == entry.licence), None)


def _exists(model: str, config: RunConfig) -> None:
    """Raise ConfigError for a misspelt name or a folder that is not there: no question of licences."""
    if model.startswith("path:"):
        folder = config.resolve(model.removeprefix("path:"))
        if not folder.is_dir():
            raise ConfigError("no such folder", where=str(folder), next="path:DIR with config.json and *.safetensors")
    elif ":" not in model and catalog.find_model(model) is None:
        close = difflib.get_close_matches(model, catalog.models(), n=1)
        raise ConfigError(
            f"no model {model!r} in the catalogue" + (f"; did you mean {close[0]!r}?" if close else ""),
            next="a name of `distill catalog models`, hub:ID@REVISION, or path:DIR",
        )


def _stated(model: str, config: RunConfig) -> rows.LicenceRow | None:
    """The licence that the README of a `path:` model states in its header, when the catalogue knows that licence."""
    if not model.startswith("path:"):
        return None
    readme = config.resolve(model.removeprefix("path:")) / "README.md"
    said = _header(readme)
    return next((row for row in catalog.licences() if row.kind == "weights" and row.id == said), None)


def _header(readme: Path) -> str:
    try:
        lines = readme.read_text("utf-8", errors="replace")[:20_000].splitlines()
    except OSError:
        return ""
    if not lines or lines[0].strip() != "---":
        return ""
    for line in lines[1:]:
        if line.strip() == "---":
            break
        if line.startswith("license:"):
            return line.removeprefix("license:").strip().strip("\"'").casefold()
    return ""


def _strictest(
    role: str,
    subject: str,
    held: list[rows.LicenceRow],
    config: RunConfig,
    *,
    base: bool = False,
    extra: tuple[str, ...] = (),
) -> Verdict:
    use = config.policy.use
    worst = max(held, key=lambda row: STRICTNESS.index(row.for_use(use, base=base)))
    verdict = worst.for_use(use, base=base)
    obligations = tuple(dict.fromkeys([*(code for row in held for code in row.obligations), *extra]))
    if verdict == "allowed" and obligations:
        verdict = "allowed_with_obligations"
    why = f"{worst.id}{f' ({worst.clause})' if worst.clause else ''}{f': {worst.note}' if worst.note else ''}"
    return Verdict(
        "licence",
        role,
        subject,
        verdict,
        why,
        rows=tuple(row.id for row in held),
        obligations=obligations,
        unblock=_unblock(verdict, worst),
        source=f"{worst.source} ({worst.as_of})" + ("" if worst.verified else ", not verified"),
    )


def _unblock(verdict: str, row: rows.LicenceRow) -> str:
    if verdict == "prohibited":
        return f"{row.unblock or 'another model'}; a permission is recorded as a `licences` row in {catalog.USER_FILE}"
    if verdict in ("restricted", "unknown"):
        return f"{row.unblock or 'the text of its licence'}; or policy.waivers with a name, a date and a reason"
    return ""


def _unknown(role: str, subject: str, model: str) -> Verdict:
    return Verdict(
        "licence",
        role,
        subject,
        "unknown",
        f"the catalogue has no licence of {model!r}",
        unblock=f"use its official id, add a `licences` row to {catalog.USER_FILE}, or a policy.waivers entry",
    )


def _licence(row_id: str) -> rows.LicenceRow:
    return next(row for row in catalog.licences() if row.id == row_id)


def _is_own_model(route: Route) -> bool:
    """True when a provider serves a model of its own, or an id that nobody else has: its terms decide alone."""
    if route.provider is None or not route.provider.terms:
        return False
    pattern = rows.LicenceRow(
        id="own", kind="terms", verdict="unknown", models=route.provider.own_models, source="", as_of="2026-01-01"
    )
    return pattern.fit(route.model) > 0


def waive(verdict: Verdict, names: set[str], config: RunConfig) -> Verdict:
    """The verdict with its waiver, when it needs one, may have one, and has one for exactly one of these names."""
    if verdict.verdict not in ("restricted", "unknown"):
        return verdict
    waiver: Waiver | None = next((w for w in config.policy.waivers if w.model in names), None)
    if waiver is None:
        return verdict
    return replace(verdict, waiver=f"{waiver.name} on {waiver.date}: {waiver.reason}")
