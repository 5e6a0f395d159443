"""The European dossier: forms of the AI Act, GDPR, DORA and frugality, filled from the run, in English and French."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distill.release.card import cell, table
from distill.release.pages import text_of

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

    return list(YAML(typ="safe").load(text_of("dossier.yaml"))["sections"])


def filled(facts: Mapping[str, Fact], language: str) -> list[dict[str, Any]]:
    """The sections with their rows in one language: label, id, value, mark, origin."""
    return [
        {
            "id": section["id"],
            "title": section[language],
            "source": section["source"],
            "rows": [
                {
                    "id": str(field["id"]),
                    "label": field[language],
                    "value": "" if (fact := facts[field["fact"]]).mark == "missing" else said(fact.value, language),
                    "mark": fact.mark,
                    "origin": fact.origin,
                }
                for field in section["fields"]
            ],
        }
        for section in forms()
    ]


def counted(sections: list[dict[str, Any]]) -> dict[str, int]:
    """Mark -> number of fields."""
    marks = [row["mark"] for section in sections for row in section["rows"]]
    return {mark: marks.count(mark) for mark in MARKS["en"]}


def markdown(record: Record, facts: Mapping[str, Fact], language: str) -> str:
    """The dossier in one language, as Markdown."""
    words, marks, sections = WORDS[language], MARKS[language], filled(facts, language)
    count = str(words["count"]).format(**counted(sections))
    parts = [f"# {words['title']}: {record.title}\n", str(words["note"]), "", count, ""]
    for section in sections:
        rows = [
            (row["id"], row["label"], row["value"] or "-", marks[row["mark"]], row["origin"] or "-")
            for row in section["rows"]
        ]
        parts += [f"## {section['title']}\n", f"*{cell(section['source'])}*\n", *table(tuple(words["head"]), rows)]
    return "\n".join(parts).rstrip() + "\n"


def html(record: Record, facts: Mapping[str, Fact], language: str) -> str:
    """The dossier in one language, as one page that loads nothing; it prints well."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    made = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(
        text_of("dossier.html.j2")
    )
    sections = filled(facts, language)
    return made.render(
        title=record.title,
        language=language,
        words=WORDS[language],
        marks=MARKS[language],
        counts=counted(sections),
        sections=sections,
        style=Markup(text_of("paper.css")),
    )


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
