"""A server of your own, asked from inside the training loop: many requests at once, sent again while that helps."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from distill.providers._base import NoAnswer

if TYPE_CHECKING:
    from collections.abc import Sequence

ATTEMPTS = 4
WAIT_S = 2.0


class Endpoint:
    """Sends through a provider of kind `openai`: its address, key, timeout and number of requests in flight."""

    def __init__(self, provider: Any):
        self.provider = provider
        self._runner = asyncio.Runner()

    def post(self, path: str, bodies: Sequence[dict[str, Any]]) -> list[bytes]:
        """The answers, in order. Raises NoAnswer with what the last attempt met, TeacherRefused, Refused."""
        return self._runner.run(self._all([("POST", path, json.dumps(body).encode()) for body in bodies]))

    def get(self, path: str) -> bytes:
        """One answer; raises as :meth:`post` does."""
        return self._runner.run(self._all([("GET", path, None)]))[0]

    async def _all(self, calls: Sequence[tuple[str, str, bytes | None]]) -> list[bytes]:
        free = asyncio.Semaphore(self.provider.config.concurrency)

        async def one(call: tuple[str, str, bytes | None]) -> bytes:
            async with free:
                return await self._send(*call)

        try:
            return list(await asyncio.gather(*map(one, calls)))
        finally:
            await self.provider.aclose()

    async def _send(self, method: str, path: str, data: bytes | None) -> bytes:
        for attempt in range(ATTEMPTS):
            try:
                async with asyncio.timeout(self.provider.config.timeout_s):
                    return bytes((await self.provider.send(method, path, data))[1])
            except TimeoutError:
                failure = NoAnswer("timeout", detail="no answer in time")
            except NoAnswer as error:
                failure = error
            if failure.permanent or attempt + 1 == ATTEMPTS:
                raise failure
            await asyncio.sleep(WAIT_S * 2**attempt)
        raise AssertionError


def told(error: NoAnswer) -> str:
    """What is known of a failure, for a message."""
    return error.detail or error.reason
