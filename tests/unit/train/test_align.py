"""Teacher and student that cut the same text in different places are compared where both have a boundary."""

from __future__ import annotations

import dataclasses
import itertools
import json

import pytest
import torch

from distill.errors import DataError
from distill.models import encode_answer
from distill.train import run
from distill.train.align import align, aligned_loss, token_bytes
from distill.train.likelihood import token_logprobs
from distill.train.objective import Head, Recipe
from tests.tiny import SPECIALS, tiny_model, tiny_tokenizer
from tests.unit.train.conftest import make_config, metrics, records, write_rows
from tests.unit.train.test_run import FULL, teacher_of

MERGES = [("a", "l"), ("al", "p"), ("h", "a"), ("t", "a"), ("e", "ta"), ("Ġ", "b"), ("Ã", "©"), ("g", "a")]


def merged_tokenizer():
    """The tiny tokenizer with merges: it cuts text elsewhere."""
    import copy

    from tokenizers import Tokenizer

    plain = tiny_tokenizer()
    state = json.loads(plain.backend_tokenizer.to_str())
    vocab = state["model"]["vocab"]
    # Other ids for the same pieces too, so that nothing works by exchanging ids.
    pieces = [*SPECIALS, *["".join(pair) for pair in MERGES], *sorted(set(vocab) - set(SPECIALS), reverse=True)]
    state["model"]["vocab"] = {piece: number for number, piece in enumerate(pieces)}
    state["model"]["merges"] = [list(pair) for pair in MERGES]
    for token in state["added_tokens"]:
        token["id"] = state["model"]["vocab"][token["content"]]
    fast = copy.deepcopy(plain)
    fast._tokenizer = Tokenizer.from_str(json.dumps(state))
    return fast


@pytest.fixture(scope="module")
def other_teacher(tmp_path_factory):
    """A tiny teacher with the merged tokenizer that was taught the answers."""
    from distill.artifacts import RunFolder

    root = tmp_path_factory.mktemp("other")
    base = tiny_model(root / "base", seed=3, hidden=96, padded_vocab=len(MERGES))
    merged_tokenizer().save_pretrained(base)
    folder = RunFolder(root / "run")
    write_rows(folder.train_data, records(24))
    run.run(make_config(base, adapter={"kind": "none"}, epochs=14, lr=1e-2, micro_batch_size=6), folder)
    return folder.student


def cut(tokenizer, text: str) -> list[int]:
    return encode_answer(tokenizer, text)


@pytest.mark.parametrize("text", ["alpha beta", "beta", "é alphé", "gamma  delta", " alpha", "日本 ga"])
def test_groups_cover_both_sides_in_order_and_say_the_same_bytes(text):
    mine, theirs = tiny_tokenizer(), merged_tokenizer()
    a, b = cut(mine, text), cut(theirs, text)
    groups = align(mine, a, theirs, b, "r")
    assert groups[0][0] == groups[0][2] == 0
    assert groups[-1] == (len(a) - 1, len(a), len(b) - 1, len(b)), "the end of the turn is the last group"
    for one, two in itertools.pairwise(groups):
        assert (one[1], one[3]) == (two[0], two[2])
    for s0, s1, t0, t1 in groups[1:-1]:
        said = [b"".join(token_bytes(t, i) for i in ids) for t, ids in ((mine, a[s0:s1]), (theirs, b[t0:t1]))]
        assert said[0] == said[1]


def test_groups_are_as_small_as_they_can_be():
    mine, theirs = tiny_tokenizer(), merged_tokenizer()
    groups = align(mine, cut(mine, "alphab"), theirs, cut(theirs, "alphab"), "r")
    assert [g[1] - g[0] for g in groups] == [3, 2, 1, 1], "alp, ha, b, end"
    assert [g[3] - g[2] for g in groups] == [1, 1, 1, 1]


def test_equal_tokenizers_align_token_by_token():
    mine = tiny_tokenizer()
    ids = cut(mine, "alpha é")
    assert align(mine, ids, mine, ids, "r") == tuple((i, i + 1, i, i + 1) for i in range(len(ids)))


def test_texts_that_differ_are_refused_with_the_first_difference():
    mine, theirs = tiny_tokenizer(), merged_tokenizer()
    with pytest.raises(DataError, match=r"row 'r9'.*from character 2: 'pha' against 'xha'"):
        align(mine, cut(mine, "alpha"), theirs, cut(theirs, "alxha"), "r9")


def test_sentencepiece_pieces_are_read_as_bytes():
    class Pieces:
        added_tokens_decoder: dict = {}  # noqa: RUF012
        names = ("\u2581the", "<0xC3>", "x")

        class backend_tokenizer:  # noqa: N801
            decoder = "Sequence([Replace, ByteFallback, Fuse])"

        def convert_ids_to_tokens(self, number: int) -> str:
            return self.names[number]

    assert [token_bytes(Pieces(), i) for i in range(3)] == [b" the", b"\xc3", b"x"]


def made(seed: int = 0):
    """Hidden states, heads and an aligned teacher of two groups on each side."""
    from distill.train.align import AlignedTeacher

    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).float()

    labels_N, labels_M = torch.tensor([1, 2, 3, 4]), torch.tensor([5, 6, 7])
    teacher = AlignedTeacher(
        draw(3, 5),
        Head(draw(11, 5)),
        labels_M,
        torch.tensor([0, 0, 0, 1]),
        torch.tensor([0, 1, 1]),
        torch.tensor([0, 3]),
        torch.tensor([0, 1]),
        "likelihood",
    )
    return draw(4, 6).requires_grad_(), draw(9, 6).requires_grad_(), labels_N, teacher


def recipe(**values) -> Recipe:
    from distill.losses import uld

    return Recipe(uld, uld.Config(), **{"kd_weight": 0.6, "chunk_tokens": 2} | values)


def test_likelihood_matching_is_the_written_formula_and_so_is_its_gradient():
    hidden, weight, labels, teacher = made()
    loss, parts = aligned_loss(hidden, Head(weight), labels, teacher, recipe())
    grads = torch.autograd.grad(loss, (hidden, weight))
    student = torch.log_softmax(hidden @ weight.T, -1).gather(-1, labels[:, None])[:, 0].double()
    theirs = torch.log_softmax(teacher.hidden_ME @ teacher.head.weight_VD.T, -1)
    theirs = theirs.gather(-1, teacher.labels_M[:, None])[:, 0].double()
    kd = 0
    for q, p in (
        (student[:3].sum().exp(), theirs[:1].sum().exp()),
        (student[3:].sum().exp(), theirs[1:].sum().exp()),
    ):
        kd = kd + p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    wanted = 0.4 * -student.sum() + 0.6 * kd
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert parts.kd.item() == pytest.approx(kd.item(), rel=1e-4)
    for mine, dense in zip(grads, torch.autograd.grad(wanted, (hidden, weight)), strict=True):
        assert (mine - dense).norm() < 1e-5 * dense.norm()


def test_uld_compares_sorted_probabilities_where_groups_begin():
    hidden, weight, labels, teacher = made(1)
    teacher = dataclasses.replace(teacher, align="uld")
    loss, _ = aligned_loss(hidden, Head(weight), labels, teacher, recipe(kd_weight=1.0))
    q = torch.softmax(hidden @ weight.T, -1)[[0, 3]].sort(-1, descending=True).values
    p = torch.softmax(teacher.hidden_ME @ teacher.head.weight_VD.T, -1)[[0, 1]].sort(-1, descending=True).values
    wanted = (q - p[:, :9]).abs().sum() + p[:, 9:].sum()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    mine, dense = (torch.autograd.grad(x, hidden, retain_graph=True)[0] for x in (loss, wanted))
    assert torch.allclose(mine, dense, atol=1e-5)


def test_token_logprobs_are_exact_and_so_are_their_gradients():
    hidden, weight, labels, _ = made(2)
    ours = token_logprobs(hidden, Head(weight), labels, 5)
    dense = torch.log_softmax(hidden @ weight.T, -1).gather(-1, labels[:, None])[:, 0]
    assert torch.allclose(ours, dense, atol=1e-6)
    scale = torch.tensor([1.0, -2.0, 0.5, 3.0])
    for mine, theirs in zip(
        torch.autograd.grad((ours * scale).sum(), (hidden, weight)),
        torch.autograd.grad((dense * scale).sum(), (hidden, weight)),
        strict=True,
    ):
        assert torch.allclose(mine, theirs, atol=1e-5)


@pytest.mark.parametrize("how", ["likelihood", "uld"])
def test_cross_tokenizer_training_brings_the_student_closer(tiny_student, other_teacher, run_folder, how):
    config = make_config(
        tiny_student, method="cross_tokenizer", align=how, teacher=teacher_of(other_teacher), kd_weight=0.5, **FULL
    )
    run.run(config, run_folder)
    lines = [line for line in metrics(run_folder) if "holdout_kd" in line]
    assert lines[-1]["holdout_kd"] < 0.7 * lines[0]["holdout_kd"]


def test_whitebox_refuses_the_same_pair(tiny_student, other_teacher, run_folder):
    config = make_config(tiny_student, method="whitebox", teacher=teacher_of(other_teacher))
    with pytest.raises(DataError, match="different tokenizers"):
        run.run(config, run_folder)
