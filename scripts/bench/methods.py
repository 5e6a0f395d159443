"""Every method on real pairs of models: does the student come closer to its teacher on held-out answers?

    python scripts/bench/methods.py [--pairs same,cross] [--methods sft,whitebox] [--train-rows 64] [--work DIR]

Each method is the product's own `distill generate` and `distill train` on the same answers of the same teacher; the
held-out answers are about other packages. What is measured afterwards is the same for every method of a pair:

- one tokenizer:  KL(teacher || student) per token of the teacher's held-out answers;
- two tokenizers: KL between what both say of each stretch of text that both spell with whole tokens (that text, or
  any other), per byte of the answers.

The interval is of before - after: rows paired, whole packages drawn with replacement (10,000 draws, percentiles).
One JSON line a method is appended to WORK/results.jsonl as it ends; a method that stands there is not run again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "configs" / "data" / "debian-sections"
LANGUAGES = ("en", "fr", "de", "it")
DRAWS = 10_000

CONFIG = """
name: methods
seed: {seed}
prompts:
  path: {path}
  template: |-
    Say in one short English sentence, fifteen words at most, what this software package is for.
    {{{{ title }}}}. {{{{ text | truncate(120, false, '', 0) }}}}
  cluster_field: package
  lang_field: lang
teacher: {{kind: transformers, model: {teacher}, dtype: float32, batch_size: 8}}
generate: {{max_new_tokens: 64, holdout: 0, signals_top_k: {top_k}}}
student: {{model: {student}, dtype: float32, adapter: {{r: 16, alpha: 32}}, max_length: 320}}
train: {{lr: {lr}, epochs: {epochs}, batch_size: {batch}, micro_batch_size: 4, rollout_max_new_tokens: 32}}
"""


@dataclass(frozen=True)
class Pair:
    """A teacher, a student, and the ways in which one can learn from the other."""

    teacher: str
    student: str
    top_k: int
    methods: dict[str, tuple[str, ...]]
    """Method -> its settings."""
    measure: str


PAIRS = {
    "same": Pair(
        "qwen2.5-coder-1.5b-instruct",
        "qwen2.5-coder-0.5b-instruct",
        32,
        {
            "sft": ("train.method=sft",),
            "offline_topk": ("train.method=offline_topk",),
            "whitebox": ("train.method=whitebox",),
            "on_policy": ("train.method=on_policy",),
        },
        "KL(teacher || student), nats per token",
    ),
    "cross": Pair(
        "qwen2.5-coder-0.5b-instruct",
        "smollm2-135m-instruct",
        0,
        {
            "sft": ("train.method=sft",),
            "likelihood": ("train.method=cross_tokenizer", "train.align=likelihood"),
            "uld": ("train.method=cross_tokenizer", "train.align=uld"),
        },
        "aligned KL, nats per byte",
    ),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", default="same,cross")
    parser.add_argument("--methods", default="", help="default: all of the pair")
    parser.add_argument("--train-rows", type=int, default=64)
    parser.add_argument("--held-rows", type=int, default=40)
    parser.add_argument("--batch", type=int, default=8, help="rows of an optimizer step, a multiple of 4")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("runs") / "methods")
    parser.add_argument("--measure", metavar="ADAPTER", help=argparse.SUPPRESS)
    return parser.parse_args()


def distill(command: str, config: Path, out: Path, *overrides: str) -> None:
    """Run one stage in a process of its own."""
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
    words = [sys.executable, "-m", "distill", command, str(config), *overrides, "--out", str(out)]
    subprocess.run(words, check=True, env=environment, stdin=subprocess.DEVNULL)


def write_config(options: argparse.Namespace, pair: Pair, split: str, folder: Path) -> Path:
    """The configuration of the pair on the training or the held-out prompts."""
    held = split == "held"
    prompts = folder / f"{split}.jsonl"
    write_prompts(prompts, "test" if held else "train", options.held_rows if held else options.train_rows)
    values = {"path": prompts, "top_k": 0 if held else pair.top_k, "lr": options.lr, "epochs": options.epochs}
    values["batch"] = options.batch
    text = CONFIG.format(seed=options.seed, teacher=pair.teacher, student=pair.student, **values)
    path = folder / f"{split}.yaml"
    path.write_text(text)
    return path


def write_prompts(path: Path, split: str, count: int) -> None:
    """``count`` packages in an order that depends on their names alone, one language each, in turn."""
    packages: dict[str, dict[str, str]] = {}
    for line in (DATA / f"{split}.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        packages.setdefault(row["package"], {})[row["lang"]] = line
    names = sorted(packages, key=lambda name: hashlib.sha256(name.encode()).digest())[:count]
    chosen = [
        next(packages[name][lang] for lang in (*LANGUAGES[n % 4 :], *LANGUAGES) if lang in packages[name])
        for n, name in enumerate(names)
    ]
    path.write_text("\n".join(chosen) + "\n", "utf-8")


# -- the measure -------------------------------------------------------------------------------------------------


def divergences(pair: Pair, folder: Path, adapter: Path | None) -> dict[str, Any]:
    """Per held-out row: its package, the divergence summed over it, and its tokens or bytes."""
    import torch

    from distill import models
    from distill.losses import forward_kl
    from distill.models import load_causal_lm
    from distill.train import align
    from distill.train.batches import encode_rows, read_rows
    from distill.train.objective import Recipe

    records = read_rows(folder / "held" / "data" / "train.parquet")
    student, tokenizer = load_causal_lm(models.resolve(pair.student, ROOT).path, dtype="float32", adapter=adapter)
    teacher, other = load_causal_lm(models.resolve(pair.teacher, ROOT).path, dtype="float32")
    rows = encode_rows(records, tokenizer, 1 << 20)
    recipe = Recipe(forward_kl, forward_kl.Config(), kd_weight=1.0)
    same = models.tokenizer_fingerprint(tokenizer) == models.tokenizer_fingerprint(other)
    reader = align.CrossTokenizer(teacher, other, "likelihood")
    if not same:
        reader.read(records, rows, tokenizer, reasoning=False)
    memory = Memory(folder / "teacher.safetensors")
    student.eval()
    with torch.no_grad():
        sums = [
            live_divergence(student, reader, row, recipe, memory)
            if same
            else aligned_divergence(student, reader, row, memory)
            for row in rows.rows
        ]
    memory.save()
    sizes = [
        len(row.completion) if same else len(str(r["answer"]).encode())
        for row, r in zip(rows.rows, records, strict=True)
    ]
    return {"packages": [r["id"].rpartition(":")[0] for r in records], "sums": sums, "sizes": sizes}


class Memory:
    """What the teacher computed of each row, kept on disk for the next student."""

    def __init__(self, path: Path):
        from safetensors.torch import load_file

        self.path, self.values = path, load_file(path) if path.exists() else {}

    def get(self, key: str, compute: Any) -> Any:
        if key not in self.values:
            self.values[key] = compute().contiguous()
        return self.values[key]

    def save(self) -> None:
        from safetensors.torch import save_file

        save_file(self.values, self.path)


def live_divergence(student: Any, reader: Any, row: Any, recipe: Any, memory: Memory) -> float:
    """KL(teacher || student) summed over the tokens of one answer."""
    from distill.train.batches import collate
    from distill.train.objective import LiveTeacher, chunked_loss
    from distill.train.student import head_of, hidden_states

    batch = collate([row], pad=0)
    hidden_NE = memory.get(row.id, lambda: hidden_states(reader.model, batch))
    theirs = head_of(reader.model)
    mine = head_of(student, min(theirs.size, head_of(student).size))
    live = LiveTeacher(hidden_NE, theirs)
    return float(chunked_loss(hidden_states(student, batch), mine, batch.labels_N, live, recipe)[1].kd)


def aligned_divergence(student: Any, reader: Any, row: Any, memory: Memory) -> float:
    """KL between both models' probabilities of each shared stretch of text, summed over one answer."""
    from distill.train.align import likelihood_match
    from distill.train.batches import collate
    from distill.train.likelihood import token_logprobs
    from distill.train.student import head_of, hidden_states

    batch = collate([row], pad=0)
    teacher = reader.teacher(batch)
    theirs_M = memory.get(row.id, lambda: token_logprobs(teacher.hidden_ME, teacher.head, teacher.labels_M))
    mine_N = token_logprobs(hidden_states(student, batch), head_of(student), batch.labels_N)
    return float(likelihood_match(mine_N, theirs_M, teacher))


def interval(before: dict[str, Any], after: dict[str, Any]) -> dict[str, float]:
    """Mean divergence before and after, and the 95 % interval of the difference."""
    import numpy as np

    names = sorted(set(before["packages"]))
    code = np.array([names.index(name) for name in before["packages"]])
    first, last, size = (
        np.bincount(code, np.array(values, float), len(names))
        for values in (before["sums"], after["sums"], before["sizes"])
    )
    drawn = np.random.default_rng(0).integers(len(names), size=(DRAWS, len(names)))
    gains = (first[drawn].sum(1) - last[drawn].sum(1)) / size[drawn].sum(1)
    low, high = np.quantile(gains, [0.025, 0.975])
    means = {"before": float(first.sum() / size.sum()), "after": float(last.sum() / size.sum())}
    return means | {"low": float(low), "high": float(high), "clusters": len(names)}


# -- the campaign ------------------------------------------------------------------------------------------------


def measured(name: str, adapter: str) -> dict[str, Any]:
    """``divergences`` in a process of its own; the starting student's are kept."""
    words = [sys.executable, __file__, *sys.argv[1:], "--pairs", name, "--measure", adapter]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def run_pair(options: argparse.Namespace, name: str) -> None:
    """Teach once, then train and measure by every method."""
    pair, folder = PAIRS[name], options.work.resolve() / name
    folder.mkdir(parents=True, exist_ok=True)
    results = options.work / "results.jsonl"
    done = {(r["pair"], r["method"]) for r in map(json.loads, results.open())} if results.exists() else set()
    config = {split: write_config(options, pair, split, folder) for split in ("teach", "held")}
    for split in config:
        distill("generate", config[split], folder / split)
    start = folder / "start.json"
    if not start.exists():
        start.write_text(json.dumps(measured(name, "none")))
    before = json.loads(start.read_text())
    for method, settings in pair.methods.items():
        if (name, method) in done or (options.methods and method not in options.methods.split(",")):
            continue
        out = folder / method
        if not out.exists():
            shutil.copytree(folder / "teach", out)
        started = time.monotonic()
        distill("train", config["teach"], out, *settings)
        seconds = time.monotonic() - started
        facts = json.loads((out / "student" / "student.json").read_text())
        found = interval(before, measured(name, str(out / "student" / "adapter")))
        line = {
            "pair": name,
            "method": method,
            "measure": pair.measure,
            **{key: round(value, 6) for key, value in found.items()},
            "held_rows": len(before["sums"]),
            "train_rows": facts["rows"],
            "steps": facts["steps"],
            "tokens": facts["tokens"],
            "seconds": round(seconds, 1),
            "peak_rss_mb": facts["peak_rss_mb"],
            "seed": options.seed,
        }
        with results.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(show(line), flush=True)


def show(line: dict[str, Any]) -> str:
    drop = line["before"] - line["after"]
    return (
        f"{line['pair']:6} {line['method']:13} {line['before']:.4f} -> {line['after']:.4f}  "
        f"drop {drop:.4f} [{line['low']:.4f}, {line['high']:.4f}]  "
        f"n={line['held_rows']} rows of {line['clusters']} packages  "
        f"{line['steps']} steps, {line['seconds']:.0f} s, {line['peak_rss_mb']:,} MB"
    )


def main() -> None:
    options = arguments()
    names = options.pairs.split(",")
    if options.measure:
        adapter = None if options.measure == "none" else Path(options.measure)
        print(json.dumps(divergences(PAIRS[names[0]], options.work.resolve() / names[0], adapter)))
        return
    for name in names:
        run_pair(options, name)


if __name__ == "__main__":
    main()
