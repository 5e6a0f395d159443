"""How fast multiple choice is evaluated: ours against a plain batched loop and lm-evaluation-harness, same answers.

    python scripts/bench/evals.py [--model NAME] [--items 60] [--rounds 1] [--lm-eval PYTHON] [--json FILE]

Every item has a prompt and the options of the task; an answer is the option whose tokens, end of turn included, are
the most likely. Each engine runs in a process of its own, in turn, with the same weights, number format and threads:

- floor    every (prompt, option) pair is a row of a padded batch; logits of the option's tokens only
- lm-eval  `HFLM.loglikelihood` on the same texts, in the interpreter given by --lm-eval (left out when not given)
- ours     the transformers provider held to its choices, as `distill eval` and `distill compare` use it

Figures: items per second without loading, peak memory of the process, and the SHA-256 of the answers.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]
DATA = HERE / "configs" / "data" / "debian-sections" / "test.jsonl"
OPTIONS = ("games", "sound", "video", "mail", "graphics", "fonts", "database", "science")
SYSTEM = (
    "You sort software packages into sections. The package description may be in any European language.\n"
    f"Sections: {', '.join(OPTIONS)}.\nAnswer with the section name only."
)
BATCH = 16


def texts(count: int) -> list[str]:
    """The first user messages."""
    rows = [json.loads(line) for line in DATA.read_text("utf-8").splitlines()[:count]]
    return [f"{row['title']}. {row['text']}" for row in rows]


def messages(text: str):
    """The chat of an item."""
    from distill.records import Message

    return (Message("system", SYSTEM), Message("user", text))


def floor(path: Path, count: int) -> tuple[list[str], float]:
    """The plain loop."""
    import torch

    from distill import models

    model, tokenizer = models.load_causal_lm(path, "float32")
    rows = []
    for number, text in enumerate(texts(count)):
        prompt = models.encode_chat(tokenizer, messages(text))
        for option in OPTIONS:
            answer = models.encode_answer(tokenizer, option)
            rows.append((number, prompt + answer, len(answer)))
    scores: dict[int, list[float]] = {}
    started = time.perf_counter()
    with torch.inference_mode():
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            width, keep = max(len(ids) for _, ids, _ in batch), max(n for *_, n in batch) + 1
            ids = torch.tensor([[0] * (width - len(row)) + row for _, row, _ in batch])
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for _, row, _ in batch])
            place = (mask.cumsum(-1) - 1).clamp(min=0)
            logits = model(input_ids=ids, attention_mask=mask, position_ids=place, logits_to_keep=keep).logits
            for (number, row, length), own in zip(batch, logits.float().log_softmax(-1), strict=True):
                target = torch.tensor(row[-length:])
                found = own[-length - 1 : -1].gather(-1, target[:, None]).sum()
                scores.setdefault(number, []).append(float(found))
    seconds = time.perf_counter() - started
    return [OPTIONS[max(range(len(s)), key=s.__getitem__)] for s in scores.values()], seconds


def ours(path: Path, count: int) -> tuple[list[str], float]:
    """The provider."""
    from distill.providers import transformers as provider
    from distill.providers._base import Context
    from distill.records import Request

    made = provider.build(provider.Config(model=f"path:{path}", dtype="float32", batch_size=BATCH), Context())
    requests = [Request(messages(text), choices=OPTIONS) for text in texts(count)]
    order = sorted(range(count), key=lambda n: -len(requests[n].messages[-1].content))
    answers = [""] * count
    _ = made.vocab  # loads the weights
    started = time.perf_counter()
    for start in range(0, count, BATCH):
        numbers = order[start : start + BATCH]
        found = asyncio.run(made.ask([requests[n] for n in numbers]))
        for number, answer in zip(numbers, found, strict=True):
            answers[number] = made.parse(answer.raw).text
    return answers, time.perf_counter() - started


def lm_eval(path: Path, count: int) -> tuple[list[str], float]:
    """lm-evaluation-harness, given the very same text of prompt and option."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from distill import models

    model = HFLM(pretrained=str(path), device="cpu", dtype="float32", batch_size=BATCH, add_bos_token=False)
    tokenizer = model.tokenizer
    end = tokenizer.decode(models.end_ids(tokenizer)[:1])
    asked = []
    for text in texts(count):
        prompt = tokenizer.decode(models.encode_chat(tokenizer, messages(text)))
        asked += [
            Instance(request_type="loglikelihood", doc={}, arguments=(prompt, option + end), idx=0)
            for option in OPTIONS
        ]
    started = time.perf_counter()
    scores = [value for value, _ in model.loglikelihood(asked, disable_tqdm=True)]
    seconds = time.perf_counter() - started
    width = len(OPTIONS)
    groups = [scores[start : start + width] for start in range(0, len(scores), width)]
    return [OPTIONS[max(range(width), key=group.__getitem__)] for group in groups], seconds


ENGINES = {"floor": floor, "lm-eval": lm_eval, "ours": ours}


def one(name: str, path: Path, count: int) -> None:
    """Run one engine and print its figures as JSON."""
    answers, seconds = ENGINES[name](path, count)
    result = {
        "engine": name,
        "items_per_s": count / seconds,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "answers": answers,
        "sha256": hashlib.sha256("\n".join(answers).encode()).hexdigest()[:16],
    }
    print("RESULT " + json.dumps(result))


def measured(interpreter: str, name: str, path: Path, count: int) -> dict:
    """The figures of an engine in a process of its own."""
    command = [interpreter, __file__, "--one", name, "--path", str(path), "--items", str(count)]
    environment = {**os.environ, "PYTHONPATH": str(HERE), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    found = [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not found:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    return json.loads(found[0])


def main() -> None:
    """Measure the engines in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--items", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--lm-eval", metavar="PYTHON")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=ENGINES, help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        one(args.one, args.path, args.items)
        return
    from distill import models

    path = models.resolve(args.model, Path()).path
    names = {"floor": sys.executable, **({"lm-eval": args.lm_eval} if args.lm_eval else {}), "ours": sys.executable}
    rounds = [
        {name: measured(python, name, path, args.items) for name, python in names.items()} for _ in range(args.rounds)
    ]
    best = {name: max((r[name] for r in rounds), key=lambda row: row["items_per_s"]) for name in names}
    print(f"{args.model}, {args.items} items, {len(OPTIONS)} options, float32, best of {args.rounds}")
    for name, row in best.items():
        same = sum(a == b for a, b in zip(row["answers"], best["ours"]["answers"], strict=True))
        speed = f"{row['items_per_s']:8.2f} items/s {row['peak_gb']:6.2f} GB"
        print(f"{name:8} {speed}  {row['sha256']}  {same}/{args.items} as ours")
    if args.json:
        args.json.write_text(json.dumps(best, indent=2) + "\n")


if __name__ == "__main__":
    main()
