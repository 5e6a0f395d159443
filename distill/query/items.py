"""What travels through a query: items (requests on their way), batches (items that leave together), outcomes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill.records import Completion, Request


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request. ``completion.reject`` is empty, or the typed reason why it cannot be used.

    ``cost_nano``: what was paid for it, whenever that was; None = no price known. ``cached``: not asked just now.
    """

    key: str
    completion: Completion
    cost_nano: int | None
    latency_s: float | None
    cached: bool


@dataclass(slots=True)
class Item:
    """A request on its way."""

    key: str
    request: Request
    canonical: bytes
    worst: int | None = None
    attempts: int = 0
    """Sends that used up the attempt budget."""
    uncertain: int = 0
    started: float | None = None
    paused_s: float = 0.0
    """The lane's pauses before the first send: they do not count against the deadline."""
    stored: Outcome | None = None
    """An unreadable answer that is kept if nothing better comes."""


@dataclass(slots=True)
class Batch:
    """Items that leave together, and the attempts reserved for them."""

    items: list[Item]
    attempts: list[int] = field(default_factory=list)
    shared: bool = False
    """Samples of one prompt in one request: the prompt is paid once."""


def batches(items: list[Item], size: int, samples: int = 1) -> list[Batch]:
    """Batches of like requests; for engines in this process longest first, so that too big shows at once.

    ``samples``: how many samples of one prompt may be asked for in one request.
    """
    if size == 1 and samples == 1:
        return [Batch([item]) for item in items]
    if size == 1:
        return _samples(items, samples)
    kinds: dict[Any, list[Item]] = {}
    for item in items:
        request = item.request
        kinds.setdefault((request.sampling, request.choices, request.top_logprobs), []).append(item)
    batches = []
    for alike in kinds.values():
        alike.sort(key=lambda item: -sum(len(message.content) for message in item.request.messages))
        batches += [Batch(alike[start : start + size]) for start in range(0, len(alike), size)]
    return batches


def _samples(items: list[Item], most: int) -> list[Batch]:
    """Batches of the samples of one prompt; one request has one seed, so theirs may differ."""
    prompts: dict[Any, list[Item]] = {}
    for item in items:
        prompts.setdefault(replace(item.request, sample=0, sampling=replace(item.request.sampling, seed=0)), []).append(
            item
        )
    return [
        Batch(alike[start : start + most], shared=len(alike[start : start + most]) > 1)
        for alike in prompts.values()
        for start in range(0, len(alike), most)
    ]
