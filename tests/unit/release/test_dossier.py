"""The papers: every value comes from a record or is marked as missing; the arithmetic is the guidelines'."""

import json

import pytest

from distill import catalog
from distill.config import Declared
from distill.release import dossier, facts
from distill.release.measured import wh_per_1000
from tests.unit.release.made import base_folder, build, run_folder


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A bundle whose base and teacher the catalogue knows, with a few declared fields."""
    base = base_folder(tmp_path_factory.mktemp("base") / "tiny-base")
    declared = {"legal_name": "Atelier Dupont SAS", "country": "FR"}
    config, folder = run_folder(tmp_path_factory.mktemp("run") / "runs" / "sorter", base, declared=declared)
    teacher = config.teacher.model_copy(update={"model": "qwen2.5-coder-1.5b-instruct"})
    config = config.model_copy(update={"teacher": teacher})
    folder.data_card.write_text(
        json.dumps({"rows": {"asked": 20, "kept": 17}, "tokens": {"prompt": 9000, "completion": 1000}})
    )
    return build(config, folder)


def values(bundle):
    """Section -> field -> entry."""
    return json.loads((bundle / "papers/dossier.json").read_text())


def test_every_field_of_every_form_has_a_fact_and_says_how_it_is_known(built):
    forms = dossier.forms()
    found = values(built)
    for section in forms:
        for field in section["fields"]:
            entry = found[section["id"]][str(field["id"])]
            assert entry["mark"] in dossier.MARKS["en"]
            assert (entry["value"] is None) == (entry["mark"] == "missing"), field
            assert field["en"]
            assert field["fr"]


def test_the_compute_is_the_guidelines_arithmetic_on_recorded_numbers(built):
    gpai = values(built)["gpai"]
    model = catalog.find_model("qwen2.5-coder-1.5b-instruct")
    parameters = int(gpai["A.1 training"]["origin"].split(" x ")[1])
    assert float(gpai["A.1 training"]["value"]) == pytest.approx(6 * parameters * 4096, rel=1e-2)
    assert float(gpai["A.1 synthetic data"]["value"]) == pytest.approx(2 * model.params_b * 1e9 * 10_000, rel=1e-2)
    total = float(gpai["A.1 training"]["value"]) + float(gpai["A.1 synthetic data"]["value"])
    assert float(gpai["A.1 total"]["value"]) == pytest.approx(total, rel=1e-2)
    assert float(gpai["threshold"]["value"]) == pytest.approx(3.33e22)  # this base is unknown to the catalogue
    assert gpai["original"]["mark"] == "missing"
    assert "no new GPAI model" in gpai["conclusion"]["value"]["en"]
    assert {gpai[field]["mark"] for field in ("A.1 total", "threshold", "conclusion")} == {"estimated"}


@pytest.mark.parametrize(
    ("share", "word"), [(1e-6, "no new GPAI"), (0.69, "no new"), (0.71, "may be"), (3.0, "may be")]
)
def test_the_conclusion_changes_within_the_tolerance_of_the_threshold(share, word):
    assert word in facts._conclusion(share, None).value["en"]
    assert facts._conclusion(None, None).mark == "missing"


def test_a_number_that_is_not_known_is_missing_and_so_is_what_needs_it(tmp_path):
    base = base_folder(tmp_path / "base")
    gpai = values(build(*run_folder(tmp_path / "runs" / "sorter", base)))["gpai"]  # teacher not in the catalogue
    for field in ("A.1 synthetic data", "A.1 total", "ratio", "conclusion"):
        assert gpai[field] == {**gpai[field], "value": None, "mark": "missing"}, field


def test_what_a_person_declares_is_marked_so_and_the_rest_stays_missing(built):
    form = values(built)["mdf"]
    assert form["legal name"] == {
        "fact": "legal_name",
        "value": "Atelier Dupont SAS",
        "mark": "declared",
        "origin": "release.declared.legal_name",
    }
    assert form["energy"]["mark"] == "missing"
    assert values(built)["dora"]["c0080"]["value"] == "FR"


def test_every_declared_setting_reaches_the_dossier():
    assert set(facts.DECLARED.values()) == set(Declared.model_fields)


def test_the_synthetic_data_section_is_filled_from_the_ledger_of_answers(built):
    summary = values(built)["summary"]
    assert summary["2.5"]["value"] == "acme/Teacher-9B: 12"
    assert summary["2.5 use"]["value"] == "20 -> 17"
    assert summary["1.3 languages"]["value"] == "fr, de"


def test_both_languages_hold_the_same_values(built):
    english, french = ((built / f"papers/dossier.{lang}.md").read_text() for lang in ("en", "fr"))
    assert english.count("\n| ") == french.count("\n| ")
    assert english.count("| missing |") == french.count("| manquant |") > 5
    assert "Atelier Dupont SAS" in english
    assert "Atelier Dupont SAS" in french
    assert "Dossier européen" in french


def test_the_bill_of_materials_is_valid_cyclonedx(built):
    pytest.importorskip("cyclonedx")
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = (built / "bom.cdx.json").read_text()
    checker = JsonStrictValidator(SchemaVersion.V1_6)
    assert checker.validate_str(text) is None
    broken = text.replace('"machine-learning-model"', '"machine-learning-modell"', 1)
    assert checker.validate_str(broken) is not None  # the negative control


def test_the_bill_names_base_teacher_data_metrics_and_the_hash_of_every_weight_file(built):
    from distill.artifacts import sha256_file

    bill = json.loads((built / "bom.cdx.json").read_text())
    model = bill["metadata"]["component"]
    hashes = {item["name"]: item["hashes"][0]["content"] for item in model["components"]}
    assert hashes == {"weights/model.safetensors": sha256_file(built / "weights/model.safetensors")}
    assert {"tiny-base", "acme/Teacher-9B"} <= {item["name"] for item in bill["components"]}
    metrics = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert metrics[0]["value"] == "0.74"
    assert metrics[0]["slice"] == "task: sections"


def test_the_pages_load_nothing_say_what_the_markdown_says_and_escape_what_a_person_wrote(tmp_path):
    base = base_folder(tmp_path / "base")
    declared = {"legal_name": "<script>alert(1)</script> & Fils"}
    bundle = build(*run_folder(tmp_path / "runs" / "sorter", base, declared=declared))
    for language, missing in (("en", "missing"), ("fr", "manquant")):
        page = (bundle / f"papers/dossier.{language}.html").read_text()
        text = (bundle / f"papers/dossier.{language}.md").read_text()
        assert page.count(f'">{missing}</span></td>') == text.count(f"| {missing} |")
        assert page.count("&lt;script&gt;alert(1)&lt;/script&gt; &amp; Fils") == 3
        assert "<script" not in page
        assert "src=" not in page
        assert "href=" not in page
        assert f'<html lang="{language}">' in page


@pytest.mark.parametrize(
    ("ways", "mark"),
    [
        (("measured", "measured"), "measured"),
        (("measured", "estimated"), "estimated"),
        (("unknown", "unknown"), "missing"),
    ],
)
def test_energy_of_answers_is_as_sure_as_its_least_sure_side(ways, mark):
    names = ("student", "teacher")
    arms = [
        {"name": n, "how": how, "wh_per_1000_requests": None if how == "unknown" else {"value": 3.1}}
        for n, how in zip(names, ways, strict=True)
    ]
    report = {"candidate": "student", "reference": "teacher", "energy": {"arms": arms}}
    found = facts._energy_fact([wh_per_1000(report, side) for side in ("candidate", "reference")])
    assert found.mark == mark
    assert found.value == (None if mark == "missing" else "3.1, 3.1")
    assert facts._energy_fact([wh_per_1000({**report, "energy": None}, "candidate")]).mark == "missing"
