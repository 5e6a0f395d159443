"""Weights held in 16 bits give the very numbers of float32 weights made from them."""

from __future__ import annotations

import pytest
import torch

from distill import models
from distill.models import stored
from tests.tiny import tiny_tokenizer

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "sliding_window": 32,
}
KINDS = ("llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3_text", "phi3", "granite", "gpt2")


def saved(folder, kind="llama", dtype="bfloat16", tie=False, edit=None):
    """A small model of a family, its weights in ``dtype`` on disk."""
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    tokenizer = tiny_tokenizer()
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    sizes = {"n_embd": 64, "n_layer": 2, "n_head": 4} if kind == "gpt2" else SIZES
    config = CONFIG_MAPPING[kind](vocab_size=len(tokenizer), tie_word_embeddings=tie, **ids, **sizes)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(torch.randn_like(weights) * 0.1)
    model = model.to(getattr(torch, dtype))
    if edit:
        edit(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def logits(model):
    ids = torch.arange(3, 43).reshape(2, 20)
    with torch.inference_mode():
        return model(input_ids=ids).logits


def both(folder, adapter=None):
    return [
        models.load_causal_lm(folder, "float32", adapter, "cpu", as_stored=as_stored)[0] for as_stored in (True, False)
    ]


def narrow_share(model):
    weights = list(model.parameters())
    return sum(w.numel() for w in weights if w.dtype != torch.float32) / sum(w.numel() for w in weights)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tie", [True, False])
def test_a_family_held_as_stored_gives_the_same_logits_bit_for_bit(tmp_path, kind, tie):
    held, wide = both(saved(tmp_path, kind, tie=tie))
    assert torch.equal(logits(held), logits(wide))
    assert models.compute_dtype(held) == models.compute_dtype(wide) == logits(held).dtype == torch.float32
    assert narrow_share(wide) == 0
    if kind not in ("gpt2", "gemma2", "gemma3_text"):  # layers of their own kind are widened at once
        assert narrow_share(held) > 0.95


def test_multiplying_in_bfloat16_would_have_been_noticed(tmp_path):
    _, wide = both(saved(tmp_path))
    narrow, _ = models.load_causal_lm(tmp_path, "bfloat16", device="cpu")
    assert models.compute_dtype(narrow) == torch.bfloat16
    assert not torch.equal(logits(narrow).float(), logits(wide))


def test_half_precision_files_are_held_too(tmp_path):
    held, wide = both(saved(tmp_path, dtype="float16"))
    assert narrow_share(held) > 0.95
    assert torch.equal(logits(held), logits(wide))


@pytest.mark.parametrize("piece", [64, 1000, 1 << 30])
def test_weights_widened_in_pieces_give_the_same_logits(tmp_path, monkeypatch, piece):
    held, wide = both(saved(tmp_path, "qwen2"))  # with biases
    monkeypatch.setattr(stored, "PIECE", piece)
    assert torch.allclose(logits(held), logits(wide), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dora", [False, True])
def test_an_adapter_on_held_weights_gives_the_same_logits(tmp_path, dora):
    from peft import LoraConfig, get_peft_model

    base = saved(tmp_path / "base")
    before, _ = both(base)
    torch.manual_seed(1)
    settings = LoraConfig(r=4, target_modules="all-linear", use_dora=dora, init_lora_weights=False)
    get_peft_model(models.load_causal_lm(base, "float32")[0], settings).save_pretrained(tmp_path / "adapter")
    held, wide = both(base, tmp_path / "adapter")
    assert narrow_share(held) > 0.7
    assert torch.allclose(logits(held), logits(wide), atol=1e-6, rtol=0)
    assert not torch.allclose(logits(held), logits(before), atol=1e-2)


def test_a_file_with_any_wider_tensor_is_loaded_wide_and_nothing_is_rounded(tmp_path):
    def keep_one_wide(model):
        model.model.norm.weight.data = torch.full((64,), 1.001)  # not a bfloat16 number

    folder = saved(tmp_path, edit=keep_one_wide)
    assert stored.stored_dtype(folder) is None
    held, _ = both(folder)
    assert narrow_share(held) == 0
    assert float(held.model.norm.weight[0]) == pytest.approx(1.001, abs=1e-6)


def test_a_model_with_a_buffer_in_16_bits_is_left_alone():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4)).to(torch.bfloat16)
    model.register_buffer("slopes", torch.ones(4, dtype=torch.bfloat16))
    assert not stored.widen_when_used(model)
    assert type(model[0]) is torch.nn.Linear


def test_only_inference_in_float32_on_a_processor_holds_16_bits(tmp_path):
    folder = saved(tmp_path)
    training, _ = models.load_causal_lm(folder, "float32")
    assert narrow_share(training) == 0
    native, _ = models.load_causal_lm(folder, "bfloat16", device="cpu", as_stored=True)
    assert {type(m) for m in native.modules()}.isdisjoint(stored._classes())
