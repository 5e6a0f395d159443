"""Training step: seconds, tokens per second and peak extra memory of each method beside hand-written loops and TRL.

    python scripts/bench/train.py [--vocab 131072] [--only forward_kl,dense_kl] [--rounds 3] [--json out.json]
                                  [--trl-python /venv/with/trl/bin/python] [--device cuda --dtype bfloat16]

Every row runs in a process of its own, in turn, with the same seed and weights. "extra MB" is the peak of the
resident memory during the steps minus what was resident before the first: logits, gradients, optimizer state.
"CPU s" is what all threads worked: on a busy machine, the figure to compare.
`dense_*` rows are the floor of simplicity: plain formulas on whole logits. `loop_*` is the floor of memory: a plain
loop over 64 positions at a time that forms the gradient in the forward pass. `gkd_*` and `distillation_*` are the
losses of TRL's GKDTrainer and DistillationTrainer, called as those trainers call them, and need `--trl-python`: a
Python that has trl beside torch, transformers, peft and this package.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Step = Callable[[], Any]

ROWS = {
    # name: (adapter, what, loss)
    "dense_ce": ("none", "dense", "ce"),
    "sft": ("none", "ours", "ce"),
    "dense_kl": ("none", "dense", "forward_kl"),
    "loop_kl": ("none", "loop", "forward_kl"),
    "gkd_kl": ("none", "gkd", "forward_kl"),
    "distillation_kl": ("none", "distillation", "forward_kl"),
    "forward_kl": ("none", "ours", "forward_kl"),
    "compiled_kl": ("none", "compiled", "forward_kl"),
    "reverse_kl": ("none", "ours", "reverse_kl"),
    "gkd_jsd": ("none", "gkd", "jsd"),
    "distillation_jsd": ("none", "distillation", "jsd"),
    "jsd": ("none", "ours", "jsd"),
    "skew_kl": ("none", "ours", "skew_kl"),
    "top_k": ("none", "stored", "forward_kl"),
    "sampled": ("none", "sampled", "reverse_kl"),
    "lora_dense_kl": ("lora", "dense", "forward_kl"),
    "lora_loop_kl": ("lora", "loop", "forward_kl"),
    "lora_gkd_kl": ("lora", "gkd", "forward_kl"),
    "lora_distillation_kl": ("lora", "distillation", "forward_kl"),
    "lora_forward_kl": ("lora", "ours", "forward_kl"),
    "lora_jsd": ("lora", "ours", "jsd"),
    "lora_top_k": ("lora", "stored", "forward_kl"),
}
PROMPT = 64  # tokens of a row before its completion


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab", type=int, default=131_072)
    parser.add_argument("--hidden", type=int, default=256, help="of the student; the teacher has twice as many")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--length", type=int, default=512, help="tokens of a row, the first 64 are the prompt")
    parser.add_argument("--chunk-tokens", type=int, default=0)
    parser.add_argument("--steps", type=int, default=3, help="timed, after one that warms up")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--trl-python", help="a Python with trl, for the gkd_* and distillation_* rows")
    parser.add_argument("--only", default="")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--row", help=argparse.SUPPRESS)
    return parser.parse_args()


def model(options: argparse.Namespace, scale: int, seed: int) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    size = options.hidden * scale
    shape = {"hidden_size": size, "intermediate_size": 2 * size, "num_hidden_layers": options.layers}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "tie_word_embeddings": True}
    made = LlamaForCausalLM(LlamaConfig(vocab_size=options.vocab, **shape, **heads))
    return made.to(options.device, getattr(torch, options.dtype))


def resident(peak: bool) -> float:
    """Resident memory of this process in MB: now, or its peak since the last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    name = "VmHWM:" if peak else "VmRSS:"
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def one(options: argparse.Namespace) -> dict[str, Any]:
    """Run one row in this process."""
    import torch

    from distill.config import Adapter
    from distill.train.batches import Row, collate
    from distill.train.student import attach

    adapter, what, name = ROWS[options.row]
    torch.set_num_threads(options.threads)
    torch.utils.deterministic.fill_uninitialized_memory = False
    student, teacher = model(options, 1, 0), model(options, 2, 1).requires_grad_(False)
    if adapter == "lora":
        student = attach(student, Adapter(r=16, alpha=32))
    shape = options.rows, options.length
    ids_BT = torch.randint(0, options.vocab, shape, generator=torch.Generator().manual_seed(2))
    rows = [Row(str(n), str(n), tuple(line[:PROMPT]), tuple(line[PROMPT:])) for n, line in enumerate(ids_BT.tolist())]
    batch = collate(rows, pad=0).to(options.device)
    forms = {"dense": dense, "loop": loop, "gkd": gkd, "distillation": distillation}
    step = forms[what](student, teacher, batch, ids_BT.to(options.device), name) if what in forms else None
    step = step or ours(options, student, teacher, batch, what, name)
    optimizer = torch.optim.AdamW([p for p in student.parameters() if p.requires_grad], lr=1e-4, fused=True)
    before = start_counting(options.device)
    seconds, work, losses = [], [], []
    for _ in range(options.steps + 1):
        started, worked = time.perf_counter(), time.process_time()
        mean = step()
        mean.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(mean.detach()))  # waits for an accelerator
        seconds.append(time.perf_counter() - started)
        work.append(time.process_time() - worked)
    peak = (torch.cuda.max_memory_allocated() / 1e6 if options.device != "cpu" else resident(peak=True)) - before
    middle = statistics.median(seconds[1:])
    tokens = batch.tokens / middle
    found = {"row": options.row, "step_s": middle, "cpu_s": statistics.median(work[1:]), "tokens_per_s": tokens}
    return found | {"extra_mb": peak, "losses": losses}


def start_counting(device: str) -> float:
    """MB in use now; the peak is counted from here on."""
    import torch

    from distill.train.memory import give_back

    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 1e6
    give_back()  # what building the models left behind: else a step would seem to need less than it does
    before = resident(peak=False)
    Path("/proc/self/clear_refs").write_text("5")
    return before


def ours(options: argparse.Namespace, student: Any, teacher: Any, batch: Any, what: str, name: str) -> Step:
    """The product's objective: live, stored (top 64) or sampled teacher, or text alone."""
    import torch

    from distill import plugins
    from distill.train import objective as target
    from distill.train.objective import Recipe, StoredTeacher
    from distill.train.rollout import SampledTeacher
    from distill.train.signal import Live
    from distill.train.student import Objective

    loss = plugins.load("distill.losses", "cross_entropy" if name == "ce" else name)
    recipe = Recipe(loss, loss.Config(), 0.0 if name == "ce" else 1.0, chunk_tokens=options.chunk_tokens)
    objective, live = Objective(student, recipe), Live(teacher)
    if what == "compiled":  # one fused kernel for the passes over a block of logits
        target._terms = torch.compile(target._terms)
    stored = None
    if what == "stored":
        top_NK = torch.randn(len(batch.labels_N), 64).log_softmax(-1) - 0.2
        ids_NK = torch.stack([torch.randperm(options.vocab)[:64] for _ in top_NK])
        stored = StoredTeacher(ids_NK.to(options.device), top_NK.to(options.device))

    def step() -> Any:
        source = live.teacher(batch) if what in ("ours", "compiled") and name != "ce" else stored
        if what == "sampled":
            source = SampledTeacher(live.chosen(batch), batch.labels_N)
        return objective(batch, source)[0] / len(batch.labels_N)

    return step


def dense(student: Any, teacher: Any, batch: Any, ids_BT: Any, name: str) -> Step:
    """Plain formulas on whole logits."""
    import torch

    from distill.train.student import causal_lm

    span = slice(PROMPT - 1, -1)

    def step() -> Any:
        logits_NV = causal_lm(student)(input_ids=ids_BT).logits[:, span].flatten(0, 1).float()
        if name == "ce":
            return torch.nn.functional.cross_entropy(logits_NV, batch.labels_N)
        with torch.no_grad():
            theirs_NV = torch.log_softmax(teacher(input_ids=ids_BT).logits[:, span].flatten(0, 1).float(), -1)
        mine_NV = torch.log_softmax(logits_NV, -1)
        total = torch.nn.functional.kl_div(mine_NV, theirs_NV, reduction="sum", log_target=True)
        return total / len(batch.labels_N)

    return step


def loop(student: Any, teacher: Any, batch: Any, ids_BT: Any, name: str) -> Step:  # noqa: ARG001
    """Forward KL, 64 positions at a time, the gradient formed in the forward pass: as short as it can be written."""
    import torch

    from distill.train.student import causal_lm

    inner, span, count = causal_lm(student), slice(PROMPT - 1, -1), len(batch.labels_N)
    head_VD, theirs_VE = inner.get_output_embeddings().weight, teacher.get_output_embeddings().weight

    def step() -> Any:
        hidden_ND = inner.base_model(input_ids=ids_BT).last_hidden_state[:, span].flatten(0, 1)
        with torch.no_grad():
            hidden_NE = teacher.base_model(input_ids=ids_BT).last_hidden_state[:, span].flatten(0, 1)
            grad_ND, total = torch.empty_like(hidden_ND), torch.zeros(())
            if head_VD.requires_grad:
                head_VD.grad = torch.zeros_like(head_VD)
            for at in range(0, count, 64):
                some = slice(at, at + 64)
                q_nV = torch.log_softmax(hidden_ND[some] @ head_VD.T, -1)
                p_nV = torch.log_softmax(hidden_NE[some] @ theirs_VE.T, -1)
                total += (p_nV.exp() * (p_nV - q_nV)).sum()
                slope_nV = q_nV.exp_().sub_(p_nV.exp_()).div_(count)
                grad_ND[some] = slope_nV @ head_VD
                if head_VD.grad is not None:
                    head_VD.grad.addmm_(slope_nV.T, hidden_ND[some])
        surrogate = (hidden_ND * grad_ND).sum()
        return surrogate + (total / count - surrogate).detach()

    return step


def gkd(student: Any, teacher: Any, batch: Any, ids_BT: Any, name: str) -> Step:
    """TRL's GKDTrainer.compute_loss, without the trainer around it."""
    import torch
    from trl.experimental.gkd import GKDTrainer

    labels_BT = ids_BT.clone()
    labels_BT[:, :PROMPT] = -100
    beta = {"forward_kl": 0, "jsd": 0.5}[name]

    def step() -> Any:
        mask_BT = torch.ones_like(ids_BT)
        mine = student(input_ids=ids_BT, attention_mask=mask_BT)
        with torch.no_grad():
            theirs = teacher(input_ids=ids_BT, attention_mask=mask_BT)
        logits = mine.logits[:, :-1, :], theirs.logits[:, :-1, :]
        count = len(batch.labels_N)
        return GKDTrainer.generalized_jsd_loss(*logits, labels=labels_BT[:, 1:], beta=beta, num_items_in_batch=count)

    return step


def distillation(student: Any, teacher: Any, batch: Any, ids_BT: Any, name: str) -> Step:
    """TRL's DistillationTrainer._compute_loss, without the trainer around it."""
    import torch
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    from distill.train.student import causal_lm

    beta = {"forward_kl": 0.0, "jsd": 0.5}[name]
    inner, keep = causal_lm(student), ids_BT.shape[1] - PROMPT

    def hidden(body: Any) -> Any:
        mask_BT = torch.ones_like(ids_BT)
        answer = body(input_ids=ids_BT, attention_mask=mask_BT, logits_to_keep=keep + 1, use_cache=False)
        return answer.last_hidden_state[:, :-1, :][:, -keep:, :]

    def step() -> Any:
        mine_BTD = hidden(inner.base_model)
        with torch.no_grad():
            theirs_BTE = hidden(teacher.base_model)
        heads = inner.get_output_embeddings().weight, teacher.get_output_embeddings().weight
        mask_BT, count = torch.ones_like(ids_BT[:, PROMPT:]), len(batch.labels_N)
        return _chunked_divergence_loss(mine_BTD, theirs_BTE, *heads, mask_BT, beta, num_items_in_batch=count)[0]

    return step


def show(name: str, runs: list[dict[str, Any]]) -> None:
    """Print one row: medians."""
    names = ("step_s", "cpu_s", "tokens_per_s", "extra_mb")
    step, work, speed, memory = (statistics.median(run[key] for run in runs) for key in names)
    first, last = runs[0]["losses"][0], runs[0]["losses"][-1]
    figures = f"{step:8.2f} {work:8.2f} {speed:9.0f} {memory:9.0f}   {first:.6f} {last:.6f}"
    print(f"{name:20} {figures} {os.getloadavg()[0]:10.1f}", flush=True)


def main() -> None:
    options = arguments()
    if options.row:
        print(json.dumps(one(options)))
        return
    names = [n for n in options.only.split(",") if n] or list(ROWS)
    if not options.trl_python:
        names = [n for n in names if ROWS[n][1] not in ("gkd", "distillation")]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    environment = os.environ | {
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONWARNINGS": "ignore",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),  # the other Python finds this package
    }
    print(f"{'':20} {'step s':>8} {'CPU s':>8} {'tokens/s':>9} {'extra MB':>9}   first and last loss       load")
    for _ in range(options.rounds):
        for name in names:
            peer = ROWS[name][1] in ("gkd", "distillation")
            command = [options.trl_python if peer else sys.executable, __file__, "--row", name, *sys.argv[1:]]
            answer = subprocess.run(command, capture_output=True, text=True, env=environment)
            if answer.returncode:
                raise SystemExit(f"{name}: {answer.stderr.strip()[-400:]}")
            found[name].append(json.loads(answer.stdout.splitlines()[-1]))
            show(name, found[name][-1:])
    if options.rounds > 1:
        print("medians of the rounds")
        for name, runs in found.items():
            show(name, runs)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
