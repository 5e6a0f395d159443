"""No personal data leaves in a bundle: planted in every field, it is found, and what is not personal data is not."""

import json

import pytest

from distill.errors import Refused
from distill.release import scan
from tests.unit.release.made import base_folder, build, run_folder

# Invented: the account is the example of its standard, the number one reserved for fiction.
PLANTED = {
    "an e-mail address": "anna.kowalska@firma.pl",
    "a bank account": "GB82 WEST 1234 5698 7654 32",
    "a payment card": "4111 1111 1111 1111",
    "a phone number": "+44 20 7946 0018",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The base model's folder."""
    return base_folder(tmp_path_factory.mktemp("base") / "tiny-base")


@pytest.mark.parametrize("what", PLANTED)
@pytest.mark.parametrize(
    "file", ["README.md", "papers/data.md", "report.html", "config/run.json", "serve/ollama/Modelfile"]
)
def test_each_kind_is_found_in_each_kind_of_file_and_not_repeated(what, file, tmp_path):
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<p>ask <b>{PLANTED[what]}</b> about it</p>")
    with pytest.raises(Refused) as caught:
        scan.refuse_personal_data(tmp_path, ())
    assert f"{file}: {what}" in str(caught.value)
    assert PLANTED[what] not in str(caught.value)
    scan.refuse_personal_data(tmp_path, (PLANTED[what],))


WHERE = ("summary", "system", "example", "card", "student", "report", "name", "licence", "demo", "language", "teacher")
ADDRESS = {where: f"{where}.kowalska@firma.pl" for where in WHERE}


@pytest.fixture(scope="module")
def planted(base, tmp_path_factory):
    """A bundle with another address in every record of its run, all of them allowed."""
    config, folder = run_folder(
        tmp_path_factory.mktemp("run") / "runs" / "sorter",
        base,
        summary=f"Sorts texts of {ADDRESS['summary']}",
        declared={"legal_name": ADDRESS["name"]},
        licence=f"on request from {ADDRESS['licence']}",
        languages=[ADDRESS["language"]],
        targets=["merged", {"kind": "demo", "examples": [{"text": ADDRESS["demo"]}]}],
        allow_personal_data=list(ADDRESS.values()),
    )
    values = config.resolved()
    values["prompts"] |= {"system": ADDRESS["system"], "examples": [{"user": ADDRESS["example"], "assistant": "games"}]}
    values["teacher"]["model"] = f"acme/{ADDRESS['teacher']}"
    folder.data_card.write_text(json.dumps({"note": ADDRESS["card"]}))
    path = folder.student / "student.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "log": ADDRESS["student"]}))
    folder.report_html.write_text(f"<title>r</title><td data-x='1'>{ADDRESS['report'].replace('@', '&#64;')}</td>")
    return build(type(config).model_validate(values), folder)


@pytest.mark.parametrize("where", WHERE)
def test_planted_in_any_record_of_the_run_it_is_found(where, planted):
    others = [address for address in ADDRESS.values() if address != ADDRESS[where]]
    shown = json.loads((planted / "config/run.json").read_text())
    shown["config"]["release"]["allow_personal_data"] = []  # names them all
    (planted / "config/run.json").write_text(json.dumps(shown))
    with pytest.raises(Refused, match="an e-mail address"):
        scan.refuse_personal_data(planted, others)
    scan.refuse_personal_data(planted, list(ADDRESS.values()))  # the negative control


def test_a_release_with_personal_data_is_refused_and_nothing_is_left(base, tmp_path):
    config, folder = run_folder(tmp_path / "runs" / "sorter", base, summary="Sorts texts of anna@firma.pl")
    with pytest.raises(Refused, match="an e-mail address"):
        build(config, folder)
    assert not list(folder.release.iterdir())


def test_the_declared_contact_may_stand_in_the_papers(base, tmp_path):
    declared = {"contact": "models@atelier-dupont.fr"}
    bundle = build(*run_folder(tmp_path / "runs" / "sorter", base, declared=declared))
    assert "models@atelier-dupont.fr" in (bundle / "papers/dossier.en.md").read_text()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("SHA256SUMS", "4111111111111111a0" * 4),
        ("bom.cdx.json", '{"content": "00411111111111111123456789abcdef0123456789abcdef0123456789abcdef"}'),
        ("bom.cdx.json", '{"serialNumber": "urn:uuid:00491701-2345-4678-9012-345678901234"}'),
        (
            "report.html",
            "<svg><path d='M 0123 456 789 01'/></svg><style>a{x:4111111111111111}</style><i data-n='4111111111111111'>",
        ),
        ("weights/tokenizer.json", "4111 1111 1111 1111 me@host.org"),
        ("LICENSE", "Copyright the author, author@project.org"),
        (
            "README.md",
            "0.0123456789, 134515008 parameters, 2026-11-23, v0.1.0, user@example.org, 6 x 134515008 x 22717",
        ),
    ],
)
def test_hashes_figures_dates_and_texts_of_others_are_no_personal_data(name, text, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    scan.refuse_personal_data(tmp_path, ())
