"""Merged weights in safetensors: loads anywhere transformers does, without the adapter library."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from distill.release.targets._base import Export, Job, TargetConfig

if TYPE_CHECKING:
    from pathlib import Path

NEEDS: tuple[str, ...] = ()
FOLDER = "weights"
# The bits of the mantissa decide how far rounding moves the logits. Measured: 4e-7 in float32, 6e-3 in bfloat16 (135M).
TOLERANCE = {"F32": 1e-3, "F16": 2e-2, "BF16": 6e-2}
# Written by training libraries about where a file came from; true of this machine only.
LOCAL_KEYS = ("_name_or_path", "auto_map", "_attn_implementation_internal", "name_or_path", "tokenizer_file")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)


class Config(TargetConfig):
    """Merged safetensors."""

    kind: str = "merged"
    """`merged`."""
    max_file_gb: Annotated[float, Field(gt=0)] = 2.0
    """A larger model is split into files of at most this many GB, and an index."""


def export(job: Job, config: Config) -> Export:
    """Write `weights/`: configuration, tokenizer, merged tensors."""
    folder = job.bundle / FOLDER
    files = write_weights(job, folder, int(config.max_file_gb * 1e9))
    from distill.release import tensors

    kinds = {t.dtype for t in tensors.read_index(folder).values()}
    facts = {"folder": FOLDER, "precision": "+".join(sorted(kinds)), "bytes": sum(f.stat().st_size for f in files)}
    return Export(
        tuple(f.relative_to(job.bundle).as_posix() for f in files),
        load=lambda dtype: _load(folder, dtype),
        tolerance=max(TOLERANCE.get(kind, 0.0) for kind in kinds),
        facts=facts,
    )


def write_weights(job: Job, folder: Path, limit: int) -> list[Path]:
    """Write the merged model folder; files no larger than ``limit`` bytes where tensors allow. Returns its files."""
    from distill.progress import progress
    from distill.release import tensors
    from distill.release.merge import Adapter

    folder.mkdir(parents=True)
    index = tensors.read_index(job.weights)
    adapter = Adapter(job.adapter) if job.adapter else None
    if adapter:
        adapter.check_against(index)
    total = sum(tensor.size for tensor in index.values())
    with progress("merge", round(total / 1e6, 1), "MB") as bar:
        tensors.write_model(
            folder,
            list(index.values()),
            limit,
            adapter.merged if adapter else lambda _: None,
            lambda size: bar.advance(size / 1e6),
        )
    copy_json(job.weights, folder, ("config.json", "generation_config.json"))
    copy_tokenizer(job, folder)
    return sorted(f for f in folder.iterdir() if f.is_file())


def copy_tokenizer(job: Job, folder: Path) -> None:
    """The student's tokenizer files, or the base's where training did not write its own."""
    source = job.student if (job.student / "tokenizer.json").is_file() else job.base
    copy_json(source, folder, TOKENIZER_FILES)


def copy_json(source: Path, folder: Path, names: tuple[str, ...]) -> None:
    """Copy the named files that exist; JSON objects lose the keys that hold a local path or name foreign code."""
    for name in names:
        path = source / name
        if not path.is_file():
            continue
        data = path.read_bytes()
        if name.endswith("config.json"):
            values: dict[str, Any] = json.loads(data)
            kept = {key: value for key, value in values.items() if key not in LOCAL_KEYS}
            data = (json.dumps(kept, indent=2, ensure_ascii=False) + "\n").encode()
        (folder / name).write_bytes(data)


def _load(folder: Path, dtype: str) -> tuple[Any, Any]:
    from distill.models import load_causal_lm

    return load_causal_lm(folder, dtype=dtype)
