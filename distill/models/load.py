"""The one place where weights are loaded: safetensors only, no code of the model's, offline."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.errors import DataError, DistillError, EnvironmentProblem, MissingDependency, OutOfMemory, Refused
from distill.models.folder import check_folder, check_header, read_json, safe_config
from distill.models.stored import stored_dtype, widen_when_used

if TYPE_CHECKING:
    from collections.abc import Iterator

NATIVE_BF16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


def load_causal_lm(
    path: Path,
    dtype: str = "auto",
    adapter: Path | None = None,
    device: str = "auto",
    *,
    four_bits: bool = False,
    as_stored: bool = False,
    attention: str | None = None,
) -> tuple[Any, Any]:
    """(model in eval mode, tokenizer) of a folder; the adapter, if any, is attached and not merged.

    ``four_bits``: hold the linear layers as NF4 (bitsandbytes, CUDA).
    ``as_stored``: for inference; on a processor in float32, hold 16-bit weights as the file does (`stored`).
    ``attention``: the library's name of an attention kernel; None or `auto` = its own choice.
    Raises DataError, IntegrityError, Refused (pickled weights, or a model that needs its own code), OutOfMemory.
    """
    check_folder(path)
    tokenizer = load_tokenizer(path)
    place = pick_device(device)
    picked = pick_dtype(dtype, place)
    more = {} if attention in (None, "auto") else {"attn_implementation": attention}
    held = stored_dtype(path) if as_stored and place == "cpu" and picked == "float32" else None
    try:
        model = _read(path, held or picked, more | (_nf4(place) if four_bits else {}))
        if held and not widen_when_used(model):
            del model
            model = _read(path, picked, more)
        if adapter is not None:
            model = _attach(model, adapter)
        model = model if four_bits else model.to(place)
    except DistillError:
        raise
    except Exception as error:
        raise _readable(error, path) from error
    return model.eval(), tokenizer


def _read(path: Path, dtype: str, more: dict[str, Any]) -> Any:
    """The model of a folder with its weights in ``dtype``."""
    import torch
    import transformers

    with quiet_library():
        return transformers.AutoModelForCausalLM.from_pretrained(
            str(path),
            config=_config(path),
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            **more,
        )


def _nf4(place: str) -> dict[str, Any]:
    """Arguments that load linear layers in 4 bits, straight onto the device (Dettmers et al. 2023)."""
    import torch
    from transformers import BitsAndBytesConfig

    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, pick_dtype("auto", place)),
    )
    return {"quantization_config": settings, "device_map": {"": place}}


@contextlib.contextmanager
def quiet_library() -> Iterator[None]:
    """transformers without its progress bars."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def load_tokenizer(path: Path) -> Any:
    """The tokenizer of a folder. Raises DataError."""
    try:
        import transformers
    except ImportError:
        raise MissingDependency("transformers", "local models", "train") from None
    if not path.is_dir():
        raise DataError("no such folder", where=str(path))
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            str(path), config=_config(path), trust_remote_code=False, local_files_only=True
        )
    except DistillError:
        raise
    except Exception as error:
        raise _readable(error, path) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _config(path: Path) -> Any:
    """The configuration object, made from a cleaned copy of config.json: no library sees the file itself."""
    from transformers import CONFIG_MAPPING

    values = safe_config(read_json(path / "config.json"))
    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise Refused(
            f"the architecture {kind!r} is not built into this transformers, and a model's own code is never run",
            where=str(path / "config.json"),
            next="pip install -U transformers, or choose another model",
        )
    return CONFIG_MAPPING[kind].from_dict(values)


def _attach(model: Any, adapter: Path) -> Any:
    try:
        from peft import PeftModel
    except ImportError:
        raise MissingDependency("peft", "adapters", "train") from None
    weights = adapter / "adapter_model.safetensors"
    if not weights.is_file():
        if adapter.is_dir() and any(adapter.glob("adapter_model.*")):
            raise Refused("only pickled adapter weights here", where=str(adapter), next="save it as safetensors")
        raise DataError("no adapter_model.safetensors here", where=str(adapter))
    check_header(weights)
    kind = read_json(adapter / "adapter_config.json").get("peft_type")
    if kind != "LORA":
        raise DataError(f"the adapter is of type {kind!r}; LORA (with DoRA) is read", where=str(adapter))
    return PeftModel.from_pretrained(model, str(adapter), local_files_only=True)


def _readable(error: Exception, path: Path) -> DistillError:
    """The one line for whatever a library raises on a bad folder."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if isinstance(error, MemoryError) or "out of memory" in text.lower() or "not enough memory" in text:
        return OutOfMemory(
            "the weights do not fit in memory", where=str(path), next="a smaller model, or dtype: bfloat16"
        )
    if "trust_remote_code" in text or "remote code" in text:
        return Refused("the model needs its own code, which is never run", where=str(path), next="choose another model")
    return DataError(f"cannot be loaded: {text}", where=str(path))


def pick_device(device: str = "auto") -> str:
    """`auto` as `cuda` or `cpu`. Raises EnvironmentProblem when the named device is not here."""
    try:
        import torch
    except ImportError:
        raise MissingDependency("torch", "local models", "train") from None
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise EnvironmentProblem(f"no device {device!r} here", next="device: auto, or distill doctor")
    return device


def pick_dtype(dtype: str, device: str) -> str:
    """`auto` as `bfloat16` where the processor multiplies it natively, else `float32` (much faster there)."""
    if dtype != "auto":
        return dtype
    if device.startswith("cuda"):
        import torch

        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if cpu_has_bf16() else "float32"


@functools.cache
def cpu_has_bf16() -> bool:
    """True when every core has a bfloat16 multiply."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return not NATIVE_BF16.isdisjoint(flags.split())
