"""The facts that the European dossier is filled from, each with how it is known.

Marks: `measured` by this run; `estimated` by a formula or a dated catalogue; `declared` by a person in the
configuration; `missing`: nobody knows, and nothing is made up.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from distill import catalog
from distill.release import tensors
from distill.release.measured import eur_per_1000, wh_per_1000
from distill.release.words import LANGUAGES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
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
    **{name: name for name in ("authorised_representative", "data_collection_date", "other_sources", "bias")},
    **{name: name for name in ("integration", "hardware", "grid_zone", "marking", "person_type", "parent_id")},
    **{name: name for name in ("criticality", "contract_term", "recovery", "audit_rights")},
}
# Nothing in a run measures these today.
UNKNOWN = ("memorisation", "illegal_content", "user_data")
LEI = re.compile(r"[A-Z0-9]{18}[0-9]{2}")


@dataclass(frozen=True)
class Fact:
    """A value, how it is known, and from where. A text may come in two languages."""

    value: Any = None
    mark: Mark = "missing"
    origin: str = ""


def gather(
    record: Record, weights: Path, config: Mapping[str, Any], forms: Mapping[str, Mapping[str, Any]]
) -> dict[str, Fact]:
    """Every fact by name. ``weights``: a folder of the student's shapes; ``config``: its config.json; ``forms``: what
    was exported, with its checks.
    """
    found: dict[str, Fact] = dict.fromkeys(UNKNOWN, Fact())
    declared = record.settings["release"]["declared"]
    for name, setting in DECLARED.items():
        value = declared[setting]
        found[name] = Fact(value, "declared", f"release.declared.{setting}") if value else Fact()
    parameters = sum(math.prod(t.shape) for t in tensors.read_index(weights).values())
    found |= _identity(record, config, parameters)
    found |= _data(record)
    found |= _compute(record, parameters)
    found |= _energy(record)
    found |= _delivery(record, forms)
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
        "crawlers": Fact(nobody, "measured", "the run reads prompt files and asks its teachers"),
        "continuous": Fact(
            {"en": "no: one training run", "fr": "non : un seul entraînement"}, "measured", "student.json"
        ),
        "selection": _selection(record),
        "prompt_masking": _masking(record),
        "teacher_route": _route(record),
    }


def _selection(record: Record) -> Fact:
    """How answers were asked for and sifted."""
    generate = record.settings["generate"]
    names = [", ".join(item["kind"] for item in generate.get(part, ())) for part in ("filters", "verifiers")]
    said = f"samples: {generate['samples']}, temperature: {generate['temperature']}"
    parts = [said, *(f"{part}: {shown}" for part, shown in zip(("filters", "verifiers"), names, strict=True) if shown)]
    return _measured("; ".join(parts), "config/run.json")


def _masking(record: Record) -> Fact:
    """What happened to personal data before prompts left."""
    said = {
        "allow": {"en": "sent as they were", "fr": "envoyées telles quelles"},
        "mask": {"en": "replaced by their kind", "fr": "remplacées par leur genre"},
        "block": {"en": "refused", "fr": "refusées"},
    }
    return _measured(said.get(record.settings["prompts"].get("personal_data")), "config/run.json")


def _energy(record: Record) -> dict[str, Fact]:
    """Energy as processors and cards reported it; its CO2e by a dated intensity of the declared zone."""
    wh = record.student.get("wh")
    kwh = f"{wh / 1000:.3g}" if isinstance(wh, int | float) else None
    counters = {
        "en": "counters of processors (RAPL) and cards (NVML) during training",
        "fr": "compteurs des processeurs (RAPL) et des cartes (NVML) pendant l'entraînement",
    }
    return {
        "energy_kwh": _measured(kwh, "student/student.json"),
        "energy_method": _measured(counters if kwh else None, "student/student.json"),
        "co2_g": emissions(record),
    }


def emissions(record: Record) -> Fact:
    """Grams of CO2e of the training; missing without measured energy or a declared zone that the catalogue knows."""
    wh, zone = record.student.get("wh"), record.settings["release"]["declared"]["grid_zone"]
    row = next((row for row in catalog.grid() if row.zone == zone), None)
    if not isinstance(wh, int | float) or row is None:
        return Fact()
    grams = f"{wh / 1000 * row.g_per_kwh:.3g}"
    return Fact(grams, "estimated", f"{wh / 1000:.3g} kWh x {row.g_per_kwh} g/kWh ({zone}, {row.as_of}: {row.source})")


def _delivery(record: Record, forms: Mapping[str, Mapping[str, Any]]) -> dict[str, Fact]:
    """What follows from handing over weights in open formats, and from what was declared."""
    declared = record.settings["release"]["declared"]
    paid, code = declared["annual_cost_eur"], declared["lei"]
    weights = {label: facts for label, facts in forms.items() if "bytes" in facts}
    small = min(weights, key=lambda label: (weights[label]["bytes"], label), default=None)
    shown = None
    if small is not None:
        score = weights[small].get("score")
        shown = f"{small}: {weights[small]['bytes'] / 1e6:.1f}"
        shown += f"; {score['export']:.3f} ({score['student']:.3f}), n = {score['items']}" if score else ""
    here = {"en": "where the client runs the weights", "fr": "là où le client exécute les poids"}
    swap = {
        "en": "weights, formats and servers are open: another supplier can serve or retrain them",
        "fr": "poids, formats et serveurs sont ouverts : un autre fournisseur peut les servir ou les réentraîner",
    }
    sold = {
        "en": "not claimed: the delivery is paid for",
        "fr": "non revendiquée : la livraison est payante",
    }
    request = {"en": "1,000 requests of the evaluation", "fr": "1 000 requêtes de l'évaluation"}
    none_found = {
        "en": "none but those allowed in the configuration",
        "fr": "aucun hors ceux admis dans la configuration",
    }
    return {
        "forms": _measured(", ".join(sorted(forms)), "release.json"),
        "smallest": _measured(shown, "release.json"),
        "data_location": Fact(here, "declared", "what a bundle is"),
        "substitutability": Fact(swap, "declared", "what a bundle is"),
        "open_source": Fact(sold, "declared", "release.declared.annual_cost_eur") if paid else Fact(),
        "currency": Fact("EUR", "declared", "release.declared.annual_cost_eur") if paid else Fact(),
        "code_type": Fact("LEI" if LEI.fullmatch(code) else "EUID", "estimated", "its form") if code else Fact(),
        "functional_unit": _measured(request if record.report else None, "eval/report.json"),
        "personal_data_found": Fact(none_found, "measured", "the scan before the seal, which refuses any"),
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

    trainable = record.student.get("trainable")
    return {
        "compute_method": Fact(
            "6 x P x D (C(2025) 5045, A.1); 2 x P x T", "estimated", "parameters P, tokens trained on D, tokens asked T"
        ),
        "inference_flop": fact(2.0 * parameters, f"2 x {parameters}"),
        "trained_share": _measured(f"{trainable / parameters:.3g}" if trainable else None, "student/student.json"),
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
    humble = {
        language: "; ".join(
            f"{labels[n]}: {arms[n]['accuracy']['value']:.3f}" for n in report.get("humble", []) if n in arms
        )
        for language in LANGUAGES
        for labels in [record.labels_in(language)]
    }
    teacher = catalog.find_model(record.teacher_name)
    size = teacher.params_b if teacher else None
    sides = ("candidate", "reference")
    energy = [wh_per_1000(report, side) for side in sides]
    costs = [eur_per_1000(report, side) for side in sides]
    nobody = {
        "en": "none: the weights run where the client runs them",
        "fr": "aucun : les poids tournent là où le client les exécute",
    }
    return {
        "humble": _measured(humble if humble["en"] else None, "eval/report.json"),
        "size_ratio": Fact(f"{parameters / (size * 1e9):.3g}", "estimated", "catalogue") if size else Fact(),
        "cost_1000": Fact(_pair(costs), "measured", "eval/report.json")
        if any(c is not None for c in costs)
        else Fact(),
        "energy_1000": _energy_fact(energy),
        "subcontractors": Fact(nobody, "declared", "what a bundle is"),
    }


def _energy_fact(sides: Sequence[tuple[float | None, str]]) -> Fact:
    """Wh of both sides. Measured only where no side that has a figure was estimated."""
    ways = {how for value, how in sides if value is not None}
    if not ways:
        return Fact()
    mark: Mark = "measured" if ways == {"measured"} else "estimated"
    return Fact(_pair([value for value, _ in sides]), mark, "eval/report.json")


def _pair(values: Sequence[float | None]) -> str:
    return ", ".join("?" if value is None else f"{value:.4g}" for value in values)
