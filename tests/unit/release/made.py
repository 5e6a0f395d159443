"""A finished run folder as the earlier stages leave it, made in a second from the tiny model."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from distill.artifacts import RunFolder, open_run, sha256_file, write_json
from distill.config import RunConfig
from tests.tiny import tiny_model


def _estimate(value):
    return {"value": value, "low": value - 0.06, "high": value + 0.06}


WAIVER = {"name": "A. Person", "date": "2026-11-01", "reason": "made for this test, nobody else has it"}
ACCURACY = {"teacher": _estimate(0.81), "base": _estimate(0.29), "student": _estimate(0.74)}
ARMS = {name: {"accuracy": value} for name, value in ACCURACY.items()}
REPORT = {
    "verdict": {"sentence": "The student loses 7 points against the teacher.", "outcome": "fail"},
    "candidate": "student",
    "reference": "teacher",
    "margin": 0.05,
    "arms": [{"name": name, "label": f"the {name}", "accuracy": value, "n": 208} for name, value in ACCURACY.items()],
    "tasks": [{"name": "sections", "n": 208, "arms": ARMS, "difference": _estimate(-0.07), "p": 0.03}],
    "languages": [{"name": "fr", "n": 104, "arms": ARMS, "difference": _estimate(-0.07), "p": 0.03}],
}


def base_folder(path, dtype=torch.float32):
    """The tiny model, its weights in ``dtype``."""
    if not path.exists():
        tiny_model(path, seed=0)
        if dtype is not torch.float32:
            from safetensors.torch import load_file, save_file

            weights = {name: tensor.to(dtype) for name, tensor in load_file(path / "model.safetensors").items()}
            save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
            config = json.loads((path / "config.json").read_text())
            config["dtype"] = str(dtype).removeprefix("torch.")
            (path / "config.json").write_text(json.dumps(config))
    return path


def base_for_llamacpp(path):
    """The tiny model with one merge in its tokenizer, which is the least that llama.cpp wants."""
    tiny_model(path, padded_vocab=8)
    values = json.loads((path / "tokenizer.json").read_text())
    values["model"]["vocab"]["\u0120t"] = len(values["model"]["vocab"])
    values["model"]["merges"] = [["\u0120", "t"]]
    (path / "tokenizer.json").write_text(json.dumps(values))
    return path


def adapter_folder(base, out, seed=1, **settings):
    """A LoRA adapter with random weights in both halves, saved by peft."""
    from peft import LoraConfig, get_peft_model

    from distill.models import load_causal_lm

    model, _ = load_causal_lm(base, dtype="auto")
    torch.manual_seed(seed)
    wanted = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **settings}
    model = get_peft_model(model, LoraConfig(**wanted))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
            if "magnitude" in name:
                parameter.mul_(1 + 0.1 * torch.rand_like(parameter))
    model.save_pretrained(out)
    return out


def run_folder(path, base, **release):
    """(config, run folder) with data, a student, a report: what `distill release` starts from."""
    config = RunConfig.model_validate(
        {
            "name": "sorter",
            "prompts": {"path": "prompts.jsonl", "system": "Sort the text.", "template": "{{ text }}"},
            "teacher": {"kind": "fake", "model": "acme/Teacher-9B"},
            "student": {"model": f"path:{base}"},
            "release": {"summary": "Sorts texts into sections.", **release},
            "policy": {"waivers": [WAIVER | {"model": f"path:{base}"}]},
        }
    )
    config._folder = path.parent
    with open_run(path) as folder:
        adapter_folder(base, folder.student / "adapter")
        write_student(folder, base)
        write_rows(folder.train_data, 12)
        write_rows(folder.holdout_data, 5)
        write_json(folder.data_card, {"rows": {"kept": 12, "holdout": 5}, "source": "prompts.jsonl"})
        write_json(folder.report_json, REPORT)
        write_samples(folder.eval / "student.parquet")
        folder.report_html.write_text("<!doctype html><title>report</title><p>files in /home/anyone are kept</p>")
        write_json(folder.config, {"config": config.resolved(), "versions": {"python": "3.11.9", "alambic": "0.1.0"}})
    return config, RunFolder(path)


def write_student(folder, base):
    """student.json and the tokenizer, as training writes them."""
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (base / name).is_file():
            (folder.student / name).write_bytes((base / name).read_bytes())
    write_json(
        folder.student / "student.json",
        {
            "base": f"path:{base}",
            "base_sha256": sha256_file(base / "model.safetensors"),
            "adapter": True,
            "method": "sft",
            "steps": 40,
            "tokens": 4096,
            "seconds": 12.5,
        },
    )


def write_samples(path, right=lambda number: number % 4, items=208):
    """The student's answers as the eval stage writes them: ``right(n)`` is falsy for the items it gets wrong."""
    rows = [
        {"task": "sections", "id": f"item-{n}", "cluster": f"package-{n // 2}", "correct": float(bool(right(n)))}
        for n in range(items)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def write_rows(path, count):
    """Rows as the generate stage writes them."""
    rows = [
        {
            "id": f"row-{number:03d}",
            "cluster": f"c{number}",
            "lang": ("fr", "de", "fr")[number % 3],
            "messages": [{"role": "user", "content": f"Paquet {number} : un éditeur de texte"}],
            "answer": ("editors", "games", "science")[number % 3],
            "teacher": "acme/Teacher-9B",
            "request_key": f"{number:064x}",
        }
        for number in range(count)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def build(config, folder):
    """Build the bundle and give its path."""
    from distill.release import run

    with open_run(folder.path) as locked:
        return run.run(config, locked)[0]


def with_task(config, folder, items=24, right=lambda number: True):
    """The configuration with a task, its file, and the student's own answers to it as the evaluation stored them."""
    import json as text

    from distill.config import RunConfig

    values = config.resolved()
    values["prompts"]["choices"] = ["editors", "games"]
    values["eval"]["tasks"] = [{"kind": "classification", "path": "test.jsonl", "gold_field": "label"}]
    other = RunConfig.model_validate(values)
    other._folder = config._folder
    rows = [{"id": f"item-{n}", "text": f"texte {n}", "label": ("editors", "games")[n % 2]} for n in range(items)]
    (config._folder / "test.jsonl").write_text("".join(text.dumps(row) + "\n" for row in rows))
    scored = [
        {"task": "test", "id": row["id"], "cluster": row["id"], "correct": float(right(number))}
        for number, row in enumerate(rows)
    ]
    pq.write_table(pa.Table.from_pylist(scored), folder.eval / "student.parquet")
    return other
