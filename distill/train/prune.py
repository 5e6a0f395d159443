"""Depth-pruned students: the layers that change their input least are left out (ShortGPT, arXiv 2403.03853).

Block influence of a layer = 1 - mean cosine between what enters it and what leaves it, over the tokens of
calibration rows. One shot: measured once on the whole model.

Shapes: T tokens, H hidden size.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from distill.errors import ConfigError, DataError
from distill.progress import say
from distill.train.batches import collate
from distill.train.objective import Recipe, chunked_loss
from distill.train.student import head_of, hidden_states

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill.train.batches import Row

CALIBRATION = 64  # rows


def prune(model: Any, keep: int, rows: Sequence[Row], held: Sequence[Row]) -> dict[str, Any]:
    """Leave ``keep`` layers in ``model``; which, and the perplexity of the held-out answers before and after.

    Without held-out rows the calibration rows are measured. Raises ConfigError, DataError.
    """
    layers = layers_of(model)
    if keep >= len(layers):
        raise ConfigError(
            f"student.prune.layers is {keep}, and the model has {len(layers)} layers",
            next=f"student.prune.layers={len(layers) // 2}, or leave student.prune out",
        )
    seen, measured = rows[:CALIBRATION], (held or rows)[:CALIBRATION]
    before = perplexity(model, measured)
    influence = block_influence(model, seen)
    ranked = sorted(range(len(layers)), key=lambda i: (-influence[i], i))
    kept = sorted(ranked[:keep])
    keep_layers(model, kept)
    after = perplexity(model, measured)
    say(
        f"train: {keep} of {len(layers)} layers kept; perplexity of {len(measured)} answers {before:.4g} -> {after:.4g}"
    )
    return {
        "layers_before": len(layers),
        "layers": kept,
        "block_influence": [round(value, 6) for value in influence],
        "calibration_rows": len(seen),
        "perplexity_rows": len(measured),
        "perplexity_before": before,
        "perplexity_after": after,
    }


def layers_of(model: Any) -> Any:
    """The model's decoder layers. Raises DataError for an architecture that keeps them elsewhere."""
    layers = getattr(model.base_model, "layers", None)
    if not isinstance(layers, torch.nn.ModuleList) or len(layers) != model.config.num_hidden_layers:
        raise DataError(
            f"the layers of a {model.config.model_type} cannot be pruned here", next="leave student.prune out"
        )
    return layers


def block_influence(model: Any, rows: Sequence[Row]) -> list[float]:
    """Influence of each layer, between 0 (passes its input on) and 2."""
    layers = layers_of(model)
    sums, tokens = torch.zeros(len(layers), dtype=torch.float64), 0

    def watch(number: int) -> Any:
        def hook(_layer: Any, args: tuple[Any, ...], named: dict[str, Any], out: Any) -> None:
            before_TH = args[0] if args else named["hidden_states"]
            after_TH = out[0] if isinstance(out, tuple) else out
            cosine_T = torch.cosine_similarity(before_TH.float(), after_TH.float(), -1)
            sums[number] += float((1 - cosine_T).sum())

        return hook

    handles = [layer.register_forward_hook(watch(i), with_kwargs=True) for i, layer in enumerate(layers)]
    try:
        with torch.no_grad():
            for row in rows:
                batch = collate([row], pad=0).to(model.device)
                hidden_states(model, batch)
                tokens += batch.ids_BT.shape[1]
    finally:
        for handle in handles:
            handle.remove()
    return [float(value) / tokens for value in sums]


def keep_layers(model: Any, kept: Sequence[int]) -> None:
    """Leave only these layers in the model and in what its configuration says of each layer."""
    layers, config = layers_of(model), model.config
    for name, value in list(config.__dict__.items()):
        if isinstance(value, list) and len(value) == len(layers):
            setattr(config, name, [value[i] for i in kept])
    model.base_model.layers = torch.nn.ModuleList(layers[i] for i in kept)
    config.num_hidden_layers = len(kept)
    for number, layer in enumerate(model.base_model.layers):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = number


def perplexity(model: Any, rows: Sequence[Row]) -> float:
    """exp of the mean cross entropy of the rows' completions, per token."""
    from distill.losses import cross_entropy

    recipe, total = Recipe(cross_entropy, cross_entropy.Config()), 0.0
    with torch.no_grad():
        for row in rows:
            batch = collate([row], pad=0).to(model.device)
            loss, _ = chunked_loss(hidden_states(model, batch), head_of(model), batch.labels_N, None, recipe)
            total += float(loss)
    return math.exp(min(total / sum(len(row.completion) for row in rows), 700))
