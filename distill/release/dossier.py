"""The European dossier: forms of the AI Act, GDPR, DORA and frugality, filled from the run, in English and French."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

from distill.release.card import cell, table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from distill.release.facts import Fact
    from distill.release.record import Record

LANGUAGES = ("en", "fr")
MARKS = {
    "en": {"measured": "measured", "estimated": "estimated", "declared": "declared", "missing": "missing"},
    "fr": {"measured": "mesuré", "estimated": "estimé", "declared": "déclaré", "missing": "manquant"},
}
WORDS = {
    "en": {
        "title": "European dossier",
        "head": ("field", "", "value", "how it is known", "from"),
        "note": "Filled from the records of the run; not legal advice. Each value says how it is known; what nobody "
        "knows is marked as missing and is to be completed by whoever puts the model on the market.",
        "count": "{measured} measured, {estimated} estimated, {declared} declared, {missing} missing.",
    },
    "fr": {
        "title": "Dossier européen",
        "head": ("champ", "", "valeur", "comment on le sait", "origine"),
        "note": "Rempli à partir des relevés de l'exécution ; ceci n'est pas un avis juridique. Chaque valeur dit "
        "comment on la sait ; ce que personne ne sait est marqué manquant et reste à compléter par qui met le modèle "
        "sur le marché.",
        "count": "{measured} mesurés, {estimated} estimés, {declared} déclarés, {missing} manquants.",
    },
}


def forms() -> list[dict[str, Any]]:
    """The sections and their fields, as in `texts/dossier.yaml`."""
    from ruamel.yaml import YAML

    text = (resources.files("distill.release") / "texts" / "dossier.yaml").read_text("utf-8")
    return list(YAML(typ="safe").load(text)["sections"])


def markdown(record: Record, facts: Mapping[str, Fact], language: str) -> str:
    """The dossier in one language."""
    words, marks = WORDS[language], MARKS[language]
    sections = forms()
    used = [facts[field["fact"]] for section in sections for field in section["fields"]]
    counts = {mark: sum(fact.mark == mark for fact in used) for mark in marks}
    parts = [f"# {words['title']}: {record.title}\n", str(words["note"]), "", str(words["count"]).format(**counts), ""]
    for section in sections:
        rows = []
        for field in section["fields"]:
            fact = facts[field["fact"]]
            value = "" if fact.mark == "missing" else said(fact.value, language)
            rows.append((field["id"], field[language], value or "-", marks[fact.mark], fact.origin or "-"))
        parts += [f"## {section[language]}\n", f"*{cell(section['source'])}*\n", *table(tuple(words["head"]), rows)]
    return "\n".join(parts).rstrip() + "\n"


def machine_readable(facts: Mapping[str, Fact]) -> dict[str, Any]:
    """Section -> field -> value, mark and origin."""
    return {
        section["id"]: {
            field["id"]: {
                "fact": field["fact"],
                "value": facts[field["fact"]].value,
                "mark": facts[field["fact"]].mark,
                "origin": facts[field["fact"]].origin,
            }
            for field in section["fields"]
        }
        for section in forms()
    }


def said(value: Any, language: str) -> str:
    """A value in one language."""
    return str(value[language] if isinstance(value, dict) else value)
