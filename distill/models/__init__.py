"""Where weights come from, and the one place that loads them.

``resolve`` turns a catalogue name, ``hub:ID@REVISION``, ``path:DIR`` or ``package:...#sha256=...`` into a local
folder with ``config.json``, safetensors and tokenizer files. ``load_causal_lm`` loads such a folder. No pickle is
ever opened and no code that comes with a model is ever run.
"""

from distill.models.chat import (
    encode_answer,
    encode_chat,
    end_ids,
    is_users_turn,
    template_hash,
    tokenizer_fingerprint,
    users_turn_ends,
)
from distill.models.load import load_causal_lm, load_tokenizer, pick_device, pick_dtype
from distill.models.source import Resolved, cache_dir, cached, resolve
from distill.models.stored import compute_dtype

__all__ = [
    "Resolved",
    "cache_dir",
    "cached",
    "compute_dtype",
    "encode_answer",
    "encode_chat",
    "end_ids",
    "is_users_turn",
    "load_causal_lm",
    "load_tokenizer",
    "pick_device",
    "pick_dtype",
    "resolve",
    "template_hash",
    "tokenizer_fingerprint",
    "users_turn_ends",
]
