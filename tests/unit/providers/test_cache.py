"""The growing cache holds what the library's own holds."""

from __future__ import annotations

import torch
from transformers import LlamaConfig
from transformers.cache_utils import DynamicCache

from distill.providers import _cache

CONFIG = LlamaConfig(num_hidden_layers=2, hidden_size=8, num_attention_heads=2)


def steps(cache, moves):
    """Give ``cache`` the same keys and values for each (rows, tokens), or keep the rows of a tensor; what it holds."""
    random = torch.Generator().manual_seed(0)
    for move in moves:
        if isinstance(move, torch.Tensor):
            cache.batch_select_indices(move)
            continue
        for number in range(2):
            new = torch.randn((move[0], 2, move[1], 4), generator=random)
            cache.update(new, -new, number)
    return [(layer.keys, layer.values) for layer in cache.layers]


def test_a_cache_that_grows_in_place_holds_the_same_as_one_that_is_copied_for_every_token():
    moves = [(4, 5), *[(4, 1)] * 3, torch.tensor([0, 2, 3]), *[(3, 1)] * 50, torch.tensor([1]), *[(1, 1)] * 9]
    ours, theirs = _cache.growing(CONFIG, 5), DynamicCache(config=CONFIG)
    for own, reference in zip(steps(ours, moves), steps(theirs, moves), strict=True):
        assert torch.equal(own[0], reference[0])
        assert torch.equal(own[1], reference[1])
    assert ours.get_seq_length() == theirs.get_seq_length() == 67


def test_a_token_is_written_where_there_is_room_and_nothing_is_copied():
    cache = _cache.growing(CONFIG, 5)
    places = {steps(cache, [(4, tokens)])[0][0].data_ptr() for tokens in (5, 1, _cache.ROOM - 1)}
    assert len(places) == 1
    assert steps(cache, [(4, 1)])[0][0].data_ptr() not in places
