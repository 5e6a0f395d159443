"""A headless browser driven over its DevTools protocol: what a person would click and see."""

import asyncio
import contextlib
import json
import shutil
import subprocess

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --remote-debugging-port=0 --lang=en-US"
)


class Page:
    """One tab. ``asked`` holds the address of every request it made, ``said`` its console errors."""

    def __init__(self, socket):
        self.socket, self.count, self.asked, self.said = socket, 0, [], []

    async def call(self, method, **params):
        """Send a command and give its result; events that come meanwhile are kept."""
        self.count += 1
        await self.socket.send_json({"id": self.count, "method": method, "params": params})
        while True:
            message = json.loads((await self.socket.receive(timeout=30)).data)
            if message.get("id") == self.count:
                return message.get("result", message)
            self._event(message)

    def _event(self, message):
        if message.get("method") == "Network.requestWillBeSent":
            self.asked.append(message["params"]["request"]["url"])
        if message.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
            self.said.append(json.dumps(message["params"]))

    async def run(self, script):
        """The value of a JavaScript expression; promises are awaited."""
        found = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        return found["result"].get("value")

    async def until(self, script):
        """Wait until the expression is true."""
        for _ in range(300):
            if await self.run(script):
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"never became true: {script}; {await self.run('document.body.innerText')}")


@contextlib.asynccontextmanager
async def page(profile, width=1000, height=900):
    """A blank tab of that size."""
    import aiohttp

    command = [CHROMIUM, *FLAGS.split(), f"--user-data-dir={profile}", f"--window-size={width},{height}", "about:blank"]
    browser = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        place = profile / "DevToolsActivePort"
        for _ in range(600):
            if place.is_file() and place.read_text().count("\n"):
                break
            await asyncio.sleep(0.05)
        port = place.read_text().split()[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as response:
                tabs = await response.json(content_type=None)
            address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
            async with session.ws_connect(address, max_msg_size=0) as socket:
                made = Page(socket)
                for domain in ("Network", "Log", "Runtime", "Page"):
                    await made.call(f"{domain}.enable")
                yield made
    finally:
        browser.terminate()
        browser.wait()
