"""How fast a local model is evaluated, and in how much memory: ours, a plain batched loop, lm-evaluation-harness.

    python scripts/bench/evals.py [--lm-eval PYTHON] [--cases made real text] [--items N] [--rounds 1] [--json FILE]

- made  four-way items, each with options of its own, for a random Llama of 33 M weights (seed 0, vocabulary 120,000
        rows, SmolLM2's tokenizer), saved in bfloat16; an answer is the option whose tokens, end of turn
        included, are the most likely
- real  the same question for SmolLM2-135M and eight options that all items share
- text  SmolLM2-135M writes up to 48 tokens, greedily

Each engine runs in a process of its own, in turn, with the same weights, float32, batch size and threads:

- floor    padded batches, longest first; options: one row for each (prompt, option), logits of the option's tokens
           only; text: `model.generate`
- lm-eval  `HFLM.loglikelihood` or `generate_until` on the same texts, by the interpreter of --lm-eval (else left out)
- ours     the transformers provider, as `distill eval` and `distill compare` use it

Figures: items and tokens per second and CPU seconds, loading not counted; peak memory of the process with everything
it imports, and how much of it was its own at most (looked at every 20 ms), the rest being pages of mapped files, which
the system may drop and read again; the answers' SHA-256 and how many are the same as ours.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parents[2]
sys.path[0] = str(HERE)  # this file's own folder would hide the package of its name
DATA = HERE / "configs" / "data" / "debian-sections" / "test.jsonl"
REAL = "smollm2-135m-instruct"
OPTIONS = ("games", "sound", "video", "mail", "graphics", "fonts", "database", "science")
SORT = (
    "You sort software packages into sections. The package description may be in any European language.\n"
    f"Sections: {', '.join(OPTIONS)}.\nAnswer with the section name only."
)
WRITE = "You explain software packages. Say in one English sentence what the package is for."
BATCH = 16
NEW_TOKENS = 48
ITEMS = {"made": 60, "real": 24, "text": 32}


@dataclass(frozen=True)
class Item:
    """What a case asks: a prompt, and the options of the answer (none: free text)."""

    system: str
    user: str
    options: tuple[str, ...] = ()

    @property
    def messages(self):
        """The chat."""
        from distill.records import Message

        return (*((Message("system", self.system),) if self.system else ()), Message("user", self.user))


def items(case: str, count: int) -> list[Item]:
    """The first items of a case, longest first, as all engines get them."""
    rows = [json.loads(line) for line in DATA.read_text("utf-8").splitlines()[:count]]
    texts = [f"{row['title']}. {row['text']}" for row in rows]
    if case == "made":
        own = [tuple(OPTIONS[(n + step) % len(OPTIONS)] for step in (0, 1, 3, 6)) for n in range(count)]
        asked = ["\n".join([*(texts[n - back] for back in (3, 2, 1, 0)), f"One of {own[n]}?"]) for n in range(count)]
        found = [Item("", text, options) for text, options in zip(asked, own, strict=True)]
    else:
        found = [Item(SORT, text, OPTIONS) if case == "real" else Item(WRITE, text) for text in texts]
    return sorted(found, key=lambda item: -len(item.user))


class Clock:
    """Seconds and CPU seconds of what is measured."""

    seconds = cpu = 0.0

    @contextmanager
    def measures(self) -> Iterator[None]:
        """Add what the block takes."""
        started, worked = time.perf_counter(), time.process_time()
        yield
        self.seconds += time.perf_counter() - started
        self.cpu += time.process_time() - worked


class OwnMemory(threading.Thread):
    """Watches this process's anonymous memory."""

    peak_gb = 0.0

    def run(self) -> None:
        """Look until the process ends."""
        while True:
            fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            self.peak_gb = max(self.peak_gb, int(fields["RssAnon"].split()[0]) * 1024 / 1e9)
            time.sleep(0.02)


def padded(rows: list[list[int]], fill: int):
    """(ids, mask, positions) of rows padded on the left."""
    import torch

    width = max(map(len, rows))
    ids = torch.tensor([[fill] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask, (mask.cumsum(-1) - 1).clamp(min=0)


def floor(path: Path, asked: list[Item], clock: Clock) -> list[str]:
    """The plain loop."""
    import torch

    from distill import models

    model, tokenizer = models.load_causal_lm(path, "float32")
    with clock.measures(), torch.inference_mode():
        return (floor_options if asked[0].options else floor_text)(model, tokenizer, asked)


def floor_options(model, tokenizer, asked: list[Item]) -> list[str]:
    """The likeliest option of each item."""
    import torch

    from distill import models

    rows = []
    for number, item in enumerate(asked):
        prompt = models.encode_chat(tokenizer, item.messages)
        answers = [models.encode_answer(tokenizer, option) for option in item.options]
        rows += [(number, prompt + answer, len(answer)) for answer in answers]
    scores: list[list[float]] = [[] for _ in asked]
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        ids, mask, place = padded([row for _, row, _ in batch], 0)
        keep = max(length for *_, length in batch) + 1
        logits = model(input_ids=ids, attention_mask=mask, position_ids=place, logits_to_keep=keep).logits
        for (number, row, length), own in zip(batch, logits.float().log_softmax(-1), strict=True):
            scores[number].append(float(own[-length - 1 : -1].gather(-1, torch.tensor(row[-length:])[:, None]).sum()))
    return [likeliest(item, own) for item, own in zip(asked, scores, strict=True)]


def floor_text(model, tokenizer, asked: list[Item]) -> list[str]:
    """What `model.generate` writes."""
    from distill import models

    texts = []
    for start in range(0, len(asked), BATCH):
        prompts = [models.encode_chat(tokenizer, item.messages) for item in asked[start : start + BATCH]]
        ids, mask, _ = padded(prompts, tokenizer.pad_token_id)
        found = model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            eos_token_id=models.end_ids(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
        )
        texts += tokenizer.batch_decode(found[:, ids.shape[1] :], skip_special_tokens=True)
    return texts


def likeliest(item: Item, scores: list[float]) -> str:
    """The option with the highest score, the first of equals."""
    return item.options[max(range(len(scores)), key=scores.__getitem__)]


def ours(path: Path, asked: list[Item], clock: Clock) -> list[str]:
    """The provider."""
    from distill.providers import transformers as provider
    from distill.providers._base import Context
    from distill.records import Request, Sampling

    made = provider.build(provider.Config(model=f"path:{path}", dtype="float32", batch_size=BATCH), Context())
    sampling = Sampling(max_new_tokens=NEW_TOKENS)
    requests = [Request(item.messages, sampling, choices=item.options) for item in asked]
    answers = []
    _ = made.vocab  # loads the weights
    with clock.measures():
        for start in range(0, len(requests), BATCH):
            found = asyncio.run(made.ask(requests[start : start + BATCH]))
            answers += [made.parse(answer.raw).text for answer in found]
    return answers


def lm_eval(path: Path, asked: list[Item], clock: Clock) -> list[str]:
    """lm-evaluation-harness, given the very same text of prompt and option."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from distill import models

    model = HFLM(pretrained=str(path), device="cpu", dtype="float32", batch_size=BATCH, add_bos_token=False)
    tokenizer = model.tokenizer
    end = tokenizer.decode(models.end_ids(tokenizer)[:1])
    prompts = [tokenizer.decode(models.encode_chat(tokenizer, item.messages)) for item in asked]

    def instances(kind: str, arguments: list[tuple]) -> list[Instance]:
        return [Instance(request_type=kind, doc={}, arguments=own, idx=0) for own in arguments]

    if not asked[0].options:
        how = {"until": [end], "do_sample": False, "max_gen_toks": NEW_TOKENS}
        with clock.measures():
            return model.generate_until(instances("generate_until", [(p, how) for p in prompts]), disable_tqdm=True)
    pairs = [(p, option + end) for p, item in zip(prompts, asked, strict=True) for option in item.options]
    with clock.measures():
        scores = iter(model.loglikelihood(instances("loglikelihood", pairs), disable_tqdm=True))
    return [likeliest(item, [next(scores)[0] for _ in item.options]) for item in asked]


ENGINES = {"floor": floor, "lm-eval": lm_eval, "ours": ours}


def one(name: str, case: str, path: Path, count: int) -> None:
    """Run one engine and print its figures as JSON."""
    clock, asked, own = Clock(), items(case, count), OwnMemory(daemon=True)
    own.start()
    answers = [answer.strip() for answer in ENGINES[name](path, asked, clock)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    from distill import models

    tokenizer = models.load_tokenizer(path)
    written = [len(models.encode_answer(tokenizer, answer)) for answer in answers]
    result = {
        "items_per_s": count / clock.seconds,
        "tokens_per_s": sum(min(NEW_TOKENS, length) for length in written) / clock.seconds,
        "cpu_s": clock.cpu,
        "peak_gb": peak,
        "own_gb": own.peak_gb,
        "prompt_tokens": statistics.mean(len(models.encode_chat(tokenizer, item.messages)) for item in asked),
        "answers": answers,
        "sha256": hashlib.sha256("\n".join(answers).encode()).hexdigest()[:16],
    }
    print("RESULT " + json.dumps(result))


def measured(interpreter: str, name: str, case: str, path: Path, count: int) -> dict:
    """The figures of an engine in a process of its own."""
    command = [interpreter, __file__, "--one", name, "--path", str(path), "--items", str(count), "--cases", case]
    environment = {**os.environ, "PYTHONPATH": str(HERE), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    found = [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not found:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    return json.loads(found[0])


def make(folder: Path, tokenizer_of: Path) -> Path:
    """A random Llama of 33 M weights, most of them in its vocabulary, lively enough that options differ clearly."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from distill import models

    tokenizer = models.load_tokenizer(tokenizer_of)
    (end, *_) = models.end_ids(tokenizer)
    config = LlamaConfig(
        vocab_size=120_000,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() > 1:
                weights.normal_(0, 0.1)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def show(case: str, rounds: list[dict[str, dict]], count: int) -> None:
    """The table of a case: the best speed, the median of CPU time and memory, with the range of the latter."""
    first = next(iter(rounds[0].values()))
    print(f"\n{case}: {count} items, {first['prompt_tokens']:.0f} prompt tokens on average, n = {len(rounds)}")
    head = f"{'engine':8} {'items/s':>8} {'tokens/s':>8} {'CPU s':>7} {'peak GB (range)':>17} {'own GB':>7}"
    print(f"{head} {'as ours':>8}  answers")
    for name in rounds[0]:
        rows = [r[name] for r in rounds]
        fastest = max(rows, key=lambda row: row["items_per_s"])
        peaks = [row["peak_gb"] for row in rows]
        same = sum(a == b for a, b in zip(fastest["answers"], rounds[0]["ours"]["answers"], strict=True))
        tokens = f"{fastest['tokens_per_s']:8.1f}" if case == "text" else f"{'-':>8}"
        memory = f"{statistics.median(peaks):.2f} ({min(peaks):.2f}-{max(peaks):.2f})"
        own = statistics.median(row["own_gb"] for row in rows)
        cpu = statistics.median(row["cpu_s"] for row in rows)
        print(
            f"{name:8} {fastest['items_per_s']:8.2f} {tokens} {cpu:7.1f} {memory:>17} {own:7.2f} {same:4}/{count:<3}"
            f"  {fastest['sha256']}"
        )


def main() -> None:
    """Measure the engines in turn and print a table for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=ITEMS, default=list(ITEMS))
    parser.add_argument("--items", type=int, help="of each case (default: as fits in a few minutes)")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--lm-eval", metavar="PYTHON")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=ENGINES, help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        one(args.one, args.cases[0], args.path, args.items)
        return
    from distill import models

    names = {"floor": sys.executable, **({"lm-eval": args.lm_eval} if args.lm_eval else {}), "ours": sys.executable}
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        real = models.resolve(REAL, Path()).path
        for case in args.cases:
            path = make(Path(scratch), real) if case == "made" else real
            count = args.items or ITEMS[case]
            results[case] = [
                {name: measured(python, name, case, path, count) for name, python in names.items()}
                for _ in range(args.rounds)
            ]
            show(case, results[case], count)
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
