"""Keys and values of a batch that grows token by token, in memory that is taken once.

The library's own layer makes a new, longer copy of all keys and values for every token: that costs time, and as every
copy is larger than the hole that the last one left, the process grows by several times what it holds.

Shapes: B rows, H heads, S keys, D width of a head.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

ROOM = 32
"""Positions taken in advance whenever there is no place for the next."""


def growing(config: Any, length: int) -> Any:
    """An empty cache for a model of ``config`` whose cache is plain, with room beyond ``length`` positions."""
    from transformers.cache_utils import DynamicCache

    cache = DynamicCache(config=config)
    cache.layers = [_layer()(length + ROOM) for _ in cache.layers]
    return cache


@functools.cache
def _layer() -> type:
    """The class of one layer."""
    from transformers.cache_utils import DynamicLayer

    class Layer(DynamicLayer):
        """``keys`` and ``values`` are the filled part [B, H, S, D] of memory with room for more positions."""

        keys: torch.Tensor | None
        values: torch.Tensor | None

        def __init__(self, capacity: int):
            super().__init__()
            self.capacity = capacity
            self.memory: list[torch.Tensor] = []

        def update(self, key_states: Any, value_states: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
            have = self.get_seq_length()
            total = have + key_states.shape[-2]
            old = (self.keys, self.values) if have else ()
            if not self.memory or total > self.memory[0].shape[-2]:
                self.capacity = self.capacity if total <= self.capacity else total + ROOM
                shape = (*key_states.shape[:2], self.capacity)
                self.memory = [new.new_empty((*shape, new.shape[-1])) for new in (key_states, value_states)]
                for memory, kept in zip(self.memory, old, strict=False):
                    memory[:, :, :have] = kept
            for memory, new in zip(self.memory, (key_states, value_states), strict=True):
                memory[:, :, have:total] = new
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
            self.keys, self.values = (memory[:, :, :total] for memory in self.memory)
            return self.keys, self.values

        def batch_select_indices(self, indices: Any) -> None:
            """Keep the rows of ``indices``, which ascend: each moves to the front in place."""
            have, kept = self.get_seq_length(), indices.tolist()
            for memory in self.memory:
                for place, row in enumerate(kept):
                    if place != row:
                        memory[place, :, :have] = memory[row, :, :have]
            self.memory = [memory[: len(kept)] for memory in self.memory]
            self.keys, self.values = (memory[:, :, :have] for memory in self.memory)

    return Layer
