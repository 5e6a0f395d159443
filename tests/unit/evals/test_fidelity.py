"""The distillation loss statement: refusals, answers in another language, calibration, and further slices."""

import random
from dataclasses import replace

import numpy as np
import pytest

from distill.errors import DataError
from evals import consistency, fidelity, language_confusion, refusals, stats
from evals.analysis import Arm, Question, analyse
from evals.samples import Sample, read, write
from evals.slices import sliced
from evals.tasks import classification, exact, open_answer, translation
from evals.tasks._base import read_items
from tests.unit.evals.synthetic import systems

TEXTS = {
    "en": "The invoice of last month was not paid, and we would like to know when you can send it to us.",
    "fr": "La facture du mois dernier n'a pas été payée et nous voudrions savoir quand vous pouvez nous l'envoyer.",
    "de": "Die Rechnung vom letzten Monat wurde nicht bezahlt, und wir möchten wissen, wann Sie sie uns schicken.",
    "pl": "Faktura z ostatniego miesiąca nie została zapłacona i chcielibyśmy wiedzieć, kiedy można ją do nas wysłać.",
    "el": "Το τιμολόγιο του προηγούμενου μήνα δεν πληρώθηκε και θα θέλαμε να ξέρουμε πότε μπορείτε να το στείλετε.",
}
CHINESE = "上个月的发票没有付款，我们想知道您什么时候可以把它寄给我们，谢谢您的帮助和支持。"
RUSSIAN = "Счёт за прошлый месяц не был оплачен, и мы хотели бы узнать, когда вы сможете отправить его нам."


def sample(number, text, lang="fr", task="mails", gold="", **changes):
    return Sample(f"i{number}", task, f"c{number // 2}", lang, gold, "", text, text.lower(), 1.0, **changes)


def test_refusals_are_shares_of_both_systems_with_intervals_over_clusters():
    no = ("Je ne peux pas vous aider.", "I'm sorry, but I can't help with that.", TEXTS["fr"])
    ours = [sample(n, no[0] if n < 6 else TEXTS["fr"]) for n in range(20)]
    theirs = [sample(n, no[1] if 4 <= n < 8 else TEXTS["fr"]) for n in range(20)]
    clusters = [s.cluster for s in ours]
    found = refusals.refusals(ours, theirs, clusters, ["mails"])
    assert found["both"] == 2
    assert (found["candidate"]["share"]["value"], found["reference"]["share"]["value"]) == (0.3, 0.2)
    expected = stats.accuracy([n < 6 for n in range(20)], clusters)
    assert found["candidate"] == {"n": 20, "share": expected.as_dict()}
    assert refusals.refusals(ours, theirs, clusters, ["other"]) is None
    broken = [replace(s, text="", reject="http_500") for s in ours]
    assert refusals.refusals(broken, theirs, clusters, ["mails"])["candidate"]["share"]["value"] == 0


def test_answers_in_another_language_are_counted_and_short_ones_and_labels_are_not():
    ours = [sample(0, TEXTS["en"]), sample(1, TEXTS["fr"]), sample(2, "facture"),
            sample(3, f"{TEXTS['fr']}\n{TEXTS['de']}"), sample(4, CHINESE), sample(5, RUSSIAN),
            sample(6, TEXTS["fr"] + "\n```\nthe and of in is that it for\n```"), sample(7, TEXTS["el"])]  # fmt: skip
    theirs = [sample(n, TEXTS["fr"]) for n in range(8)]
    found = language_confusion.confusion(ours, theirs, [s.cluster for s in ours], ["mails"])
    assert found["candidate"]["checked"] == 7  # one word tells nothing
    assert found["candidate"]["wrong"] == 4  # English, Chinese, Russian, Greek
    assert found["candidate"]["wrong_line"] == 5  # and the one with a German line
    assert found["reference"]["wrong"] == found["reference"]["wrong_line"] == 0
    assert found["reference"]["share"]["value"] == 0
    labels = [sample(n, "games") for n in range(8)]
    assert language_confusion.confusion(labels, labels, [s.cluster for s in labels], ["mails"]) is None
    assert language_confusion.confusion(ours, theirs, [s.cluster for s in ours], []) is None


@pytest.mark.parametrize("lang", TEXTS)
@pytest.mark.parametrize("written", TEXTS)
def test_every_pair_of_languages_is_told_apart(lang, written):
    assert language_confusion.in_another(TEXTS[written], lang) == (lang != written)


def test_a_translation_is_asked_for_in_the_language_of_its_gold_and_not_of_its_item():
    item = sample(0, "", lang="de", gold=TEXTS["en"])
    assert language_confusion.asked_for(item) == "en"
    assert language_confusion.asked_for(replace(item, gold="invoice")) == "de"
    assert language_confusion.asked_for(replace(item, lang="")) == "en"
    assert language_confusion.asked_for(replace(item, lang="", gold="invoice")) == ""
    assert not language_confusion.checkable(TEXTS["en"], "ja")  # nobody here can tell


def test_only_tasks_whose_answers_are_text_have_refusals_and_a_language():
    labels = classification.Config(kind="classification", path="x", choices=("a", "b"))
    assert not labels.writes_text
    assert not exact.Config(kind="exact", path="x", choices=("a", "b")).writes_text
    assert exact.Config(kind="exact", path="x").writes_text
    assert translation.Config(kind="translation", path="x").writes_text
    assert open_answer.Config(kind="open_answer", path="x", judge={"kind": "fake"}).writes_text


def test_a_report_on_files_guesses_from_the_references_answers_what_is_text():
    def report(texts):
        arms = [Arm(n, n, [sample(i, texts[i % len(texts)]) for i in range(20)]) for n in ("teacher", "student")]
        return analyse(arms, Question("student", "teacher", draws=1000, extra={"name": "x"}))["fidelity"]

    assert report([TEXTS["fr"]])["refusals"]["candidate"]["n"] == 20
    assert report([TEXTS["fr"]])["languages"]["candidate"]["checked"] == 20
    assert report(["games", "mail"])["refusals"] is report(["games", "mail"])["languages"] is None


# -- calibration ------------------------------------------------------------------------------------------------------


def test_calibration_is_zero_for_a_calibrated_system_and_unknown_without_confidence():
    rows = systems()["student"]
    clusters = [s.cluster for s in rows]
    share = sum(s.correct for s in rows) / len(rows)
    flat = fidelity.calibration([replace(s, confidence=share) for s in rows], clusters)
    assert (flat["ece"], flat["gap"]["value"]) == (pytest.approx(0.0), pytest.approx(0.0))
    sure = fidelity.calibration([replace(s, confidence=1.0) for s in rows], clusters)
    assert (sure["ece"], sure["gap"]["value"]) == (pytest.approx(1 - share), pytest.approx(1 - share))
    assert sure["gap"]["low"] > 0  # too sure of itself
    shy = fidelity.calibration([replace(s, confidence=0.0) for s in rows], clusters)
    assert shy["gap"]["high"] < 0
    assert fidelity.calibration([replace(rows[0], confidence=None), *rows[1:]], clusters) is None


def calibrated(seed, clusters=60, size=4, bias=0.0):
    """Records of a system that is right as often as it says (less ``bias``); a cluster is hard or easy as a whole."""
    rng = np.random.default_rng(seed)
    sure = 0.3 + 0.65 * rng.random((clusters, size))
    latent = 0.6 * rng.standard_normal((clusters, 1)) + 0.8 * rng.standard_normal((clusters, size))
    cut = np.interp(sure - bias, GRID, CUTS)
    right = (latent < cut).ravel().astype(float)
    names = np.repeat(np.arange(clusters), size).tolist()
    rows = [
        Sample(str(n), "t", str(c), "", "", "", "", "", s, confidence=p)
        for n, (c, s, p) in enumerate(zip(names, right, sure.ravel().tolist(), strict=True))
    ]
    return rows, names


GRID = np.linspace(0.01, 0.99, 393)
CUTS = np.array([stats.NormalDist().inv_cdf(float(p)) for p in GRID])


def test_the_gap_covers_and_ece_is_above_zero_by_chance_as_told():
    gaps, errors, told = [], [], []
    for seed in range(1200):
        found = fidelity.calibration(*calibrated(seed))
        gaps.append(found["gap"]["low"] <= 0 <= found["gap"]["high"])
        errors.append(found["ece"])
        told.append(found["ece_by_chance"])
    assert np.mean(gaps) == pytest.approx(0.95, abs=0.013)
    assert np.mean(errors) > 0.05  # a perfectly calibrated system: the bias is no small thing
    assert np.mean(told) == pytest.approx(np.mean(errors), rel=0.08)
    off = [fidelity.calibration(*calibrated(seed, bias=0.2)) for seed in range(200)]
    assert np.mean([f["ece"] for f in off]) > 2 * np.mean([f["ece_by_chance"] for f in off])
    assert np.mean([f["gap"]["low"] <= 0.2 <= f["gap"]["high"] for f in off]) > 0.9


# -- slices -----------------------------------------------------------------------------------------------------------


def hard_and_easy():
    return {
        name: [replace(s, slices={"difficulty": ("hard", "easy")[n % 2]} if n > 3 else {}) for n, s in enumerate(rows)]
        for name, rows in systems().items()
        if name in ("teacher", "student")
    }


def test_further_slices_are_rows_like_languages_and_one_family_of_p_values():
    arms = hard_and_easy()
    clusters = [s.cluster for s in arms["teacher"]]
    told = sliced(arms, clusters, "student", "teacher")
    (hard,) = (row for row in told["slices"]["difficulty"] if row["name"] == "hard")
    index = [n for n, s in enumerate(arms["teacher"]) if s.slices.get("difficulty") == "hard"]
    assert hard["n"] == len(index) == 118
    right = sum(arms["student"][n].correct for n in index)
    assert hard["arms"]["student"]["accuracy"]["value"] == pytest.approx(right / 118)
    rows = [*told["languages"], *told["tasks"], *told["slices"]["difficulty"]]
    assert len(rows) == 4 + 1 + 2
    assert [row["p_holm"] for row in rows] == stats.holm([row["p"] for row in rows])
    report = analyse(
        [Arm(n, n, s) for n, s in arms.items()], Question("student", "teacher", draws=1000, extra={"name": "x"})
    )
    assert report["slices"] == told["slices"]


def test_a_field_that_names_the_items_is_no_slice():
    arms = {name: [replace(s, slices={"id": s.id}) for s in rows] for name, rows in hard_and_easy().items()}
    with pytest.raises(DataError, match="240 values, at most 50"):
        sliced(arms, [s.cluster for s in arms["teacher"]], "student", "teacher")


def test_slices_come_from_the_rows_of_a_task_and_survive_the_file(tmp_path):
    (tmp_path / "items.jsonl").write_text('{"id": "1", "label": "a", "level": 3}\n{"id": "2", "label": "b"}\n')
    config = classification.Config(kind="classification", path="items.jsonl", slices=("level",))
    items = read_items(config, tmp_path / "items.jsonl")
    from evals.tasks._base import sliced as of_item

    assert [of_item(item, config) for item in items] == [{"level": "3"}, {}]
    with pytest.raises(DataError, match="no row has the field 'depth'"):
        read_items(config.model_copy(update={"slices": ("depth",)}), tmp_path / "items.jsonl")
    rows = [sample(0, "x", slices={"level": "3", "source": 'a"b'}), sample(1, "y")]
    write(tmp_path / "s.parquet", rows, {})
    assert read(tmp_path / "s.parquet") == rows
    (tmp_path / "s.jsonl").write_text('{"id": "1", "correct": 1, "slices": {"level": 3, "none": null}}\n')
    assert read(tmp_path / "s.jsonl")[0].slices == {"level": "3"}
    (tmp_path / "s.jsonl").write_text('{"id": "1", "correct": 1, "slices": [1]}\n')
    with pytest.raises(DataError, match="slices must be an object"):
        read(tmp_path / "s.jsonl")


# -- votes ------------------------------------------------------------------------------------------------------------


def ballot(*forms, **changes):
    return [
        replace(sample(0, form), predicted=form, prompt_tokens=10, completion_tokens=n + 1, cost_nano=7, **changes)
        for n, form in enumerate(forms)
    ]


def test_what_most_say_wins_the_share_that_agrees_is_the_confidence_and_all_are_paid():
    (found,) = consistency.tallied(ballot("a", "b", "b", "c", "b"), 5)
    assert (found.text, found.confidence) == ("b", 0.6)
    assert (found.prompt_tokens, found.completion_tokens, found.cost_nano) == (50, 15, 35)
    assert consistency.tallied(ballot("a", "b", "b", "a"), 4)[0].text == "a"  # of equally many the earliest
    assert consistency.per_item([1.0, 2.0, 3.0, 4.0], 2) == (3.0, 7.0)
    unpriced = [*ballot("a"), replace(ballot("a")[0], cost_nano=None)]
    assert consistency.tallied(unpriced, 2)[0].cost_nano is None


def test_a_broken_or_illegal_answer_agrees_with_nobody():
    broken = replace(ballot("a")[0], text="", predicted="", reject="http_500")
    (found,) = consistency.tallied([broken, broken, broken, *ballot("a")], 4)
    assert (found.text, found.confidence) == ("a", 0.25)
    (none,) = consistency.tallied(ballot("", ""), 2)
    assert none.confidence == 0.0  # it answers, and nothing that it says is an answer
    (gone,) = consistency.tallied([broken, broken], 2)
    assert gone.confidence is None


# -- errors never inflate a score -------------------------------------------------------------------------------------


def test_broken_calls_to_the_teacher_cannot_make_the_student_pass():
    arms = {
        name: rows for name, rows in systems(accuracies={"student": 0.80}).items() if name in ("teacher", "student")
    }
    rng = random.Random(0)

    def report(teacher):
        made = [Arm("teacher", "the teacher", teacher), Arm("student", "the student", arms["student"])]
        return analyse(made, Question("student", "teacher", margin=0.03, draws=1000, extra={"name": "x"}))

    clean = report(arms["teacher"])
    assert clean["verdict"]["outcome"] == "inconclusive"
    broken = [
        replace(s, text="", predicted="", correct=0.0, reject="http_500") if rng.random() < 0.1 else s
        for s in arms["teacher"]
    ]
    found = report(broken)
    plain = found["pairs"][0]["difference"]
    assert plain["low"] > -0.03  # the negative control: as it stands it would be a pass
    assert found["verdict"]["outcome"] == found["arms"][1]["outcome"] == "inconclusive"
    assert f"{sum(bool(s.reject) for s in broken)} calls to the teacher broke" in found["verdict"]["sentence"]
    assert "broke" not in clean["verdict"]["sentence"]
    student_alone = found["cascade"]["curve"][0]
    assert student_alone["outcome"] == "inconclusive"
    silent = [replace(s, reject="empty") if s.reject else s for s in broken]
    assert report(silent)["verdict"]["outcome"] == "pass"  # a teacher that says nothing is wrong, not broken
