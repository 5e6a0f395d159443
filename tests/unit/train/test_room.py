"""Arrays of a chunk are made once, and what the body freed goes back to the system before the head runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from distill.train import memory
from distill.train.objective import Head, LiveTeacher, Room


def test_one_array_serves_every_chunk_and_holds_the_logits_of_the_last():
    hidden_NE, weight_VE = torch.randn(23, 12), torch.randn(40, 12)
    teacher = LiveTeacher(hidden_NE, Head(weight_VE))
    with torch.no_grad():
        chunks = [teacher.chunk(slice(at, at + 5)).logits_nW for at in range(0, 23, 5)]
    assert {chunk.data_ptr() for chunk in chunks} == {chunks[0].data_ptr()}
    assert torch.allclose(chunks[-1], hidden_NE[20:] @ weight_VE.T, atol=1e-5)


def test_a_room_grows_and_changes_its_width():
    room, like = Room(), torch.zeros(1, 1)
    assert [tuple(room.of(*shape, like).shape) for shape in ((2, 3), (4, 3), (1, 5))] == [(2, 3), (4, 3), (1, 5)]


def resident() -> float:
    """Of this process, in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


@pytest.mark.skipif(memory._malloc_trim() is None, reason="not glibc")
def test_what_was_freed_below_a_block_in_use_goes_back_to_the_system():
    blocks = [bytearray(b"x" * 60_000) for _ in range(1000)]
    kept = blocks[::20]  # the allocator gives nothing back by itself from below these
    full = resident()
    del blocks
    assert resident() > full - 10, "control: it keeps what was freed"
    memory.give_back()
    assert resident() < full - 40
    assert len(kept) == 50
