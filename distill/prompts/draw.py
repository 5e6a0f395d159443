"""Which prompts are taken: equal numbers per language, quotas per field, a limit; drawn by cluster in seeded order."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distill.errors import DataError
from distill.progress import say

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from distill.records import Prompt

OTHERS = "*"


@dataclass
class Room:
    """How many prompts of each kind may still be taken; ``each``: of a kind that is not named, None = any number."""

    of: Callable[[Prompt], str]
    left: dict[str, int]
    each: int | None = None

    def has(self, prompt: Prompt) -> bool:
        """True when this prompt may be taken."""
        kind = self.of(prompt)
        return (self.each is None and kind not in self.left) or self.left.setdefault(kind, self.each or 0) > 0

    def take(self, prompt: Prompt) -> None:
        """Count it."""
        if (kind := self.of(prompt)) in self.left:
            self.left[kind] -= 1


def order(seed: int, name: str) -> bytes:
    """Sort key of a seeded draw: rows added to a file later leave the earlier draws where they were."""
    return hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogatepass")).digest()


def choose(
    prompts: list[Prompt],
    languages: tuple[str, ...],
    limit: int | None,
    seed: int,
    where: str = "",
    quotas: Mapping[str, Mapping[str, int]] | None = None,
) -> list[Prompt]:
    """The prompts of these languages in equal numbers, within the quotas, at most ``limit`` in all, in file order.

    Clusters are drawn in seeded order. With languages or quotas, a cluster's row is left out once there is no room
    for it. Without, a cluster is taken whole or not at all.
    """
    pool = [prompt for prompt in prompts if not languages or prompt.lang in languages]
    rooms = [_equal(pool, languages, limit, where)] if languages else []
    rooms += [_quota(pool, field, most) for field, most in (quotas or {}).items()]
    whole = not rooms
    if limit is not None and not languages:
        rooms.append(Room(lambda _: "", {"": limit}))
    clusters: dict[str, list[Prompt]] = {}
    for prompt in pool:
        clusters.setdefault(prompt.cluster, []).append(prompt)
    taken: set[str] = set()
    for name in sorted(clusters, key=lambda name: order(seed, name)):
        if whole and rooms and len(clusters[name]) > rooms[0].left[""]:
            continue
        for prompt in clusters[name]:
            if all(room.has(prompt) for room in rooms):
                taken.add(prompt.id)
                for room in rooms:
                    room.take(prompt)
    chosen = [prompt for prompt in pool if prompt.id in taken]
    if not chosen:
        size = min(map(len, clusters.values()), default=0)
        raise DataError(f"limit {limit} leaves no prompt: the smallest cluster has {size} rows", where=where)
    return chosen


def _equal(pool: list[Prompt], languages: tuple[str, ...], limit: int | None, where: str) -> Room:
    """The same number for each language."""
    counts = {lang: sum(prompt.lang == lang for prompt in pool) for lang in languages}
    if empty := [lang for lang, count in counts.items() if not count]:
        raise DataError(
            f"no row in {', '.join(empty)}; rows found: {counts}", where=where, next="see prompts.lang_field"
        )
    each = min(counts.values()) if limit is None else min(*counts.values(), limit // len(languages))
    return Room(lambda prompt: prompt.lang, dict.fromkeys(languages, each))


def _quota(pool: list[Prompt], field: str, most: Mapping[str, int]) -> Room:
    """At most so many for each value of a field. Says which quotas the rows cannot fill."""

    def value(prompt: Prompt) -> str:
        return str(prompt.meta.get(field, ""))

    have = Counter(map(value, pool))
    short = [
        f"{kind} {have[kind]} of {number}" for kind, number in most.items() if kind != OTHERS and have[kind] < number
    ]
    if short:
        say(f"prompts: fewer rows than prompts.quotas.{field} asks for: {', '.join(short)}")
    return Room(value, {kind: number for kind, number in most.items() if kind != OTHERS}, most.get(OTHERS))
