"""The papers in French say the verdict in French; a report of an earlier version says it in the one language it has."""

import json

import pytest

from distill.release import card, dossier, facts, papers, record
from tests.unit.release.made import REPORT, base_folder, run_folder

FRENCH = {
    "headline": "L'élève ne suffit pas.",
    "parts": ["L'élève perd 7 points par rapport au professeur."],
    "sentence": "L'élève perd 7 points par rapport au professeur.",
    "labels": {"teacher": "le professeur", "base": "l'élève non entraîné", "student": "l'élève"},
}


@pytest.fixture
def made(tmp_path):
    """A function of the report: the record of a run that was evaluated so."""
    from distill.models import resolve

    base = base_folder(tmp_path / "base")
    config, folder = run_folder(tmp_path / "run", base)

    def read(report):
        folder.report_json.write_text(json.dumps(report))
        return record.read(config, folder, resolve(config.student.model, config.resolve(".")))

    return read


def report(**changes):
    return REPORT | {"verdict": REPORT["verdict"] | {"fr": FRENCH}, "humble": ["base"]} | changes


def test_the_loss_statement_and_the_card_say_the_verdict_in_their_own_language(made):
    found = made(report())
    for write in (papers.distillation, lambda r, language: card.model_card(r, {}, [], language)):
        english, french = write(found, "en"), write(found, "fr")
        assert REPORT["verdict"]["sentence"] in english
        assert FRENCH["sentence"] in french
        assert REPORT["verdict"]["sentence"] not in french
    assert "| le professeur |" in card.model_card(found, {}, [], "fr")
    assert "| the teacher |" in card.model_card(found, {}, [], "en")


def test_the_dossier_names_the_humble_alternative_in_its_own_language(made, tmp_path):
    known = facts._economy(made(report()), 1000)["humble"]
    assert dossier.said(known.value, "fr") == "l'élève non entraîné: 0.290"
    assert dossier.said(known.value, "en") == "the base: 0.290"
    assert facts._economy(made(report(humble=[])), 1000)["humble"].mark == "missing"


def test_a_report_of_an_earlier_version_and_a_run_without_one(made):
    assert made(REPORT).verdict_in("fr") == REPORT["verdict"]["sentence"]
    assert made({}).verdict_in("fr") == "Cette exécution n'a pas d'évaluation."
    assert made({}).verdict == "This run has no evaluation."
