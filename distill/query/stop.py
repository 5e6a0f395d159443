"""SIGTERM and SIGINT while asking: the first lets calls in flight end, the second leaves at once."""

from __future__ import annotations

import asyncio
import signal
import threading
from typing import TYPE_CHECKING

from distill.errors import DistillError, Interrupted, Preempted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import TracebackType

SIGNALS = {signal.SIGTERM: Preempted, signal.SIGINT: Interrupted}


class Stop:
    """Calls ``stop`` with Preempted or Interrupted on the first signal. Only the main thread can listen."""

    def __init__(self, stop: Callable[[DistillError], None]):
        self._stop = stop
        self._signals = 0
        self._now = asyncio.Event()
        self._listening = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Stop:
        if self._listening:
            loop = asyncio.get_running_loop()
            for number in SIGNALS:
                loop.add_signal_handler(number, self._heard, number)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._listening:
            loop = asyncio.get_running_loop()
            for number in SIGNALS:
                loop.remove_signal_handler(number)

    def _heard(self, number: signal.Signals) -> None:
        self._signals += 1
        if self._signals > 1:
            self._now.set()
            return
        self._stop(
            SIGNALS[number](
                f"stopped by {number.name}", safe="every answer received so far", next="run the same command again"
            )
        )

    async def wait(self, tasks: Collection[asyncio.Task[None]], seconds: float | None) -> None:
        """Wait for ``tasks``, at most ``seconds``, or until a second signal comes."""
        work = asyncio.create_task(_all(tasks))
        hurry = asyncio.create_task(self._now.wait())
        try:
            await asyncio.wait([work, hurry], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            work.cancel()
            hurry.cancel()


async def _all(tasks: Collection[asyncio.Task[None]]) -> bool:
    return not (await asyncio.wait(tasks))[1]
