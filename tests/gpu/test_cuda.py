"""What the trainer promises, on a CUDA device: same numbers, no array of all logits, every method learns."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from distill import plugins
from distill.artifacts import RunFolder
from distill.models import load_causal_lm
from distill.train import kernels, run
from distill.train.batches import collate, encode_rows
from distill.train.likelihood import token_logprobs
from distill.train.objective import Head, LiveTeacher, Recipe, StoredTeacher, chunked_loss
from distill.train.student import head_of, hidden_states
from tests.unit.train.conftest import make_config, metrics, records, write_rows
from tests.unit.train.test_run import FULL, teacher_of

LOSSES = plugins.available("distill.losses")
STUDENT_V, TEACHER_V = 151_936, 152_064  # one family, padded to two sizes
N, D, E = 96, 64, 128


def recipe(name: str, **values) -> Recipe:
    module = plugins.load("distill.losses", name)
    return Recipe(module, module.Config(), **{"kd_weight": 0.7} | values)


def parts(device: str, dtype: torch.dtype, vocab: int = STUDENT_V, teacher_vocab: int = TEACHER_V):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator) * shape[-1] ** -0.25).to(device, dtype)

    labels = torch.randint(0, vocab, (N,), generator=generator).to(device)
    return draw(N, D).requires_grad_(), draw(vocab, D).requires_grad_(), labels, draw(N, E), draw(teacher_vocab, E)


def exact(hidden, weight, labels, t_hidden, t_weight, how: Recipe):
    """The formula in float64, on whole logits."""
    hidden, weight = (t.detach().double().requires_grad_() for t in (hidden, weight))
    logits = hidden @ weight.T
    student = torch.log_softmax(logits / how.temperature, -1)
    teacher = torch.log_softmax((t_hidden.double() @ t_weight.double().T)[:, : len(weight)] / how.temperature, -1)
    ce = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    kd = how.loss.divergence(student, teacher, how.config).sum()
    loss = (1 - how.kd_weight) * ce + how.kd_weight * how.temperature**2 * kd
    return loss.detach(), torch.autograd.grad(loss, (hidden, weight))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradients_are_the_exact_formula_over_padded_real_vocabularies(device, name, dtype):
    given = parts(device, dtype)
    how = recipe(name, temperature=1.5)
    wanted, wanted_grads = exact(*given, how)
    hidden, weight, labels, t_hidden, t_weight = given
    loss, _ = chunked_loss(hidden, Head(weight), labels, LiveTeacher(t_hidden, Head(t_weight)), how)
    rough = dtype == torch.bfloat16
    assert loss.item() == pytest.approx(wanted.item(), rel=2e-2 if rough else 1e-4)
    for mine, theirs in zip(torch.autograd.grad(loss, (hidden, weight)), wanted_grads, strict=True):
        assert (mine.double() - theirs).norm() <= (3e-2 if rough else 1e-3) * theirs.norm()


def test_top_k_of_everything_is_the_live_teacher(device):
    hidden, weight, labels, t_hidden, t_weight = parts(device, torch.float32, 512, 512)
    how = recipe("forward_kl")
    top, ids = torch.log_softmax(t_hidden @ t_weight.T, -1).sort(-1, descending=True)
    live, _ = chunked_loss(hidden, Head(weight), labels, LiveTeacher(t_hidden, Head(t_weight)), how)
    stored, _ = chunked_loss(hidden, Head(weight), labels, StoredTeacher(ids, top), how)
    assert live.item() == pytest.approx(stored.item(), rel=1e-5)


@pytest.mark.parametrize("trained", [True, False], ids=["full", "frozen-head"])
def test_no_array_of_all_logits_exists(cuda, trained):
    rows = 4096
    hidden = torch.randn(rows, D, device=cuda, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(STUDENT_V, D, device=cuda, dtype=torch.bfloat16, requires_grad=trained)
    t_hidden = torch.randn(rows, E, device=cuda, dtype=torch.bfloat16)
    t_weight = torch.randn(TEACHER_V, E, device=cuda, dtype=torch.bfloat16)
    labels = torch.randint(0, STUDENT_V, (rows,), device=cuda)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    loss, _ = chunked_loss(hidden, Head(weight), labels, LiveTeacher(t_hidden, Head(t_weight)), recipe("jsd"))
    loss.backward()
    extra = torch.cuda.max_memory_allocated() - before
    assert extra < 0.3 * rows * STUDENT_V * 2, f"{extra / 1e6:.0f} MB: the logits in bfloat16 alone are more"


def test_log_probabilities_of_labels_and_their_gradient(device):
    hidden, weight, labels, *_ = parts(device, torch.float32)
    ours = token_logprobs(hidden, Head(weight), labels)
    plain = torch.log_softmax(hidden @ weight.T, -1).gather(-1, labels[:, None])[:, 0]
    assert torch.allclose(ours, plain, atol=1e-4)
    mine, theirs = (torch.autograd.grad(t.sum(), hidden)[0] for t in (ours, plain))
    assert (mine - theirs).norm() <= 1e-4 * theirs.norm()


def test_models_attend_by_scaled_dot_product_kernels(device, tiny_student):
    model, _ = load_causal_lm(tiny_student, device=device)
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("layout", [{"share": True}, {"pack": True}], ids=["shared prefix", "packed"])
def test_shared_prefixes_and_packed_rows_change_nothing(device, tiny_student, layout):
    model, tokenizer = load_causal_lm(tiny_student, dtype="float32", device=device)
    rows = encode_rows(records(8), tokenizer, 256).rows
    plain = collate(rows, pad=0, share=False).to(device)
    laid = collate(rows, pad=0, **({"share": False} | layout)).to(device)
    with torch.no_grad():
        one, two = (hidden_states(model, batch) for batch in (plain, laid))
    assert (one - two).norm() <= 1e-3 * one.norm()
    assert head_of(model).weight_VD.device.type == device


# -- whole runs: the trainer places them on the CUDA device by itself --------------------------------------------


def final(folder: RunFolder) -> list[dict]:
    return [line for line in metrics(folder) if "holdout_loss" in line]


@pytest.mark.parametrize(
    "method",
    [
        {"method": "sft"},
        {"method": "whitebox"},
        {"method": "whitebox", "loss": "jsd", "gradient_checkpointing": True},
        {"method": "whitebox", "packing": True},
        {"method": "on_policy", "rollout_max_new_tokens": 8},
        {"method": "on_policy", "rollout_max_new_tokens": 8, "rollout_objective": "sampled"},
        {"method": "cross_tokenizer"},
        {"method": "cross_tokenizer", "align": "uld"},
    ],
    ids=lambda method: "-".join(str(v) for v in method.values()),
)
def test_every_method_comes_closer_to_its_teacher(device, tiny_student, taught_teacher, run_folder, method):
    teacher = {} if method["method"] == "sft" else {"teacher": teacher_of(taught_teacher)}
    run.run(make_config(tiny_student, **teacher, **FULL | method), run_folder)
    lines = final(run_folder)
    measure = "holdout_ce" if method["method"] == "sft" else "holdout_kd"
    assert lines[-1][measure] < 0.8 * lines[0][measure]
    assert json.loads((run_folder.student / "student.json").read_text())["method"] == method["method"]


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_adapters_learn_in_bfloat16(device, tiny_student, run_folder, kind):
    config = make_config(tiny_student, adapter={"kind": kind, "r": 8, "alpha": 16}, epochs=6)
    student = config.student.model_copy(update={"dtype": "bfloat16"})
    run.run(config.model_copy(update={"student": student}), run_folder)
    lines = final(run_folder)
    assert lines[-1]["holdout_ce"] < 0.9 * lines[0]["holdout_ce"]


def test_a_quantised_student_learns(cuda, tiny_student, run_folder):
    pytest.importorskip("bitsandbytes")
    run.run(make_config(tiny_student, adapter={"kind": "qlora", "r": 8, "alpha": 16}, epochs=6), run_folder)
    lines = final(run_folder)
    assert lines[-1]["holdout_ce"] < 0.95 * lines[0]["holdout_ce"]


def test_packed_rows_through_the_variable_length_kernel_are_rows_alone(cuda, tiny_student):
    pytest.importorskip("flash_attn")
    model, tokenizer = load_causal_lm(tiny_student, "bfloat16", device=cuda, attention="flash_attention_2")
    rows = encode_rows(records(8), tokenizer, 256).rows
    with torch.no_grad():
        packed = hidden_states(model, collate(rows, pad=0, share=False, pack=True).to(cuda)).float()
        alone = torch.cat([hidden_states(model, collate([row], pad=0).to(cuda)) for row in rows]).float()
    assert (packed - alone).norm() <= 2e-2 * alone.norm()


def test_liger_kernels_compute_the_same_student(cuda, tiny_student):
    pytest.importorskip("liger_kernel")
    model, tokenizer = load_causal_lm(tiny_student, "float32", device=cuda)
    batch = collate(encode_rows(records(8), tokenizer, 256).rows, pad=0).to(cuda)
    with torch.no_grad():
        plain = hidden_states(model, batch)
        names = [name for name, _ in model.named_parameters()]
        kernels.fuse(model)
        fused = hidden_states(model, batch)
    assert (plain - fused).norm() <= 1e-3 * plain.norm()
    assert [name for name, _ in model.named_parameters()] == names


def test_two_equal_runs_have_the_same_losses(device, tiny_student, taught_teacher, tmp_path):
    curves = []
    for name in ("one", "two"):
        folder = RunFolder(tmp_path / name)
        write_rows(folder.train_data, records(12))
        run.run(make_config(tiny_student, method="whitebox", teacher=teacher_of(taught_teacher)), folder)
        curves.append([line["loss"] for line in metrics(folder) if "loss" in line])
    assert curves[0] == pytest.approx(curves[1], rel=1e-6)


def test_the_device_and_the_processor_compute_the_same_loss(cuda, tiny_student, taught_teacher):
    found = []
    for place in ("cpu", cuda):
        student, tokenizer = load_causal_lm(tiny_student, dtype="float32", device=place)
        teacher, _ = load_causal_lm(taught_teacher, dtype="float32", device=place)
        batch = collate(encode_rows(records(8), tokenizer, 256).rows, pad=0).to(place)
        live = LiveTeacher(hidden_states(teacher, batch).detach(), head_of(teacher))
        how = dataclasses.replace(recipe("jsd"), temperature=2.0)
        found.append(chunked_loss(hidden_states(student, batch), head_of(student), batch.labels_N, live, how)[0].item())
    assert found[0] == pytest.approx(found[1], rel=1e-4)
