"""The adapter alone: a few MB beside the public base model, for serving several students on one base."""

from __future__ import annotations

import json
import shutil
from typing import Any

from distill.errors import ConfigError
from distill.release.targets._base import Export, Job, TargetConfig

NEEDS: tuple[str, ...] = ()
FOLDER = "adapter"
TOLERANCE = 1e-4
"""The same numbers through the same code: only threads may order a sum differently."""


class Config(TargetConfig):
    """Adapter in peft's format."""

    kind: str = "adapter"
    """`adapter`."""


def export(job: Job, config: Config) -> Export:  # noqa: ARG001
    """Write `adapter/`: weights, configuration that names the public base, tokenizer."""
    from distill.release.targets.merged import copy_tokenizer

    if job.adapter is None:
        raise ConfigError("this run trained all weights: there is no adapter", where="release.targets")
    folder = job.bundle / FOLDER
    folder.mkdir()
    shutil.copyfile(job.adapter / "adapter_model.safetensors", folder / "adapter_model.safetensors")
    values: dict[str, Any] = json.loads((job.adapter / "adapter_config.json").read_text("utf-8"))
    values = {**values, "base_model_name_or_path": job.base_name, "auto_mapping": None}
    (folder / "adapter_config.json").write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", "utf-8")
    copy_tokenizer(job, folder)
    files = sorted(f for f in folder.iterdir() if f.is_file())
    return Export(
        tuple(f.relative_to(job.bundle).as_posix() for f in files),
        load=lambda dtype: _load(job, dtype),
        tolerance=TOLERANCE,
        facts={"folder": FOLDER, "precision": "as trained", "bytes": sum(f.stat().st_size for f in files)},
    )


def _load(job: Job, dtype: str) -> tuple[Any, Any]:
    from distill.models import load_causal_lm

    return load_causal_lm(job.base, dtype=dtype, adapter=job.bundle / FOLDER)
