"""Which teacher answers which prompt: routes by field, then a weighted draw that depends on seed and id alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill.prompts import order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill.config import RunConfig
    from distill.config.generate import Mixed
    from distill.records import Prompt


def assign(config: RunConfig, items: Sequence[Prompt]) -> list[int]:
    """For each prompt the place of its teacher in ``config.teachers()``; 0 is the main one."""
    return [teacher_of(item, config.generate.mix, config.seed) for item in items]


def teacher_of(item: Prompt, mix: Sequence[Mixed], seed: int) -> int:
    """A prompt that fits a `when` is drawn among those that name it, any other among the rest and the main teacher."""
    routed = [(number, other.weight) for number, other in enumerate(mix, start=1) if other.when and _fits(item, other)]
    free = [(0, 1.0), *((number, other.weight) for number, other in enumerate(mix, start=1) if not other.when)]
    able = routed or free
    place = int.from_bytes(order(seed, f"teacher\0{item.id}")[:8], "big") / 2**64 * sum(weight for _, weight in able)
    for number, weight in able:
        place -= weight
        if place < 0:
            return number
    return able[-1][0]


def _fits(item: Prompt, other: Mixed) -> bool:
    return all(
        str(item.meta.get(name)) in (wanted if isinstance(wanted, tuple) else (wanted,))
        for name, wanted in other.when.items()
    )
