"""GGUF for llama.cpp, Ollama and LM Studio: F16, Q8_0 or Q4_K_M, judged by llama.cpp itself."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, Literal

from distill.errors import ConfigError, MissingDependency
from distill.release.targets._base import Export, Job, TargetConfig

NEEDS: tuple[str, ...] = ()
FOLDER = "gguf"
# Largest relative distance of the logits. llama.cpp rounds activations, too, where it multiplies with rounded weights.
TOLERANCE = {"f16": 2e-2, "q8_0": 1e-1, "q4_k_m": 5e-1}


class Config(TargetConfig):
    """GGUF file."""

    kind: str = "gguf"
    """`gguf`. May be named once for each precision."""
    precision: Literal["f16", "q8_0", "q4_k_m"] = "q8_0"
    """`f16`: 16-bit weights. `q8_0`: 8-bit weights, half the size, nearly the same answers. `q4_k_m`: between 4 and 6
    bits, made by llama.cpp's own quantiser; a third of the size, and answers may differ: the score says how much."""
    judged_by: Literal["llama.cpp", "transformers"] = "llama.cpp"
    """Whose logits and answers are compared with the student's. `llama.cpp`: what a client will get. `transformers`:
    the file's weights in the library, where llama.cpp is not installed; shows that the file is right, and not how
    llama.cpp computes with it."""

    @property
    def label(self) -> str:
        """`gguf-q8_0`."""
        return f"gguf-{self.precision}"


def export(job: Job, config: Config) -> Export:
    """Write `gguf/NAME-PRECISION.gguf`. ConfigError for an architecture or tokenizer that is not supported."""
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise MissingDependency("gguf", "the target gguf", "train") from None
    from distill.release import gguf_writer, llamacpp

    if config.judged_by == "llama.cpp":
        llamacpp.library("the target gguf (or set judged_by: transformers)")
    path = job.bundle / FOLDER / f"{job.name}-{config.precision.upper()}.gguf"
    path.parent.mkdir(exist_ok=True)
    if config.precision == "q4_k_m":
        with tempfile.TemporaryDirectory(prefix=".tmp-", dir=job.bundle.parent) as folder:
            gguf_writer.write(job, Path(folder) / "f16.gguf", "f16")
            llamacpp.quantise(Path(folder) / "f16.gguf", path, config.precision)
    else:
        gguf_writer.write(job, path, config.precision)
    longest = int(json.loads((job.weights / "config.json").read_text("utf-8"))["max_position_embeddings"])
    return Export(
        (f"{FOLDER}/{path.name}",),
        load=lambda dtype: _load(path, job, dtype),
        engine=None if config.judged_by != "llama.cpp" else lambda n: llamacpp.Engine(path, min(n, longest)),
        tolerance=TOLERANCE[config.precision],
        facts={
            "folder": FOLDER,
            "precision": config.precision.upper(),
            "bytes": path.stat().st_size,
            "judged_by": config.judged_by,
            "tensors": stored_as(path),
        },
    )


def stored_as(path: Path) -> dict[str, int]:
    """Number format -> tensors held in it: a row that 256 does not divide is kept in more bits than asked for."""
    from collections import Counter

    from gguf import GGUFReader

    return dict(sorted(Counter(tensor.tensor_type.name for tensor in GGUFReader(str(path)).tensors).items()))


def named(job: Job, precision: str) -> Path:
    """The GGUF file of this release that a serving target means. ConfigError when that is not clear."""
    files = sorted((job.bundle / FOLDER).glob(f"*-{precision.upper()}.gguf" if precision else "*.gguf"))
    if len(files) != 1:
        there = ", ".join(sorted(path.stem.rpartition("-")[2].lower() for path in (job.bundle / FOLDER).glob("*.gguf")))
        raise ConfigError(f"which GGUF file? `precision` names one of: {there}", where="release.targets")
    return files[0]


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
