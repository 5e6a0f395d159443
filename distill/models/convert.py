"""GGUF to bf16 safetensors, once, with what the conversion alone would lose."""

from __future__ import annotations

import contextlib
import gc
import json
import os
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from distill.artifacts import write_json
from distill.errors import DataError, DistillError, OutOfMemory
from distill.models.chat import end_ids
from distill.models.folder import check_folder, read_json, safe_config
from distill.models.load import quiet_library
from distill.progress import progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


def convert(gguf: Path, folder: Path, **record: Any) -> None:
    """Write model, tokenizer and ``source.json`` (``record`` plus versions) to ``folder``.

    About 3.2 bytes of memory per weight at the peak. Raises DataError when the file is not a chat model that can
    be converted.
    """
    try:
        _weights(gguf, folder)
        tokenizer = _tokenizer(gguf, folder)
    except DistillError:
        raise
    except MemoryError as error:
        raise OutOfMemory("not enough memory to convert", where=str(gguf), next="a machine with more memory") from error
    except Exception as error:
        raise DataError(f"cannot be converted: {type(error).__name__}: {str(error)[:200]}", where=str(gguf)) from error
    gc.collect()
    _settle(folder, tokenizer)
    check_folder(folder)
    made_with = {name: version(name) for name in ("transformers", "gguf", "torch")}
    write_json(folder / "source.json", {**record, "made_with": made_with})


def _weights(gguf: Path, folder: Path) -> None:
    import torch
    import transformers

    options: dict[str, Any] = {}
    if hasattr(transformers, "GgufConfig"):  # from there on, packed weights are the default and cannot be saved
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    with quiet_library(), _shown_as_ours():
        model = transformers.AutoModelForCausalLM.from_pretrained(
            str(gguf.parent),
            gguf_file=gguf.name,
            dtype=torch.bfloat16,
            trust_remote_code=False,
            local_files_only=True,
            **options,
        )
        # One file up to 20 GB: its SHA-256 is then the model's.
        model.save_pretrained(folder, max_shard_size="20GB")
    for file in folder.glob("*.safetensors"):
        os.chmod(file, 0o600)


@contextlib.contextmanager
def _shown_as_ours() -> Iterator[None]:
    """The reader's loop over tensors has a bar of its own; ours takes its place."""
    from transformers import modeling_gguf_pytorch_utils as reader

    def counted(tensors: Sequence[Any], **_: Any) -> Iterator[Any]:
        with progress("converting", len(tensors), "tensors") as bar:
            for tensor in tensors:
                yield tensor
                bar.advance()

    theirs = getattr(reader, "tqdm", None)
    if theirs is None:
        yield
        return
    reader.tqdm = counted
    try:
        yield
    finally:
        reader.tqdm = theirs


def _tokenizer(gguf: Path, folder: Path) -> Any:
    import transformers
    from gguf import GGUFReader
    from tokenizers import normalizers

    tokenizer = transformers.AutoTokenizer.from_pretrained(
        str(gguf.parent), gguf_file=gguf.name, trust_remote_code=False, local_files_only=True
    )
    if not tokenizer.chat_template:
        raise DataError("the file has no chat template: a base model, not an instruct one", where=str(gguf))
    field = GGUFReader(str(gguf)).fields.get("tokenizer.ggml.pre")
    if field is not None and field.contents() == "qwen2" and tokenizer.backend_tokenizer.normalizer is None:
        tokenizer.backend_tokenizer.normalizer = normalizers.NFC()  # Qwen's own; the GGUF reader drops it
    tokenizer.save_pretrained(folder)
    return tokenizer


def _settle(folder: Path, tokenizer: Any) -> None:
    """Make the three JSON files agree on the token that ends a turn, and drop what only described the conversion."""
    end = end_ids(tokenizer)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end[0]
    config = {**safe_config(read_json(folder / "config.json")), "eos_token_id": end[0], "pad_token_id": pad}
    config.pop("quantization_config", None)
    write_json(folder / "config.json", config)
    generation = {"bos_token_id": config.get("bos_token_id"), "eos_token_id": end, "pad_token_id": pad}
    write_json(folder / "generation_config.json", {k: v for k, v in generation.items() if v is not None})
    file = folder / "tokenizer_config.json"
    settings = {k: v for k, v in read_json(file).items() if k not in ("is_local", "local_files_only", "auto_map")}
    settings["eos_token"] = tokenizer.convert_ids_to_tokens(end[0])
    longest = config.get("max_position_embeddings")
    if isinstance(longest, int):
        settings["model_max_length"] = longest
    file.write_text(json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")
