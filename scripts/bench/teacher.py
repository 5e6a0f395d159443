"""How fast and how cheaply a teacher is asked: ours against a bare aiohttp loop and a plain openai client.

    python scripts/bench/teacher.py [--requests 2000] [--rounds 3] [--json FILE]

A loopback teacher answers after 200 ms. Each client runs in a process of its own, in turn, so all see the same
machine. Ours commits every answer durably (fsync) before it counts; the other two append to a file without fsync.
Figures: wall seconds over the ideal N / C * latency, CPU per request, peak memory, most calls in flight. Then ours
alone: killed half-way and started again, behind a limit of 3,000 requests a minute, and rows made durable a second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

LATENCY_S = 0.2
PROMPT = "A question about distillation, with enough words to look like a real prompt of some length. " * 9
ANSWER = "An answer of about one hundred and twenty-eight tokens, repeated until it is long enough to be honest. " * 6
CLIENTS = ("aiohttp", "openai", "ours")


def texts(count: int) -> list[str]:
    """Unique prompts."""
    return [f"{number:06d} {PROMPT}" for number in range(count)]


# -- the teacher ------------------------------------------------------------------------------------------------


class Teacher:
    """Counts calls, deliveries and the most in flight; optionally a token bucket that shows itself in headers."""

    def __init__(self, per_minute: int = 0, burst: int = 50):
        self.per_minute, self.burst = per_minute, burst
        self.tokens, self.at = float(burst), time.monotonic()
        self.reset()

    def reset(self) -> None:
        self.calls = self.refused = self.in_flight = self.most = 0
        self.seen: dict[bytes, int] = {}
        self.first = self.last = 0.0

    def admit(self, text: bytes) -> bool:
        now = time.monotonic()
        self.first = self.first or now
        if self.per_minute:
            self.tokens = min(self.burst, self.tokens + (now - self.at) * self.per_minute / 60)
            self.at = now
            if self.tokens < 1:
                self.refused += 1
                return False
            self.tokens -= 1
        self.calls += 1
        self.seen[text] = self.seen.get(text, 0) + 1
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        return True

    def stats(self) -> dict[str, float]:
        twice = sum(count - 1 for count in self.seen.values())
        return {
            "calls": self.calls,
            "refused": self.refused,
            "most": self.most,
            "in_flight": self.in_flight,
            "twice": twice,
            "seconds": self.last - self.first,
        }


class Connection(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self, teacher: Teacher):
        self.teacher, self.data = teacher, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.WriteTransport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.data += data
        while (end := self.data.find(b"\r\n\r\n")) >= 0:
            head = self.data[:end].lower()
            place = head.find(b"content-length:")
            length = int(head[place + 15 :].split(b"\r\n", 1)[0]) if place >= 0 else 0
            if len(self.data) < end + 4 + length:
                return
            body, self.data = self.data[end + 4 : end + 4 + length], self.data[end + 4 + length :]
            self.request(head, body)

    def request(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"get /stats"):
            self.reply(200, json.dumps(self.teacher.stats()).encode())
        elif head.startswith(b"get /reset"):
            self.teacher.reset()
            self.reply(200, b"{}")
        elif not self.teacher.admit(body[body.find(b'"content"') :][13:19]):
            self.reply(429, b'{"error": {"message": "too many requests"}}', "Retry-After: 1\r\n")
        else:
            asyncio.get_running_loop().call_later(LATENCY_S, self.answer)

    def answer(self) -> None:
        self.teacher.in_flight -= 1
        self.teacher.last = time.monotonic()
        self.reply(200, BODY)

    def reply(self, status: int, body: bytes, extra: str = "") -> None:
        if self.teacher.per_minute:
            extra += f"x-ratelimit-limit-requests: {self.teacher.per_minute}\r\n"
            extra += f"x-ratelimit-remaining-requests: {int(self.teacher.tokens)}\r\n"
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
        if not self.transport.is_closing():
            self.transport.write(head.encode() + body)


BODY = json.dumps(
    {
        "id": "x", "object": "chat.completion", "created": 1, "model": "bench",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 200, "completion_tokens": 128, "total_tokens": 328},
    }
).encode()  # fmt: skip


async def serve(per_minute: int) -> None:
    """Print the port, then answer for ever."""
    teacher = Teacher(per_minute)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(teacher), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


# -- the clients ------------------------------------------------------------------------------------------------


async def bare_aiohttp(url: str, prompts: list[str], concurrency: int, folder: Path) -> None:
    """The floor: workers, one session, answers appended to a file."""
    import aiohttp

    waiting = iter(prompts)
    with (folder / "answers.jsonl").open("ab") as file:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def worker() -> None:
                for prompt in waiting:
                    body = {"model": "bench", "messages": [{"role": "user", "content": prompt}], "max_tokens": 128}
                    async with session.post(url + "/chat/completions", json=body) as response:
                        file.write(await response.read() + b"\n")

            await asyncio.gather(*(worker() for _ in range(concurrency)))


async def openai_client(url: str, prompts: list[str], concurrency: int, folder: Path) -> None:
    """What most people write first: the official client and a semaphore."""
    import openai

    client = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=10)
    gate = asyncio.Semaphore(concurrency)
    with (folder / "answers.jsonl").open("a") as file:

        async def one(prompt: str) -> None:
            async with gate:
                answer = await client.chat.completions.create(
                    model="bench", messages=[{"role": "user", "content": prompt}], max_tokens=128
                )
            file.write(answer.model_dump_json() + "\n")

        await asyncio.gather(*(one(prompt) for prompt in prompts), return_exceptions=True)


def ours(url: str, prompts: list[str], concurrency: int, folder: Path, paid: bool = True) -> int:
    """ask_all with a price, a cap and the durable store; how many rows have an answer."""
    import datetime

    from distill.costs import Price
    from distill.providers import openai
    from distill.providers._base import Context
    from distill.query.ask import ask_all
    from distill.query.store import Store
    from distill.records import Message, Request, Sampling

    amounts = ("1", "1", "3")
    price = Price(10**9, 10**9, 3 * 10**9, "EUR", amounts, "1", None, "bench", datetime.date(2026, 1, 1))
    provider = openai.build(openai.Config(model="bench", base_url=url, concurrency=concurrency), Context())
    requests = [Request((Message("user", prompt),), Sampling(max_new_tokens=128)) for prompt in prompts]
    with Store(folder / "run.db") as store:
        outcomes = ask_all(provider, requests, store, title="ours", price=price if paid else None, max_cost_eur=100.0)
    return sum(not outcome.completion.reject for outcome in outcomes)


def client(name: str, url: str, count: int, concurrency: int, folder: Path) -> None:
    """Run one client in this process and print its figures."""
    prompts = texts(count)
    if name == "ours":  # imports are start-up, not part of the call
        from distill import catalog

        catalog.providers()
    __import__({"ours": "aiohttp"}.get(name, name))
    cpu, started = time.process_time(), time.perf_counter()
    if name == "ours":
        rows = ours(url, prompts, concurrency, folder)
    else:
        asyncio.run({"aiohttp": bare_aiohttp, "openai": openai_client}[name](url, prompts, concurrency, folder))
        rows = (folder / "answers.jsonl").read_bytes().count(b"\n")
    figures = {
        "seconds": time.perf_counter() - started,
        "cpu_ms": (time.process_time() - cpu) / count * 1000,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "rows": rows,
    }
    print(json.dumps(figures))


# -- the bench --------------------------------------------------------------------------------------------------


class Server:
    """The teacher in a process of its own."""

    def __init__(self, per_minute: int = 0):
        command = [sys.executable, __file__, "--serve", str(per_minute)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.root = f"http://127.0.0.1:{self.process.stdout.readline().strip()}"
        self.url = self.root + "/v1"

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.wait()

    def get(self, path: str) -> dict[str, float]:
        """`/stats` or `/reset`."""
        with urllib.request.urlopen(self.root + path) as response:
            return json.load(response)


def start(name: str, server: Server, count: int, concurrency: int, folder: str) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--client", name, server.url, str(count), str(concurrency), folder]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def measure(name: str, server: Server, count: int, concurrency: int) -> dict[str, float]:
    """One client, once, in an empty folder."""
    server.get("/reset")
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        out, _ = start(name, server, count, concurrency, folder).communicate(timeout=300)
    return json.loads(out.splitlines()[-1]) | {"most": server.get("/stats")["most"]}


def side_by_side(count: int, rounds: int) -> list[dict[str, object]]:
    """All clients in turn, ``rounds`` times, at 100 and 500 in flight: medians."""
    table: list[dict[str, object]] = []
    with Server() as server:
        for concurrency in (100, 500):
            ideal = count / concurrency * LATENCY_S
            runs: dict[str, list[dict[str, float]]] = {name: [] for name in CLIENTS}
            for _ in range(rounds):
                for name in CLIENTS:
                    runs[name].append(measure(name, server, count, concurrency))
            for name in CLIENTS:
                medians = {key: statistics.median(run[key] for run in runs[name]) for key in runs[name][0]}
                table.append(
                    {"client": name, "concurrency": concurrency, "x_ideal": medians["seconds"] / ideal, **medians}
                )
    return table


def killed_half_way(count: int, rounds: int) -> dict[str, float]:
    """SIGKILL at half, then the same command: what was billed twice, against what was in flight."""
    worst = {"in_flight_at_kill": 0.0, "billed_twice": 0.0, "rows_missing": 0.0, "twice_above_in_flight": 0.0}
    for _ in range(rounds):
        with Server() as server, tempfile.TemporaryDirectory() as folder:
            process = start("ours", server, count, 100, folder)
            while server.get("/stats")["calls"] < count / 2:
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
            flying = server.get("/stats")["in_flight"]
            process.wait()
            out, _ = start("ours", server, count, 100, folder).communicate(timeout=300)
            twice = server.get("/stats")["twice"]
            found = {
                "in_flight_at_kill": flying,
                "billed_twice": twice,
                "rows_missing": count - json.loads(out.splitlines()[-1])["rows"],
                "twice_above_in_flight": max(0.0, twice - flying),
            }
            worst = {key: max(worst[key], found[key]) for key in worst}
    return worst


def behind_a_limit(count: int = 500) -> dict[str, float]:
    """3,000 requests a minute, burst 50, told only in headers, 50 asked at once."""
    ideal = (count - 50) / 50
    with Server(per_minute=3000) as server:
        found = measure("ours", server, count, 50)
        stats = server.get("/stats")
    return {
        "seconds": found["seconds"],
        "x_ideal": found["seconds"] / ideal,
        "refused": stats["refused"],
        "rows": found["rows"],
    }


def durable_rows(seconds: float = 3.0, in_flight: int = 64) -> float:
    """Answers of 3.6 KB reserved, settled and acknowledged per second."""
    import hashlib

    from distill.query.attempts import Plan, Received
    from distill.query.store import Store

    async def go(store: Store) -> int:
        done, end = 0, time.perf_counter() + seconds

        async def worker(number: int) -> None:
            nonlocal done
            turn = 0
            while time.perf_counter() < end:
                turn += 1
                key = hashlib.sha256(f"{number} {turn}".encode()).hexdigest()
                ((attempt,),) = await store.reserve([[Plan(key, PROMPT.encode(), 1000)]])
                await store.settle([Received(attempt, os.urandom(1800).hex().encode(), cost_nano=500)])
                done += 1

        await asyncio.gather(*(worker(number) for number in range(in_flight)))
        return done

    with (
        tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder,
        Store(Path(folder) / "run.db") as store,
    ):
        store.set_cap(10**15)
        started = time.perf_counter()
        return asyncio.run(go(store)) / (time.perf_counter() - started)


def main() -> None:
    """Print the table and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--client", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve is not None:
        asyncio.run(serve(args.serve))
    if args.client:
        name, url, count, concurrency, folder = args.client
        client(name, url, int(count), int(concurrency), Path(folder))
        return
    table = side_by_side(args.requests, args.rounds)
    print(f"{'client':10}{'C':>5}{'seconds':>9}{'x ideal':>9}{'CPU ms':>8}{'peak MB':>9}{'in flight':>10}{'rows':>7}")
    for row in table:
        print(
            f"{row['client']:10}{row['concurrency']:>5}{row['seconds']:>9.2f}{row['x_ideal']:>9.2f}{row['cpu_ms']:>8.2f}"
            f"{row['peak_mb']:>9.0f}{row['most']:>10.0f}{row['rows']:>7.0f}"
        )
    more = {
        "killed": killed_half_way(args.requests, args.rounds),
        "limit": behind_a_limit(),
        "durable_rows_per_s": durable_rows(),
    }
    for name, figures in more.items():
        print(f"{name}: {figures}")
    if args.json:
        args.json.write_text(json.dumps({"side_by_side": table, **more}, indent=2))


if __name__ == "__main__":
    main()
