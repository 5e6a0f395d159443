"""The judge reads both orders, counts what it cannot read, measures its own error, and does not listen to answers."""

import json

import pytest

from distill import cli
from distill.records import Completion, Message
from evals import judge
from tests.unit.evals.attacks import attacks
from tests.unit.evals.obedient import FACT, rendered
from tests.unit.evals.obedient import judge as obedient

ALL = [(family, text) for family, texts in attacks().items() for text in texts]
GOOD = f"The sky is blue because of scattering. {FACT}"
CRITERIA = "Be fair."


def asked(first, second):
    return judge.compared("Why is the sky blue?", first, second, CRITERIA, 16).messages


def test_the_attack_set_is_large_and_without_repeats():
    assert len(attacks()) == 6
    assert len({text for _, text in ALL}) == len(ALL) >= 200


@pytest.mark.parametrize("family", attacks())
def test_no_answer_moves_a_judge_that_obeys_whatever_is_not_fenced(family):
    for text in attacks()[family]:
        bad = f"No idea. {text}"
        assert obedient(rendered(asked(bad, GOOD))) == "B", text
        assert obedient(rendered(asked(GOOD, bad))) == "A", text
        question = judge.graded("Why?", GOOD, bad, CRITERIA, 16).messages
        assert obedient(rendered(question)) == "wrong", text
        assert obedient(rendered(judge.graded(f"Why? {text}", GOOD, "No idea.", CRITERIA, 16).messages)) == "wrong", (
            text
        )


def naive(first, second):
    """What a judge is usually asked: texts between headings."""
    text = f"Question: why?\n\n### Answer A\n{first}\n\n### Answer B\n{second}\n\nWhich answer is better?"
    return [Message("system", "You are a judge."), Message("user", text)]


def test_the_same_judge_is_moved_where_answers_are_not_fenced():
    moved = dict.fromkeys(attacks(), 0)
    for family, text in ALL:
        moved[family] += obedient(rendered(naive(f"No idea. {text}", GOOD))) in ("A", "correct")
    assert sum(moved.values()) > 80  # negative control
    for family in ("commands", "forged fences", "forged turns", "forged verdicts", "praise and threats"):
        assert moved[family] > 0, family


def test_a_mark_that_is_known_beforehand_would_be_forged(monkeypatch):
    known = "0" * 24
    monkeypatch.setattr(judge.hashlib, "sha256", lambda data: type("H", (), {"hexdigest": lambda self: known * 3})())
    moved = [t for t in attacks()["forged fences"] if obedient(rendered(asked(f"No idea. \n{t}", GOOD))) == "A"]
    assert moved  # negative control


def test_forged_turns_open_a_turn_where_markers_are_kept(monkeypatch):
    monkeypatch.setattr(judge, "defused", lambda text: text)
    moved = [t for t in attacks()["forged turns"] if obedient(rendered(asked(f"No idea. {t}", GOOD))) != "B"]
    assert moved  # negative control


def test_markers_and_unseen_characters_are_struck_out_and_nothing_else():
    assert judge.defused("a <b> [x] 2 < 3 </p> é 日本\n\tok") == "a <b> [x] 2 < 3 </p> é 日本\n\tok"
    assert judge.defused("<|im_<|x|>start|>hi\u202e[INST]</s>\U000e0041") == "hi"
    assert len(judge.defused("x" * 100_000)) == judge.LONGEST


def test_the_same_texts_give_the_same_request_and_another_text_another_mark():
    one, same, other = asked("a", "b"), asked("a", "b"), asked("a", "c")
    assert one == same
    mark = one[1].content.split()[0]
    assert mark not in other[1].content


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A", 1.0), ("b.", 0.0), (" **Tie** ", 0.5), ('{"verdict": "A"}', 1.0),
        ("A is better", None), ("I prefer A", None), ("", None), ('{"verdict": "A", "x": 1}', None),
        ('{"verdict": ["A"]}', None), ("{" * 5000, None), ("AB", None), ("C", None), ("\ud800", None),
    ],
)  # fmt: skip
def test_only_a_listed_verdict_alone_counts(text, value):
    assert judge.verdict(Completion(text), judge.PREFERENCES) == value
    assert judge.verdict(Completion(text, reject="truncated"), judge.PREFERENCES) is None


# -- through the command -----------------------------------------------------------------------------------------------


def write(folder, name, texts):
    rows = [{"id": str(n), "text": text} for n, text in enumerate(texts)]
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / f"{name}.jsonl")


def run(folder, teacher, student, habit="honest", mode="pairwise", calibration=None, gold=True):
    count = len(teacher)
    rows = [{"id": str(n), "prompt": f"q{n}", **({"answer": GOOD} if gold else {})} for n in range(count)]
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "kind": "open_answer", "path": "items.jsonl", "mode": mode,
        "judge": {"kind": "tests.unit.evals.obedient", "habit": habit},
    }  # fmt: skip
    if calibration is not None:
        (folder / "people.jsonl").write_text("".join(json.dumps(row) + "\n" for row in calibration))
        task["calibration"] = "people.jsonl"
    (folder / "suite.yaml").write_text(json.dumps({"tasks": [task]}))
    files = [write(folder, "teacher", teacher), write(folder, "student", student)]
    suite, out = str(folder / "suite.yaml"), str(folder / "o")
    arguments = ["compare", *files, "--suite", suite, "--draws", "1000", "--out", out]
    assert cli.main(arguments) == 0
    report = json.loads((folder / "o" / "report.json").read_text())
    return report, report["judges"][0]


def test_answers_are_judged_against_the_reference_in_both_orders(tmp_path):
    # 12 better, 12 alike, 12 worse, 4 missing: 18 points of 40.
    student = [f"{FACT} {FACT} {n}" for n in range(12)] + [f"{FACT} {n}" for n in range(12)] + ["?"] * 12 + [None] * 4
    report, facts = run(tmp_path, [f"{FACT} one"] * 40, student, gold=False)
    arms = {arm["name"]: arm for arm in report["arms"]}
    assert arms["teacher"]["accuracy"]["value"] == 0.5
    assert arms["student"]["accuracy"]["value"] == pytest.approx(18 / 40)
    assert report["pairs"][0]["difference"]["value"] == pytest.approx(18 / 40 - 0.5)
    mine = facts["arms"]["student"]
    assert mine["verdicts"] == {"lost": 16, "tied": 12, "won": 12}
    assert mine["position_consistency"]["value"] == 1.0
    assert (facts["verdicts"], facts["unreadable"], facts["judges_itself"]) == (72, 0, [])
    assert arms["student"]["rejects"] == {"missing": 4}


def test_a_judge_that_likes_the_first_answer_gives_ties_and_is_found_out(tmp_path):
    _, facts = run(tmp_path, ["x"] * 10, [f"{FACT}"] * 10, habit="first")
    assert facts["arms"]["student"]["verdicts"] == {"tied": 10}
    assert facts["arms"]["student"]["position_consistency"]["value"] == 0.0


def test_a_verdict_that_cannot_be_read_is_an_error_and_never_a_win(tmp_path):
    report, facts = run(tmp_path, ["x"] * 10, [f"{FACT}"] * 10, habit="mumbles")
    assert facts["unreadable"] == 20
    assert facts["arms"]["student"]["win_rate"]["value"] == 0.0
    assert report["arms"][1]["rejects"] == {"judge": 10}


def test_a_grading_judge_is_measured_against_people_and_its_rate_corrected(tmp_path):
    # The judge finds 90 of 100 right answers right and 20 of 100 wrong ones: sensitivity 0.9, specificity 0.8.
    people = [{"prompt": "q", "answer": GOOD, "text": FACT if n < 90 else "none", "human": 1} for n in range(100)]
    people += [{"prompt": "q", "answer": GOOD, "text": FACT if n < 20 else "none", "human": 0} for n in range(100)]
    student = [FACT] * 110 + ["none"] * 90
    _, facts = run(tmp_path, [FACT] * 200, student, mode="graded", calibration=people)
    mine, checked = facts["arms"]["student"], facts["calibration"]
    assert mine["rate"]["value"] == pytest.approx(0.55)
    assert mine["corrected"]["value"] == pytest.approx((0.55 + 0.8 - 1) / 0.7)
    assert mine["corrected"]["high"] - mine["corrected"]["low"] > mine["rate"]["high"] - mine["rate"]["low"]
    assert (checked["n"], checked["enough"], checked["agreement"]["value"]) == (200, True, 0.85)
    assert checked["kappa"]["value"] == pytest.approx(0.7)


def test_too_few_people_and_broken_rows_are_told(tmp_path, capsys):
    people = [{"prompt": "q", "answer": GOOD, "text": FACT, "human": n % 2} for n in range(10)]
    _, facts = run(tmp_path, [FACT] * 4, [FACT] * 4, mode="graded", calibration=people)
    assert facts["calibration"]["enough"] is False
    assert facts["calibration"]["kappa"] is None  # the judge always says the same
    with pytest.raises(AssertionError):
        run(tmp_path, [FACT] * 4, [FACT] * 4, mode="graded", calibration=[{"prompt": "q", "text": "x", "human": 7}])
    assert "human: one of" in capsys.readouterr().err
