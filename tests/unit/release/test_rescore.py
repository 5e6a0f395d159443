"""Every form answers items of the evaluation again; one that answers worse than the student fails the release."""

import json

import pytest

from distill.errors import GateFailed
from distill.release import rescore
from tests.unit.release.made import base_folder, build, run_folder, with_task


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The base model's folder."""
    return base_folder(tmp_path_factory.mktemp("base") / "tiny-base")


@pytest.fixture
def made(tmp_path, base):
    """(config, run folder) whose random student gets every item wrong, and is recorded so."""
    targets = ["merged", "adapter", {"kind": "gguf", "precision": "f16", "judged_by": "transformers"}]
    config, folder = run_folder(tmp_path / "runs" / "sorter", base, targets=targets, rescore=10)
    return with_task(config, folder, right=lambda n: False), folder


def test_each_form_with_other_bits_is_asked_again_and_its_score_stands_in_the_card(made):
    bundle = build(*made)
    targets = json.loads((bundle / "release.json").read_text())["targets"]
    wanted = {"items": 10, "student": 0.0, "export": 0.0, "lost": 0, "gained": 0, "same_text": None}
    assert targets["merged"]["score"] == wanted
    assert targets["gguf-f16"]["score"] == wanted
    assert "score" not in targets["adapter"]  # its logits are the student's own, bit for bit
    card = (bundle / "README.md").read_text()
    assert card.count("0.000 (0.000), 10 items") == 2
    assert not [p for p in made[1].release.iterdir() if p.name.startswith(".")]


def test_a_form_that_answers_worse_than_the_student_did_fails_the_release(made):
    config, folder = made
    config = with_task(config, folder, right=lambda n: True)  # recorded as all right: the export, all wrong, lost it
    with pytest.raises(GateFailed, match=r"it scores 0\.0 where the student scored 1\.0, on 10 items"):
        build(config, folder)
    assert not list(folder.release.iterdir())


def test_one_item_alone_does_not_fail_a_release(made):
    config, folder = made
    config = with_task(config, folder, items=6, right=lambda n: n == 2)  # 1 of 6 is more than the margin
    score = json.loads((build(config, folder) / "release.json").read_text())["targets"]["merged"]["score"]
    assert (score["items"], score["lost"]) == (6, 1)


def test_the_items_are_the_same_whatever_the_order_of_the_file(made):
    config, folder = made
    before = [q.exam.item.id for q in rescore.questions(config, folder, "student")]
    path = config._folder / "test.jsonl"
    path.write_text("\n".join(reversed(path.read_text().splitlines())) + "\n")
    assert [q.exam.item.id for q in rescore.questions(config, folder, "student")] == before
    assert len(set(before)) == 10


def test_without_an_evaluation_or_when_turned_off_nothing_is_asked(made):
    config, folder = made
    off = config.model_copy(update={"release": config.release.model_copy(update={"rescore": 0})})
    assert rescore.questions(off, folder, "student") == []
    assert rescore.questions(config, folder, "None") == []
