"""Requests kept in flight at a fixed number: as one answer comes, the next request leaves.

An endpoint is asked by as many workers as may be in flight. An engine in this process answers batches, so its
concurrency is the size of the batch: the next batch leaves when the last answer of the one before is there.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from distill.errors import OutOfMemory, Refused, TeacherRefused
from distill.providers._base import NoAnswer
from evals.load_report import Timing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill.records import Answer, Request

SERVED = ("", "truncated", "empty", "bad_unicode")  # the engine did its work, whatever the text is worth


class Till(Protocol):
    """Where calls that cost money are accounted for."""

    def answered(self, number: int, request: Request, answer: Answer) -> None:
        """The request ``number`` of this level was answered."""

    def failed(self, number: int, failure: NoAnswer) -> None:
        """It was not."""


class Client:
    """One engine, asked for its timings."""

    def __init__(self, provider: Any, till: Till | None = None):
        self.provider, self.till = provider, till
        self.batched = provider.batch_size > 1 or hasattr(type(provider), "vocab")
        self.streamed = hasattr(provider, "stream")
        self.most_in_flight = 0
        """Seen so far."""
        self._in_flight = 0

    async def run(self, requests: Sequence[Request], concurrency: int, first: int = 0) -> tuple[list[Timing], float]:
        """A timing for each request, and the seconds from first send to last end. ``first``: number of the first."""
        timings: list[Timing | None] = [None] * len(requests)
        size = concurrency if self.batched else 1
        waiting = iter(range(0, len(requests), size))
        started = time.perf_counter()

        async def worker() -> None:
            for start in waiting:
                part = requests[start : start + size]
                timings[start : start + size] = await self._timed(part, first + start)

        workers = [asyncio.create_task(worker()) for _ in range(1 if self.batched else concurrency)]
        try:
            await asyncio.gather(*workers)
        finally:
            for task in workers:
                task.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return [t for t in timings if t is not None], time.perf_counter() - started

    async def _timed(self, requests: Sequence[Request], number: int) -> list[Timing]:
        self._in_flight += len(requests)
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        started = time.perf_counter()
        try:
            answers = await self._answers(requests)
            seconds = time.perf_counter() - started
        except (NoAnswer, TimeoutError) as error:
            failure = error if isinstance(error, NoAnswer) else NoAnswer("timeout")
            self._failed(number, failure)
            return [Timing(time.perf_counter() - started, error=failure.reason)] * len(requests)
        except OutOfMemory:
            return [Timing(time.perf_counter() - started, error="out_of_memory")] * len(requests)
        except (TeacherRefused, Refused):
            self._failed(number, NoAnswer("refused", billed=False))
            raise
        except BaseException:
            self._failed(number, NoAnswer("cut_off"))  # it left, and nobody knows its bill
            raise
        finally:
            self._in_flight -= len(requests)
        if self.till is not None:
            self.till.answered(number, requests[0], answers[0])
        return [self._timing(answer, seconds) for answer in answers]

    def _failed(self, number: int, failure: NoAnswer) -> None:
        if self.till is not None:
            self.till.failed(number, failure)

    async def _answers(self, requests: Sequence[Request]) -> list[Answer]:
        """One send, within the endpoint's own time limit."""
        limit = getattr(getattr(self.provider, "config", None), "timeout_s", None)
        async with nullcontext() if limit is None else asyncio.timeout(limit):
            if self.streamed:
                return [await self.provider.stream(requests[0])]
            answers: list[Answer] = await self.provider.ask(requests)
            return answers

    def _timing(self, answer: Answer, seconds: float) -> Timing:
        """From what the caller saw; the provider's parser says whether the answer can be used."""
        completion = self.provider.parse(answer.raw)
        usage = completion.usage
        return Timing(
            seconds if self.batched or answer.latency_s is None else answer.latency_s,
            answer.first_s,
            answer.last_s,
            usage.prompt or None,
            usage.completion or None,
            "" if completion.reject in SERVED else completion.reject,
        )
