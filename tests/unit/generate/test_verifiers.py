"""Each verifier passes right answers in all their spellings, and names what is wrong with the others."""

from __future__ import annotations

import json

import pytest

from distill.errors import ConfigError
from distill.generate.verifiers import choice, exact, json_schema, numeric, regex
from tests.unit.generate.rows import row


@pytest.mark.parametrize(
    ("answer", "expected", "reason"),
    [
        ("Paris", "Paris", ""),
        ("  paris \n", "Paris", ""),
        ("Paris.", "Paris", "wrong"),
        ("cafe\u0301", "café", ""),
        ("Wien", ["Vienna", "Wien"], ""),
        ("3", 3, ""),
        ("x", None, "no_expected_answer"),
    ],
)
def test_exact(answer, expected, reason):
    assert exact.check(row(answer, meta={"expected": expected}), exact.Config()) == reason


def test_exact_can_mind_the_case():
    assert exact.check(row("paris", meta={"city": "Paris"}), exact.Config(field="city", ignore_case=False)) == "wrong"


@pytest.mark.parametrize(
    ("answer", "meta", "settings", "reason"),
    [
        (" mail ", {}, {"choices": ("mail", "web")}, ""),
        ("Mail", {}, {"choices": ("mail", "web")}, "not_a_choice"),
        ("web", {"choices": ["web"]}, {}, ""),
        ("web", {"legal": ["mail"]}, {"field": "legal"}, "not_a_choice"),
        ("web", {}, {}, "no_choices"),
    ],
)
def test_choice(answer, meta, settings, reason):
    assert choice.check(row(answer, meta=meta), choice.Config(**settings)) == reason


@pytest.mark.parametrize(
    ("answer", "expected", "reason"),
    [
        ("The total is 42.", 42, ""),
        ("6 times 7 is 42", "42", ""),
        ("It is 1.234,56 EUR", 1234.56, ""),
        ("It is 1,234.56 EUR", 1234.56, ""),
        ("It is 1 234,56 EUR", 1234.56, ""),
        ("It is 1\u202f234\u202f567 EUR", 1234567, ""),
        ("1'234.50", 1234.5, ""),
        ("−5", -5, ""),
        ("3,14", 3.14, ""),
        ("6.02e23", 6.02e23, ""),
        ("The share is 3/4.", 0.75, ""),
        ("\\boxed{\\frac{3}{8}}", "3/8", ""),
        ("x = -1/2", -0.5, ""),
        ("12/0", 3, "wrong_number"),
        ("on 24/12/2026", 2026, ""),
        (r"So \boxed{17} after 3 steps", 17, ""),
        ("12 of 15", 12, "wrong_number"),
        ("41.9", 42, "wrong_number"),
        ("none", 42, "no_number"),
        ("42", None, "no_expected_number"),
        ("42", "many", "no_expected_number"),
    ],
)
def test_numeric(answer, expected, reason):
    assert numeric.check(row(answer, meta={"expected": expected}), numeric.Config()) == reason


def test_a_number_of_two_readings_follows_the_stated_notation():
    rows = [row("1.234", meta={"expected": value}) for value in (1.234, 1234)]
    verdicts = {d: [numeric.check(r, numeric.Config(decimal=d)) for r in rows] for d in ("any", "point", "comma")}
    assert verdicts == {"any": ["", ""], "point": ["", "wrong_number"], "comma": ["wrong_number", ""]}


def test_tolerances_are_kept():
    close = row("99.5", meta={"expected": 100})
    assert numeric.check(close, numeric.Config()) == "wrong_number"
    assert numeric.check(close, numeric.Config(rel_tol=0.01)) == ""
    assert numeric.check(row("0.001", meta={"expected": 0}), numeric.Config(abs_tol=0.01)) == ""


def test_regex():
    config = regex.Config(pattern=r"[A-D]")
    assert regex.check(row(" B\n"), config) == ""
    assert regex.check(row("B, because"), config) == "no_match"
    assert regex.check(row("It is B."), regex.Config(pattern=r"\b[A-D]\b", whole=False)) == ""
    with pytest.raises(ValueError, match="not a regular expression"):
        regex.Config(pattern="(")


SHAPE = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ('{"name": "Ana", "age": 3}', ""),
        ('{"name": "Ana", "age": -3}', "wrong_shape"),
        ('{"age": 3}', "wrong_shape"),
        ('{"name": "Ana"', "not_json"),
        ('{"name": NaN}', "not_json"),
        ('Here: {"name": "Ana"}', "not_json"),
        ('```json\n{"name": "Ana"}\n```', "not_json"),
        ("[" * 100_000, "not_json"),
    ],
)
def test_json_schema(answer, reason):
    assert json_schema.check(row(answer), json_schema.Config(shape=SHAPE)) == reason


def test_a_code_block_is_opened_only_when_allowed():
    config = json_schema.Config(shape=SHAPE, fenced=True)
    assert json_schema.check(row('```json\n{"name": "Ana"}\n```'), config) == ""


def test_a_schema_that_is_none_is_a_config_error_and_nothing_is_fetched():
    with pytest.raises(ConfigError, match="not a JSON Schema"):
        json_schema.check(row("{}"), json_schema.Config(shape={"type": "objekt"}))
    outside = json_schema.Config(shape={"$ref": "http://127.0.0.1:9/x.json"})
    with pytest.raises(Exception, match=r"127\.0\.0\.1"):
        json_schema.check(row("{}"), outside)


def test_any_json_passes_without_a_shape():
    assert json_schema.check(row(json.dumps([1, 2])), json_schema.Config()) == ""
