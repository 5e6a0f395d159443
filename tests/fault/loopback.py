"""An asyncio server on loopback, in a thread of the test process: it survives the clients that a test kills."""

from __future__ import annotations

import asyncio
import threading


class Loopback:
    """A context manager; ``url`` is its base_url. A subclass serves one connection in ``_serve``."""

    port = 0
    backlog = 512

    def __enter__(self):
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *exc):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _main(self):
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._tasks = set()
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=2**22, backlog=self.backlog)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
