"""GGUF for llama.cpp, Ollama and LM Studio: F16 or Q8_0, written from the merged tensors one at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from distill.release.targets._base import Export, Job, TargetConfig

if TYPE_CHECKING:
    from pathlib import Path

NEEDS: tuple[str, ...] = ()
FOLDER = "gguf"
# Measured on a 135M student: 0.006 (its base is in bfloat16) and 0.035; another family and size may be a little worse.
TOLERANCE = {"f16": 2e-2, "q8_0": 1e-1}


class Config(TargetConfig):
    """GGUF file."""

    kind: str = "gguf"
    """`gguf`."""
    precision: Literal["f16", "q8_0"] = "q8_0"
    """`f16`: 16-bit weights. `q8_0`: 8-bit weights, half the size, nearly the same answers."""


def file_name(job: Job, config: Config) -> str:
    """Name of the file inside `gguf/`."""
    return f"{job.name}-{config.precision.upper()}.gguf"


def export(job: Job, config: Config) -> Export:
    """Write `gguf/NAME-PRECISION.gguf`. ConfigError for an architecture or tokenizer that is not supported."""
    try:
        import gguf  # noqa: F401
    except ImportError:
        from distill.errors import MissingDependency

        raise MissingDependency("gguf", "the target gguf", "train") from None
    from distill.release import gguf_writer

    path = job.bundle / FOLDER / file_name(job, config)
    path.parent.mkdir(exist_ok=True)
    gguf_writer.write(job, path, config.precision)
    return Export(
        (f"{FOLDER}/{path.name}",),
        load=lambda dtype: _load(path, job, dtype),
        tolerance=TOLERANCE[config.precision],
        facts={"folder": FOLDER, "precision": config.precision.upper(), "bytes": path.stat().st_size},
    )


def _load(path: Path, job: Job, dtype: str) -> tuple[Any, Any]:
    """The file's weights in the library's model, and the tokenizer they were trained with.

    The library's reader of a GGUF tokenizer guesses how text is cut, so it proves nothing about llama.cpp.
    """
    import torch
    import transformers

    from distill.models import load_tokenizer, pick_device, pick_dtype

    place = pick_device()
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        str(path.parent),
        gguf_file=path.name,
        dtype=getattr(torch, pick_dtype(dtype, place)),
        quantization_config=transformers.GgufConfig(dequantize=True),
        trust_remote_code=False,
        local_files_only=True,
    )
    return model.to(place).eval(), load_tokenizer(job.weights)
