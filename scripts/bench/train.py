"""Training step: seconds, tokens per second and peak extra memory of each method beside a hand-written dense loop.

    python scripts/bench/train.py [--vocab 131072] [--only forward_kl,dense_kl] [--rounds 3] [--json out.json]

Every row runs in a process of its own, in turn, with the same seed and weights. "extra MB" is the peak of the
resident memory during the steps minus what was resident before the first: logits, gradients, optimizer state.
`dense_*` rows are the floor: plain formulas on whole logits, as most trainers have them.
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
from typing import Any

ROWS = {
    # name: (adapter, what, loss)
    "dense_ce": ("none", "dense", "ce"),
    "sft": ("none", "ours", "ce"),
    "dense_kl": ("none", "dense", "forward_kl"),
    "forward_kl": ("none", "ours", "forward_kl"),
    "reverse_kl": ("none", "ours", "reverse_kl"),
    "jsd": ("none", "ours", "jsd"),
    "skew_kl": ("none", "ours", "skew_kl"),
    "top_k": ("none", "stored", "forward_kl"),
    "lora_dense_kl": ("lora", "dense", "forward_kl"),
    "lora_forward_kl": ("lora", "ours", "forward_kl"),
    "lora_jsd": ("lora", "ours", "jsd"),
    "lora_top_k": ("lora", "stored", "forward_kl"),
}


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
    return LlamaForCausalLM(LlamaConfig(vocab_size=options.vocab, **shape, **heads)).to(options.device)


def resident(peak: bool) -> float:
    """Resident memory of this process in MB: now, or its peak since the last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    name = "VmHWM:" if peak else "VmRSS:"
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def one(options: argparse.Namespace) -> dict[str, Any]:
    """Run one row in this process."""
    import torch

    from distill import plugins
    from distill.config import Adapter
    from distill.train.batches import Row, collate
    from distill.train.objective import Recipe, StoredTeacher
    from distill.train.signal import Live
    from distill.train.student import Objective, attach, causal_lm

    adapter, what, name = ROWS[options.row]
    torch.set_num_threads(options.threads)
    torch.utils.deterministic.fill_uninitialized_memory = False
    student, teacher = model(options, 1, 0), model(options, 2, 1)
    if adapter == "lora":
        student = attach(student, Adapter(r=16, alpha=32))
    ids = torch.randint(0, options.vocab, (options.rows, options.length), generator=torch.Generator().manual_seed(2))
    rows = [Row(str(n), str(n), tuple(line[:64]), tuple(line[64:])) for n, line in enumerate(ids.tolist())]
    batch = collate(rows, pad=0).to(options.device)
    loss = plugins.load("distill.losses", "cross_entropy" if name == "ce" else name)
    recipe = Recipe(loss, loss.Config(), 0.0 if name == "ce" else 1.0, chunk_tokens=options.chunk_tokens)
    objective, live = Objective(student, recipe), Live(teacher)
    stored = None
    if what == "stored":
        top = torch.randn(len(batch.labels_N), 64).log_softmax(-1) - 0.2
        stored = StoredTeacher(torch.stack([torch.randperm(options.vocab)[:64] for _ in top]), top)
    optimizer = torch.optim.AdamW([p for p in student.parameters() if p.requires_grad], lr=1e-4)

    def dense() -> Any:
        inner = causal_lm(student)
        logits = inner(input_ids=ids.to(options.device)).logits[:, 63:-1].flatten(0, 1)
        if name == "ce":
            return torch.nn.functional.cross_entropy(logits, batch.labels_N, reduction="sum")
        with torch.no_grad():
            theirs = teacher(input_ids=ids.to(options.device)).logits[:, 63:-1].flatten(0, 1)
        student_logprobs, teacher_logprobs = torch.log_softmax(logits, -1), torch.log_softmax(theirs, -1)
        return torch.nn.functional.kl_div(student_logprobs, teacher_logprobs, reduction="sum", log_target=True)

    before = resident(peak=False)
    Path("/proc/self/clear_refs").write_text("5")
    seconds, losses = [], []
    for _ in range(options.steps + 1):
        started = time.perf_counter()
        source = None if name == "ce" else stored or live.teacher(batch) if what != "dense" else None
        total = dense() if what == "dense" else objective(batch, source)[0]
        (total / len(batch.labels_N)).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if options.device != "cpu":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
        losses.append(float(total.detach()) / len(batch.labels_N))
    peak = torch.cuda.max_memory_allocated() / 2**20 if options.device != "cpu" else resident(peak=True) - before
    step = statistics.median(seconds[1:])
    return {"row": options.row, "step_s": step, "tokens_per_s": batch.tokens / step, "extra_mb": peak, "losses": losses}


def main() -> None:
    options = arguments()
    if options.row:
        print(json.dumps(one(options)))
        return
    names = [n for n in options.only.split(",") if n] or list(ROWS)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONWARNINGS": "ignore"}
    for _ in range(options.rounds):
        for name in names:
            command = [sys.executable, __file__, "--row", name, *sys.argv[1:]]
            answer = subprocess.run(command, capture_output=True, text=True, env=environment)
            if answer.returncode:
                raise SystemExit(f"{name}: {answer.stderr.strip()[-400:]}")
            found[name].append(json.loads(answer.stdout.splitlines()[-1]))
    print(
        f"{'':16} {'step s':>8} {'tokens/s':>9} {'extra MB':>9}   first and last loss   (load {os.getloadavg()[0]:.1f})"
    )
    for name, runs in found.items():
        step, speed, memory = (
            statistics.median(r[key] for r in runs) for key in ("step_s", "tokens_per_s", "extra_mb")
        )
        losses = runs[0]["losses"]
        print(f"{name:16} {step:8.2f} {speed:9.0f} {memory:9.0f}   {losses[0]:.6f} {losses[-1]:.6f}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
