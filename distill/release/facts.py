"""The facts that the European dossier is filled from, each with how it is known.

Marks: `measured` by this run; `estimated` by a formula or a dated catalogue; `declared` by a person in the
configuration; `missing`: nobody knows, and nothing is made up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from distill import catalog
from distill.release import tensors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from distill.release.record import Record

Mark = Literal["measured", "estimated", "declared", "missing"]
FALLBACK_FLOP = 3.33e22
"""A third of the compute of an unknown original (guidelines, para 63)."""
GPAI_FLOP = 1e23
TOLERANCE = 0.30
RETENTION_YEARS = 10
DECLARED = {
    **{name: name for name in ("legal_name", "contact", "country", "lei", "release_date", "eu_market_date")},
    **{name: name for name in ("distribution", "acceptable_use", "intended_use", "annual_cost_eur", "exit_plan")},
    **{"rebound": "rebound", "legal_basis": "personal_data", "tdm": "copyright_policy"},
    **{"public_data": "data_sources", "private_data": "data_sources"},
}
# Nothing in a run measures these today.
UNKNOWN = ("memorisation", "illegal_content", "energy_kwh", "energy_1000")


@dataclass(frozen=True)
class Fact:
    """A value, how it is known, and from where. A text may come in two languages."""

    value: Any = None
    mark: Mark = "missing"
    origin: str = ""


def gather(record: Record, weights: Path, config: Mapping[str, Any]) -> dict[str, Fact]:
    """Every fact by name. ``weights``: a folder of the student's shapes; ``config``: its config.json."""
    found: dict[str, Fact] = dict.fromkeys(UNKNOWN, Fact())
    declared = record.settings["release"]["declared"]
    for name, setting in DECLARED.items():
        value = declared[setting]
        found[name] = Fact(value, "declared", f"release.declared.{setting}") if value else Fact()
    parameters = sum(math.prod(t.shape) for t in tensors.read_index(weights).values())
    found |= _identity(record, config, parameters)
    found |= _data(record)
    found |= _compute(record, parameters)
    return found | _economy(record, parameters)


def _measured(value: Any, origin: str) -> Fact:
    return Fact() if value is None or value in ("", {}, []) else Fact(value, "measured", origin)


def _identity(record: Record, config: Mapping[str, Any], parameters: int) -> dict[str, Fact]:
    text = {"en": "text", "fr": "texte"}
    context = config.get("max_position_embeddings")
    teachers = ", ".join(record.teachers) or record.teacher_name
    shape = f"{config.get('model_type')}, {config.get('num_hidden_layers')} x {config.get('hidden_size')}"
    train = record.settings["train"]
    return {
        "title": _measured(record.title, "release.json"),
        "authenticity": _measured(
            {"en": "SHA-256 of every file, SHA256SUMS", "fr": "SHA-256 de chaque fichier, SHA256SUMS"}, ""
        ),
        "dependencies": _measured(
            {
                "en": f"{record.title}; base {record.base_name}; teacher {teachers}",
                "fr": f"{record.title} ; base {record.base_name} ; professeur {teachers}",
            },
            "student/student.json",
        ),
        "architecture": _measured(shape, "config.json"),
        "method": _measured(f"{train['method']}, {record.settings['student']['adapter']['kind']}", "config/run.json"),
        "input": _measured({lang: f"{word}, {context}" for lang, word in text.items()}, "config.json"),
        "output": _measured(text, "config.json"),
        "parameters": _measured(f"{float(f'{parameters:.2g}'):,.0f}", "weights"),
        "licence": Fact(record.settings["release"]["licence"], "declared", "release.licence"),
        "software": _measured(", ".join(f"{k} {v}" for k, v in sorted(record.versions.items())), "config/run.json"),
        "train_seconds": _measured(record.student.get("seconds"), "student/student.json"),
        "retention_years": Fact(RETENTION_YEARS, "declared", "the form's own period"),
    }


def _data(record: Record) -> dict[str, Fact]:
    tokens = record.student.get("tokens")
    rows = record.data.get("rows", {})
    asked, kept = rows.get("asked"), rows.get("kept")
    generated = "; ".join(f"{name}: {count}" for name, count in record.teachers.items())
    nobody = {
        "en": "none by this run; where the prompts come from: see 2.1",
        "fr": "aucun par cette exécution ; origine des consignes : voir 2.1",
    }
    return {
        "data_size": _measured(f"{record.rows}, {tokens}" if record.rows and tokens else None, "student/student.json"),
        "languages": _measured(", ".join(record.languages), "data/train.parquet"),
        "synthetic": _measured(generated, "data/train.parquet"),
        "rejected": _measured(
            f"{asked} -> {kept}" if asked is not None and kept is not None else None, "data/card.json"
        ),
        "crawlers": Fact(nobody, "measured", "the run reads one prompt file and asks one teacher"),
        "user_data": Fact(),
        "teacher_route": _route(record),
    }


def _route(record: Record) -> Fact:
    route = record.route
    if route.kind == "process":
        own = {
            "en": "in this process: no data left the machine",
            "fr": "dans ce processus : aucune donnée n'est sortie",
        }
        return Fact(own, "measured", "config/run.json")
    if route.kind == "own":
        own = {"en": "an endpoint in our own network", "fr": "un point d'accès de notre propre réseau"}
        return Fact(own, "measured", "config/run.json")
    if route.provider is None:
        return Fact()
    row = route.provider
    regions = ", ".join(row.regions) or "?"
    return Fact(f"{row.name}, {row.hq}, {regions}", "estimated", f"catalogue, {row.as_of}: {row.source}")


def _compute(record: Record, parameters: int) -> dict[str, Fact]:
    """The guidelines' arithmetic. What is not known stays missing, and the total then is, too."""
    tokens = record.student.get("tokens")
    train = 6.0 * parameters * tokens if tokens else None
    asked = record.data.get("tokens", {})
    spent = sum(v for k in ("prompt", "completion") if isinstance(v := asked.get(k), int))
    teacher, base = catalog.find_model(record.teacher_name), catalog.find_model(record.base_name)
    active = (teacher.active_b or teacher.params_b) if teacher else None
    answers = 2.0 * active * 1e9 * spent if active and spent else None
    total = train + answers if train is not None and answers is not None else None
    known = base is not None and base.params_b and base.pretrain_tokens_t
    original = 6.0 * base.params_b * 1e9 * base.pretrain_tokens_t * 1e12 if base and known else None  # type: ignore[operator]
    threshold = original / 3 if original else FALLBACK_FLOP
    share = total / threshold if total is not None else None

    def fact(value: float | None, origin: str) -> Fact:
        return Fact() if value is None else Fact(f"{value:.3g}", "estimated", origin)

    return {
        "train_flop": fact(train, f"6 x {parameters} x {tokens}"),
        "teacher_flop": fact(answers, f"2 x {active}e9 x {spent}; parameters from the catalogue"),
        "total_flop": fact(total, "sum of the two"),
        "base_flop": fact(original, "6 x parameters x tokens of pre-training, from the catalogue"),
        "threshold_flop": fact(
            threshold, "a third of the line above" if original else "fallback for an unknown original"
        ),
        "threshold_share": fact(share, "compute / threshold"),
        "gpai_conclusion": _conclusion(share, original),
    }


def _conclusion(share: float | None, original: float | None) -> Fact:
    if share is None:
        return Fact()
    if share >= 1 - TOLERANCE:
        said = {
            "en": "At or near the threshold (30 % tolerance): whoever markets it may be the provider of a GPAI model. "
            "Ask counsel.",
            "fr": "Au seuil ou près de lui (tolérance 30 %) : qui le commercialise peut être fournisseur d'un modèle "
            "GPAI. Consultez un juriste.",
        }
    else:
        small = original is not None and original < GPAI_FLOP
        said = {
            "en": "Far below the threshold: no new GPAI model by this modification."
            + (" The base itself is below 1e23 FLOP." if small else ""),
            "fr": "Loin sous le seuil : pas de nouveau modèle GPAI par cette modification."
            + (" La base elle-même est sous 1e23 FLOP." if small else ""),
        }
    return Fact(said, "estimated", "the lines above")


def _economy(record: Record, parameters: int) -> dict[str, Fact]:
    report = record.report
    arms = {arm["name"]: arm for arm in report.get("arms", [])}
    humble = "; ".join(
        f"{arms[n]['label']}: {arms[n]['accuracy']['value']:.3f}" for n in report.get("humble", []) if n in arms
    )
    teacher = catalog.find_model(record.teacher_name)
    size = teacher.params_b if teacher else None
    costs = [_cost(arms.get(str(report.get(side)), {})) for side in ("candidate", "reference")]
    shown = ", ".join("?" if cost is None else f"{cost:.4g}" for cost in costs)
    nobody = {
        "en": "none: the weights run where the client runs them",
        "fr": "aucun : les poids tournent là où le client les exécute",
    }
    return {
        "humble": _measured(humble, "eval/report.json"),
        "size_ratio": Fact(f"{parameters / (size * 1e9):.3g}", "estimated", "catalogue") if size else Fact(),
        "cost_1000": Fact(shown, "measured", "eval/report.json") if any(c is not None for c in costs) else Fact(),
        "subcontractors": Fact(nobody, "declared", "what a bundle is"),
    }


def _cost(arm: Mapping[str, Any]) -> float | None:
    found = (arm.get("cost") or {}).get("per_1000_requests")
    return float(found["value"]) if found and found.get("value") is not None else None
