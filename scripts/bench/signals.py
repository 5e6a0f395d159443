"""Bytes per token of stored teacher signals, and what is exact, on a real model.

python scripts/bench/signals.py [MODEL] [--tokens N]      MODEL: a name of `distill catalog models`, or path:DIR

Prints one line for top-k (k = 64) and one for sampled targets (50 draws). Runs on the CPU.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

import numpy as np

from distill import signals
from distill.providers import transformers
from distill.providers._base import Context
from distill.records import Message, Request, Sampling
from distill.signal_draws import draw

K, DRAWS = 64, 50
QUESTIONS = (
    "Explain how a still works.",
    "Write a short poem about copper.",
    "What is the capital of France, and what is it known for?",
    "List five uses of steam.",
)


def main() -> None:
    """Answer the questions, score the answers, store the scores both ways."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="smollm2-135m-instruct")
    parser.add_argument("--tokens", type=int, default=48, help="longest answer")
    args = parser.parse_args()
    teacher = transformers.build(
        transformers.Config(model=args.model, dtype="float32", batch_size=4, threads=1), Context()
    )
    requests = [Request((Message("user", question),), Sampling(args.tokens)) for question in QUESTIONS]
    answers = [teacher.parse(answer.raw).text for answer in asyncio.run(teacher.ask(requests))]
    items = [(request.messages, text) for request, text in zip(requests, answers, strict=True)]
    top = [teacher.score_tokens([item], K)[0] for item in items]
    about = (teacher.identity(), teacher.tokenizer_fingerprint, teacher.vocab)
    stored, size = store(signals.About(*about, k=K), top)
    same = all((a.top_ids_TK[:, 0] == b.top_ids_TK[:, 0]).all() for a, b in zip(stored, top, strict=True))
    value = all((a.top_logprobs_TK[:, 0] == b.top_logprobs_TK[:, 0]).all() for a, b in zip(stored, top, strict=True))
    error = max(
        float(np.abs(np.sort(a.top_logprobs_TK, 1) - np.sort(b.top_logprobs_TK, 1)).max())
        for a, b in zip(stored, top, strict=True)
    )
    print(
        f"{args.model}: {teacher.vocab:,} ids, {sum(len(one.token_ids_T) for one in top)} tokens of {len(top)} answers"
    )
    print(
        f"top {K}: {size}; top-1 id exact: {same}, its value: {value}; largest error of a log-probability: {error:.4f}"
    )
    drawn = []
    for number, item in enumerate(items):
        whole = teacher.score_tokens([item], teacher.vocab)[0]
        places, logprobs = draw(whole.top_logprobs_TK, DRAWS, number)
        ids = np.take_along_axis(whole.top_ids_TK, np.maximum(places, 0), 1)
        drawn.append(signals.Signal(whole.token_ids_T, ids, logprobs))
    _, size = store(signals.About(*about, k=DRAWS, kind="sampled", draws=DRAWS), drawn)
    distinct = np.concatenate([np.isfinite(one.top_logprobs_TK).sum(1) for one in drawn])
    print(f"{DRAWS} draws: {size}; distinct ids per token: mean {distinct.mean():.1f}, most {distinct.max()}")


def store(about: signals.About, found: list) -> tuple[list[signals.Signal], str]:
    """(what is read back, bytes per token as text)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "signals"
        writer = signals.SignalWriter(path, about)
        keys = [f"{number:064x}" for number in range(len(found))]
        for key, signal in zip(keys, found, strict=True):
            writer.add(key, signal)
        writer.finish(keys)
        reader = signals.SignalReader(path)
        back = [reader[key] for key in keys]
        shards = sum(file.stat().st_size for file in path.glob("*.bin")) / reader.tokens()
        every = sum(file.stat().st_size for file in path.iterdir()) / reader.tokens()
        return back, f"{shards:.1f} bytes per token in shards, {every:.1f} with the manifest"


if __name__ == "__main__":
    main()
