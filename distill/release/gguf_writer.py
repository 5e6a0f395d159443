"""A model folder and its adapter as one GGUF file. Peak memory: a few copies of the largest tensor.

Follows the GGUF specification (ggml) for the architectures llama, qwen2 and qwen3. Rotary halves of llama's query
and key weights are interleaved there, as llama.cpp rotates neighbouring pairs.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from distill.errors import ConfigError
from distill.progress import progress
from distill.release import tensors
from distill.release.merge import Adapter

if TYPE_CHECKING:
    from pathlib import Path

    from distill.release.targets._base import Job
    from distill.release.tensors import Tensor

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
BLOCK = 32
"""Weights that share one scale in Q8_0."""


def write(job: Job, path: Path, precision: str) -> None:
    """Write the file. ``precision`` is `f16` or `q8_0`; norms and biases stay in float32."""
    from gguf import GGUFWriter

    config: dict[str, Any] = json.loads((job.weights / "config.json").read_text("utf-8"))
    kind = str(config.get("model_type"))
    if kind not in ARCHITECTURES:
        raise ConfigError(
            f"the architecture {kind!r} is not written as GGUF here; supported: {', '.join(ARCHITECTURES)}",
            where="release.targets",
            next="leave the target gguf out",
        )
    refuse_unsupported(config)
    index = tensors.read_index(job.weights)
    adapter = Adapter(job.adapter) if job.adapter else None
    if adapter:
        adapter.check_against(index)
    architecture = ARCHITECTURES[kind]
    writer = GGUFWriter(str(path), architecture)
    _parameters(writer, job.name, config, precision)
    _tokenizer(writer, job, config)
    names = _names(index, architecture, config)
    order = sorted(names)
    for name in order:
        tensor = index[name]
        _announce(writer, names[name], tensor.shape, _stored(tensor.shape, precision))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    with progress("gguf", len(order), "tensors") as bar:
        for name in order:
            tensor = index[name]
            values = adapter.merged(tensor) if adapter else None
            values = (tensors.load(tensor) if values is None else values).float()
            if architecture == "llama" and name.endswith(
                ("q_proj.weight", "k_proj.weight", "q_proj.bias", "k_proj.bias")
            ):
                heads = "num_attention_heads" if ".q_proj." in name else "num_key_value_heads"
                values = interleave(values, int(config.get(heads) or config["num_attention_heads"]))
            writer.write_tensor_data(_encoded(values.numpy(), _stored(tensor.shape, precision)))
            bar.advance()
    writer.close()


def refuse_unsupported(config: dict[str, Any]) -> None:
    """ConfigError for a setting that the file could not carry faithfully."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    scaled = rope.get("rope_type", rope.get("type", "default"))
    if scaled != "default":
        raise ConfigError(f"rotary scaling {scaled!r} is not written as GGUF here", where="release.targets")
    if config.get("use_sliding_window") or (config.get("model_type") == "mistral" and config.get("sliding_window")):
        raise ConfigError("a sliding attention window is not written as GGUF here", where="release.targets")
    if config.get("hidden_act", "silu") != "silu":
        raise ConfigError(f"activation {config['hidden_act']!r} is not written as GGUF here", where="release.targets")


def _parameters(writer: Any, name: str, config: dict[str, Any], precision: str) -> None:
    from gguf import LlamaFileType

    rope = config.get("rope_parameters") or {}
    heads = int(config["num_attention_heads"])
    head = int(config.get("head_dim") or config["hidden_size"] // heads)
    writer.add_name(name)
    writer.add_context_length(int(config["max_position_embeddings"]))
    writer.add_embedding_length(int(config["hidden_size"]))
    writer.add_block_count(int(config["num_hidden_layers"]))
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(heads)
    writer.add_head_count_kv(int(config.get("num_key_value_heads") or heads))
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0))
    writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))
    writer.add_vocab_size(int(config["vocab_size"]))
    writer.add_file_type(LlamaFileType.MOSTLY_F16 if precision == "f16" else LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(2)


def _tokenizer(writer: Any, job: Job, config: dict[str, Any]) -> None:
    from distill.models import end_ids, load_tokenizer
    from distill.release.vocabulary import read

    source = job.student if (job.student / "tokenizer.json").is_file() else job.base
    tokenizer = load_tokenizer(job.weights)
    vocabulary = read(source / "tokenizer.json", int(config["vocab_size"]))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.splitter)
    writer.add_token_list(list(vocabulary.tokens))
    writer.add_token_types(list(vocabulary.kinds))
    if vocabulary.merges:
        writer.add_token_merges(list(vocabulary.merges))
    writer.add_eos_token_id(end_ids(tokenizer)[0])
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    if tokenizer.pad_token_id is not None:
        writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(False)  # the chat template writes what it wants in front
    writer.add_chat_template(tokenizer.chat_template)


def _names(index: dict[str, Tensor], architecture: str, config: dict[str, Any]) -> dict[str, str]:
    """Our tensor name -> GGUF's. ConfigError for a tensor that GGUF has no place for."""
    from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, get_tensor_name_map

    arch = next(a for a in MODEL_ARCH if MODEL_ARCH_NAMES[a] == architecture)
    mapping = get_tensor_name_map(arch, int(config["num_hidden_layers"]))
    names: dict[str, str] = {}
    for name in index:
        if name.endswith("rotary_emb.inv_freq") or (name == "lm_head.weight" and config.get("tie_word_embeddings")):
            continue
        new = mapping.get_name(name, try_suffixes=(".weight", ".bias"))
        if new is None:
            raise ConfigError(f"GGUF has no place for the tensor {name}", where="release.targets")
        names[name] = new
    return names


def interleave(values: Any, heads: int) -> Any:
    """Rows of each head from (first halves, second halves) to neighbouring pairs. Shape [heads * size, ...]."""
    return (
        values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
    )


def _stored(shape: tuple[int, ...], precision: str) -> str:
    """How a tensor of this shape is stored: vectors in float32, matrices as asked where the rows allow."""
    if len(shape) < 2:
        return "f32"
    return "q8_0" if precision == "q8_0" and shape[-1] % BLOCK == 0 else "f16"


def _announce(writer: Any, name: str, shape: tuple[int, ...], stored: str) -> None:
    import numpy as np
    from gguf import GGMLQuantizationType

    count = math.prod(shape)
    if stored == "q8_0":
        rows = (*shape[:-1], shape[-1] // BLOCK * (BLOCK + 2))
        size = math.prod(rows)
        writer.add_tensor_info(name, rows, np.dtype(np.uint8), size, raw_dtype=GGMLQuantizationType.Q8_0)
    else:
        kind = np.dtype(np.float32 if stored == "f32" else np.float16)
        writer.add_tensor_info(name, shape, kind, count * kind.itemsize)


def _encoded(values_RC: Any, stored: str) -> Any:
    import numpy as np
    from gguf import GGMLQuantizationType, quants

    if stored == "q8_0":
        return quants.quantize(values_RC, GGMLQuantizationType.Q8_0)
    return values_RC.astype(np.float32 if stored == "f32" else np.float16)
