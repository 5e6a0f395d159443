"""May this teacher's answers train this student, and where do the prompts go? Asked before anything is sent.

Fails closed: what the catalogue does not know is refused until a person takes it upon them (``policy.waivers``).
What is forbidden needs the owner's permission, written into the user's own catalogue. Not legal advice.
"""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import BaseModel

from distill import catalog
from distill.catalog import rows
from distill.catalog.route import Route, official, route_of
from distill.errors import ConfigError, Refused
from distill.providers._base import ProviderConfig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from distill.config import RunConfig, Waiver

STRICTNESS = get_args(rows.Verdict)
EU = frozenset(
    "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK".split()  # noqa: SIM905
)
GROUPS = {"EU": EU, "EEA": EU | {"IS", "LI", "NO"}}
FAKE = "fake"


@dataclass(frozen=True)
class Verdict:
    """One finding about one part of the run."""

    kind: Literal["licence", "region", "name"]
    role: str
    """`teacher` (`teacher 2` ... of a mix), `student base`, or the filter or verifier that asks a model."""
    subject: str
    verdict: rows.Verdict
    why: str
    rows: tuple[str, ...] = ()
    """Ids of the licence rows it rests on."""
    obligations: tuple[str, ...] = ()
    unblock: str = ""
    source: str = ""
    waiver: str = ""
    """Who took it upon them, when and why; empty = nobody needed to."""

    @property
    def passes(self) -> bool:
        """True when the run may go on."""
        return self.verdict in ("allowed", "allowed_with_obligations") or bool(self.waiver)

    def __str__(self) -> str:
        return f"{self.role} {self.subject}: {self.verdict.replace('_', ' ')}: {self.why}"


def check(config: RunConfig) -> list[Verdict]:
    """Every finding. Raises Refused (exit 5) when one of them stops the run, with what would unblock it."""
    found = verdicts(config)
    refuse(found)
    return found


def refuse(found: list[Verdict]) -> None:
    """Raise Refused for the first finding that stops the run."""
    stopping = [verdict for verdict in found if not verdict.passes]
    if stopping:
        more = f" (and {len(stopping) - 1} more: distill plan shows all)" if len(stopping) > 1 else ""
        raise Refused(f"{stopping[0]}{more}", safe="nothing was sent", next=stopping[0].unblock)


def as_json(found: list[Verdict]) -> list[dict[str, Any]]:
    """The findings as JSON values, for data set card, model card and bundle."""
    return [{**asdict(verdict), "passes": verdict.passes} for verdict in found]


def verdicts(config: RunConfig) -> list[Verdict]:
    """Licence and region of everything that writes training text, licence of the base, and the student's name."""
    found: list[Verdict] = []
    for role, provider in asked(config):
        route = route_of(provider)
        if provider.kind == FAKE:
            made_up = "no model: the settings make its answers up"
            found.append(Verdict("licence", role, route.model, "allowed", made_up))
            continue
        found.append(_waive(teacher_licence(role, route, config), route, config))
        found.append(region(role, route, config.policy.regions))
    found.append(_waive(base_licence(config), None, config))
    return [*found, *name(config, found)]


def asked(config: RunConfig) -> Iterator[tuple[str, Any]]:
    """(role, settings) of each model whose text or judgement reaches the data: every teacher, and any judge."""
    for number, teacher in enumerate(config.teachers(), start=1):
        yield teacher_role(number), teacher
    for part in ("filters", "verifiers"):
        for plugin in getattr(config.generate, part):
            for provider in _providers_in(plugin):
                yield f"{part.removesuffix('s')} {plugin.kind}", provider


def teacher_role(number: int) -> str:
    """What the verdicts call the n-th teacher."""
    return "teacher" if number == 1 else f"teacher {number}"


def _providers_in(settings: BaseModel) -> Iterator[ProviderConfig]:
    for value in (getattr(settings, field) for field in type(settings).model_fields):
        for item in value if isinstance(value, list | tuple) else (value,):
            if isinstance(item, ProviderConfig):
                yield item
            elif isinstance(item, BaseModel):
                yield from _providers_in(item)


# -- licences ---------------------------------------------------------------------------------------------------


def teacher_licence(role: str, route: Route, config: RunConfig) -> Verdict:
    """The strictest of the service's terms and the weights' licence."""
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
    """May the base of the student be changed, and passed on?"""
    model = config.student.model
    _exists(model, config)
    row = weights_licence(official(model)) or _stated(model, config)
    if row is None:
        return _unknown("student base", model, official(model))
    return _strictest("student base", model, [row], config, base=True)


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


def _waive(verdict: Verdict, route: Route | None, config: RunConfig) -> Verdict:
    """The verdict with its waiver, when it needs one, may have one, and has one for exactly this model."""
    if verdict.verdict not in ("restricted", "unknown"):
        return verdict
    names = {route.model, route.official_model} if route else {config.student.model, official(config.student.model)}
    waiver: Waiver | None = next((w for w in config.policy.waivers if w.model in names), None)
    if waiver is None:
        return verdict
    return replace(verdict, waiver=f"{waiver.name} on {waiver.date}: {waiver.reason}")


# -- regions and names ------------------------------------------------------------------------------------------


def region(role: str, route: Route, allowed: tuple[str, ...]) -> Verdict:
    """Prompts may only go where ``policy.regions`` says; in this process and in one's own network they stay."""
    if route.kind != "api":
        return Verdict("region", role, str(route), "allowed", "prompts stay on machines of your own")
    where = route.provider.regions if route.provider else ()
    shown = ", ".join(where) or "not known"
    if "*" in allowed or (where and expand(where) <= expand(allowed)):
        return Verdict("region", role, str(route), "allowed", f"prompts are processed in: {shown}")
    known = "prohibited" if where else "unknown"
    return Verdict(
        "region",
        role,
        str(route),
        known,  # type: ignore[arg-type]
        f"prompts would be processed in: {shown}; policy.regions allows {', '.join(allowed)}",
        unblock="a provider inside those regions (distill catalog providers), "
        f"a `providers` row in {catalog.USER_FILE} if your contract says otherwise, or policy.regions",
    )


def expand(codes: tuple[str, ...]) -> frozenset[str]:
    """Countries behind codes such as EU, EEA, CH."""
    return frozenset().union(*(GROUPS.get(code, frozenset({code})) for code in codes))


def name(config: RunConfig, found: list[Verdict]) -> list[Verdict]:
    """A student that descends from Llama and is passed on carries the name."""
    bound = [verdict for verdict in found if "NAME_PREFIX_LLAMA" in verdict.obligations]
    if not bound or config.policy.use != "commercial" or config.name.casefold().startswith("llama"):
        return []
    return [
        Verdict(
            "name",
            "student",
            config.name,
            "prohibited",
            f"{bound[0].role} {bound[0].subject} asks that its name starts with 'Llama'",
            rows=bound[0].rows,
            unblock=f"name: Llama-{config.name}; or policy.use: internal when nobody else receives it",
        )
    ]
