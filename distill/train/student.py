"""The student: weights, adapter, and its two halves - the body (hidden states) and the head.

Shapes: B rows, P shared prefix tokens, T tokens after it, N completion positions, D hidden size.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from distill.errors import ConfigError, DataError, EnvironmentProblem
from distill.train import memory
from distill.train.objective import Head, Parts, Recipe, chunked_loss

if TYPE_CHECKING:
    from pathlib import Path

    from distill.config import Adapter, Student
    from distill.train.batches import Batch


@dataclass(frozen=True)
class Loaded:
    """A student ready to train."""

    model: Any
    tokenizer: Any

    @property
    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """(name, parameter) of what is trained, sorted by name: the order of the optimizer and of checkpoints."""
        named = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        return sorted(named, key=lambda pair: pair[0])

    @property
    def pad(self) -> int:
        """A token id to fill rows with."""
        return int(self.tokenizer.pad_token_id or 0)


def load_base(path: Path, settings: Student) -> tuple[Any, Any]:
    """(the base without adapter, its tokenizer). Raises DataError, EnvironmentProblem, OutOfMemory."""
    from distill.models import load_causal_lm

    kind, dtype = settings.adapter.kind, settings.dtype
    if kind == "qlora":
        check_four_bits()
    whole = kind == "none" and dtype == "auto"
    held = "float32" if whole else dtype
    model, tokenizer = load_causal_lm(path, held, four_bits=kind == "qlora", attention=settings.attention)
    if tokenizer.chat_template is None:
        raise DataError(
            "the student has no chat template, so nothing says where an answer starts",
            where=str(path),
            next="choose an instruct model, or add chat_template.jinja to the folder",
        )
    return model, tokenizer


def make_student(model: Any, tokenizer: Any, adapter: Adapter, seed: int) -> Loaded:
    """The base with a fresh adapter, whose random start depends on ``seed`` alone. Raises ConfigError."""
    torch.manual_seed(seed)
    full = adapter.kind == "none"
    model = model.requires_grad_(full) if full else attach(model, adapter)
    model.train()
    return Loaded(model, tokenizer)


def check_four_bits() -> None:
    """Raise EnvironmentProblem where a base cannot be held in 4 bits and trained over."""
    if not torch.cuda.is_available():
        raise EnvironmentProblem(
            "student.adapter.kind qlora needs a CUDA device: here, 4-bit weights would be slower and save nothing",
            next="student.adapter.kind: lora",
        )
    if find_spec("bitsandbytes") is None:
        raise EnvironmentProblem("student.adapter.kind qlora needs bitsandbytes", next="pip install bitsandbytes")


def attach(model: Any, adapter: Adapter) -> Any:
    """The model with a fresh float32 LoRA or DoRA adapter. Raises ConfigError when no module matches."""
    from peft import LoraConfig, get_peft_model

    targets = adapter.targets[0] if adapter.targets == ("all-linear",) else list(adapter.targets)
    config = LoraConfig(
        r=adapter.r,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=targets,
        use_dora=adapter.kind == "dora",
        task_type="CAUSAL_LM",
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # between the two libraries, not for the user
            return get_peft_model(model, config, autocast_adapter_dtype=True)
    except ValueError as error:
        names = sorted({n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, nn.Linear)})
        raise ConfigError(
            f"student.adapter.targets {list(adapter.targets)} match no module: {str(error)[:120]}",
            next=f"all-linear, or some of: {', '.join(names)}",
        ) from None


def causal_lm(model: Any) -> Any:
    """The causal LM inside an adapter wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def head_of(model: Any, vocab: int = 0) -> Head:
    """Output layer of a causal LM."""
    layer = causal_lm(model).get_output_embeddings()
    return Head(layer.weight, getattr(layer, "bias", None), vocab)


def hidden_states(model: Any, batch: Batch) -> Tensor:
    """Last hidden states [N, D] at the positions that predict the completions.

    Padding is on the right, so a causal model needs no mask for it. Keys and values of the shared prefix are
    computed once and expanded over the rows; their gradient is the sum over rows, as it would be without sharing.
    """
    body = causal_lm(model).base_model
    if batch.places_BT is not None:
        return _packed_states(body, batch)
    cache = _prefix_cache(body, batch, batch.ids_BT.shape[0])
    hidden_BTD = body(input_ids=batch.ids_BT, past_key_values=cache, use_cache=cache is not None).last_hidden_state
    return hidden_BTD.flatten(0, 1).index_select(0, batch.positions_N)


def _packed_states(body: Any, batch: Batch) -> Tensor:
    """The same of rows laid end to end: a token sees the shared prefix and its own row, nothing else.

    Without a prefix, the places alone tell the library where rows begin: it makes the block mask, or calls a
    variable-length kernel where the model was loaded with one.
    """
    cache = _prefix_cache(body, batch, 1)
    mask = None if cache is None else _block_mask(batch, next(body.parameters()).dtype)
    hidden_1TD = body(
        input_ids=batch.ids_BT,
        position_ids=batch.places_BT,
        attention_mask=mask,
        past_key_values=cache,
        use_cache=cache is not None,
    ).last_hidden_state
    return hidden_1TD[0].index_select(0, batch.positions_N)


def _prefix_cache(body: Any, batch: Batch, rows: int) -> Any:
    """Keys and values of the shared prefix for every row; None without one."""
    if not batch.prefix_P.numel():
        return None
    cache = body(input_ids=batch.prefix_P[None], use_cache=True).past_key_values
    for layer in cache.layers:
        layer.keys = layer.keys.expand(rows, -1, -1, -1)
        layer.values = layer.values.expand(rows, -1, -1, -1)
    return cache


def _block_mask(batch: Batch, dtype: torch.dtype) -> Tensor:
    """What is added to the attention scores [1, 1, T, P + T]: 0 where a token may look, the least number elsewhere."""
    assert batch.places_BT is not None
    places_T = batch.places_BT[0]
    row_T = (places_T.diff(prepend=places_T[:1] - 1) != 1).cumsum(0)
    own_TT = (row_T[:, None] == row_T[None]) & (places_T[:, None] >= places_T[None])
    seen_TS = torch.cat([own_TT.new_ones(len(row_T), batch.prefix_P.numel()), own_TT], 1)
    mask_TS = torch.zeros(seen_TS.shape, dtype=dtype, device=seen_TS.device)
    return mask_TS.masked_fill_(~seen_TS, torch.finfo(dtype).min)[None, None]


def is_varlen(model: Any) -> bool:
    """True when attention goes through a kernel that takes the lengths of packed rows, and no mask."""
    return causal_lm(model).config._attn_implementation == "flash_attention_2"


def shares_prefix(model: Any) -> bool:
    """True when the model's cache is plain keys and values of every token, so that a prefix can be shared.

    Packed rows behind a shared prefix need a mask, which not every attention kernel takes.
    """
    from transformers.cache_utils import DynamicCache, DynamicLayer

    if is_varlen(model):
        return False
    body = causal_lm(model).base_model
    with torch.no_grad():
        device = next(body.parameters()).device
        cache = body(input_ids=torch.zeros(1, 2, dtype=torch.long, device=device), use_cache=True).past_key_values
    return type(cache) is DynamicCache and all(type(layer) is DynamicLayer for layer in cache.layers)


class Objective(nn.Module):
    """Model and loss in one module, so that distributed wrappers see one forward call."""

    def __init__(self, model: Any, recipe: Recipe, vocab: int = 0, loss: Any = None):
        super().__init__()
        self.model, self.recipe, self.vocab, self.loss = model, recipe, vocab, loss

    def forward(self, batch: Batch, teacher: Any) -> tuple[Tensor, Parts]:
        """(loss summed over the batch's completion positions, its parts)."""
        hidden_ND, head = hidden_states(self.model, batch), head_of(self.model, self.vocab)
        if hidden_ND.device.type == "cpu":
            memory.give_back()
        # There is nothing to imitate in the student's own answers: the divergence alone counts.
        recipe = replace(self.recipe, kd_weight=1.0) if batch.own else self.recipe
        loss = self.loss if teacher is not None and self.loss is not None else chunked_loss
        return loss(hidden_ND, head, batch.labels_N, teacher, recipe)
