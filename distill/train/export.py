"""The student on disk: adapter or full weights, tokenizer, and student.json that says what it is."""

from __future__ import annotations

import json
import resource
import sys
from typing import TYPE_CHECKING, Any

from distill import artifacts
from distill.train.student import causal_lm

LOCAL = ("_name_or_path", "name_or_path", "is_local", "local_files_only")

if TYPE_CHECKING:
    from pathlib import Path

    from distill.artifacts import RunFolder
    from distill.config import RunConfig
    from distill.train.meter import Meter
    from distill.train.setup import Ready
    from distill.train.student import Loaded


def write(folder: RunFolder, student: Loaded, base_name: str, facts: dict[str, Any]) -> None:
    """Write ``student/`` in one rename. No path of this machine gets into it."""
    model = student.model
    adapter = hasattr(model, "get_base_model")
    if adapter and facts["pruned"]:  # nobody else has this base: base and adapter are written as one
        model, adapter = model.merge_and_unload(), False
    with artifacts.new_folder(folder.student) as path:
        if adapter:
            for config in model.peft_config.values():
                config.base_model_name_or_path = base_name
            model.save_pretrained(path / "adapter", save_embedding_layers=False)
            (path / "adapter" / "README.md").unlink(missing_ok=True)  # the card is written by the release stage
            _sort_lists(path / "adapter" / "adapter_config.json")
        else:
            causal_lm(model).save_pretrained(path)
        student.tokenizer.save_pretrained(path)
        _forget_paths(path)
        text = json.dumps(facts | {"adapter": adapter, "peak_rss_mb": peak_rss_mb()}, indent=2, sort_keys=True)
        (path / "student.json").write_text(text + "\n", "utf-8")


def facts(
    config: RunConfig, ready: Ready, meter: Meter, measured: dict[str, Any], steps: int, kept: int
) -> dict[str, Any]:
    """What student.json says of the run: what was trained on what, for how long, and what it did to the held-out rows.

    ``kept``: the step whose weights the student has; not the last one after an early stop.
    """
    settings = config.train
    before, after = measured.get("0", {}), measured.get(str(kept), {})
    names = {"sft": "cross_entropy", "cross_tokenizer": settings.align, "preference": "dpo"}
    return {
        "base": config.student.model,
        "base_name": ready.base.name,
        "base_sha256": ready.base.sha256,
        "method": settings.method,
        "loss": names.get(settings.method, settings.loss.kind),
        "pruned": ready.pruned,
        "seed": config.seed,
        "threads": ready.threads,
        "steps": steps,
        "kept_step": kept,
        "rows": len(ready.data.train.rows),
        "dropped": ready.data.train.dropped,
        "trainable": sum(parameter.numel() for _, parameter in ready.trainable),
        "tokens": meter.tokens,
        "seconds": round(meter.seconds, 1),
        "tokens_per_s": round(meter.tokens / meter.seconds, 1),
        "eur_per_hour": settings.eur_per_hour,
        "eur": meter.eur,
        "wh": meter.wh,
        "versions": ready.identity["versions"],
        "holdout_losses": {step: values["holdout_loss"] for step, values in measured.items()},
        "holdout_before": before,
        "holdout_after": after,
        "holdout_loss_before": before.get("holdout_loss"),
        "holdout_loss_after": after.get("holdout_loss"),
    }


def summary(facts: dict[str, Any]) -> str:
    """The last line of the stage."""
    early = f"; kept the student of step {facts['kept_step']}" if facts["kept_step"] != facts["steps"] else ""
    lost, left = facts["holdout_loss_before"], facts["holdout_loss_after"]
    return f"train: {facts['tokens']:,} tokens in {facts['seconds']:.0f} s{early}; held-out loss {lost} -> {left}"


def peak_rss_mb() -> int:
    """Most memory this process ever held, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3))


def _sort_lists(file: Path) -> None:
    """The library writes sets in an order that changes with each process; equal runs must write equal bytes."""
    values = json.loads(file.read_text("utf-8"))
    named = {
        k: sorted(v) if isinstance(v, list) and all(isinstance(x, str) for x in v) else v for k, v in values.items()
    }
    file.write_text(json.dumps(named, indent=2, sort_keys=True) + "\n", "utf-8")


def _forget_paths(path: Path) -> None:
    """Drop the load path that libraries note in their configuration files."""
    for file in (path / "config.json", path / "tokenizer_config.json"):
        if file.is_file():
            values = json.loads(file.read_text("utf-8"))
            kept = {k: v for k, v in values.items() if k not in LOCAL}
            if kept != values:
                file.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", "utf-8")
