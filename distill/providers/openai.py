"""Any OpenAI-compatible endpoint: Mistral, Scaleway, OVHcloud, a vLLM or llama.cpp server of your own.

One ``ask`` is one POST over aiohttp (the official client's httpx transport costs about ten times the CPU per
request); repeating, pausing and paying are decided by ``distill.query``. The key is named, never written: it is
read from the environment, sent to one origin only, and struck out of everything the server echoes.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from distill.costs import costs_tokens
from distill.errors import ConfigError, MissingDependency, Refused, TeacherRefused, keep_secret, struck
from distill.providers._base import Capabilities, NoAnswer, Pace, parse_chat
from distill.providers._batches import Batches
from distill.providers._endpoint import Config
from distill.providers._headers import pace, retry_after
from distill.providers._samples import apart
from distill.providers._stream import Arrivals, streamed
from distill.records import Answer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from distill.providers._base import Context
    from distill.records import Completion, Request

__all__ = ["Config", "build"]

MAX_BODY = 16 * 1024 * 1024
CONNECT_S = 10.0
IDLE_S = 4.0  # below the 5 s after which common servers close an idle connection
CHAT = "/chat/completions"
CHOSEN = "chosen"
QUOTA = ("insufficient_quota", "billing", "payment", "credit")


def build(config: Config, context: Context) -> OpenAIProvider:  # noqa: ARG001
    """A provider for one endpoint. Raises ConfigError when the key is not in the environment."""
    try:
        import aiohttp  # noqa: F401
    except ModuleNotFoundError:
        raise MissingDependency("aiohttp", "the openai provider", "api") from None
    key = os.environ.get(config.api_key_env, "").strip() if config.api_key_env else ""
    if config.api_key_env and not (key and key.isascii() and key.isprintable()):
        raise ConfigError(
            f"the environment variable {config.api_key_env} holds no key",
            where="api_key_env",
            next=f"export {config.api_key_env}=... and run the same command",
        )
    return OpenAIProvider(config, key)


class OpenAIProvider:
    """See the module."""

    batch_size = 1

    def __init__(self, config: Config, key: str = ""):
        self.config = config
        self.capabilities = Capabilities(
            choices=config.constrain != "none",
            schema=config.constrain != "none",
            top_logprobs=config.top_logprobs,
            samples=config.samples_per_request,
            paid=costs_tokens(config) or config.price is not None,
        )
        self.pace: Pace | None = None
        """What the server last said about its limits."""
        self.streams_usage = True
        """It takes `stream_options`, as far as is known."""
        self._key = key
        keep_secret(key)
        self._host = urlsplit(config.base_url).hostname or ""
        self._headers = {"Accept": "application/json", "User-Agent": "alambic"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        scheme = urlsplit(config.base_url).scheme
        self._proxy = None if proxy_bypass(self._host) else getproxies().get(scheme)
        self._session: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        return f"OpenAIProvider({self.config.base_url}, {self.config.model})"

    def identity(self) -> dict[str, Any]:
        """Endpoint, model, and every setting that changes what is sent."""
        config = self.config
        together = {"samples_per_request": config.samples_per_request} if config.samples_per_request > 1 else {}
        return together | {
            "kind": "openai",
            "base_url": config.base_url,
            "model": config.model,
            "constrain": config.constrain,
            "seed_field": config.seed_field,
            "max_tokens_field": config.max_tokens_field,
            "extra_body": config.extra_body,
        }

    def body(self, request: Request) -> dict[str, Any]:
        """The JSON body of one request, for one answer."""
        config, sampling = self.config, request.sampling
        body: dict[str, Any] = {
            "model": config.model,
            "messages": [{"role": message.role, "content": message.content} for message in request.messages],
            config.max_tokens_field: sampling.max_new_tokens,
            "temperature": sampling.temperature,
        }
        if sampling.top_p != 1.0:
            body["top_p"] = sampling.top_p
        if config.seed_field != "none":
            body[config.seed_field] = (sampling.seed + request.sample) % 2**31
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if request.top_logprobs:
            body |= {"logprobs": True, "top_logprobs": request.top_logprobs}
        if request.choices and config.constrain == "vllm":
            body["structured_outputs"] = {"choice": list(request.choices)}
        if request.choices and config.constrain == "json_schema":
            body["response_format"] = _schema(_one_of(request.choices))
        if request.schema and config.constrain == "vllm":
            body["structured_outputs"] = {"json": json.loads(request.schema)}
        if request.schema and config.constrain == "json_schema":
            body["response_format"] = _schema(json.loads(request.schema))
        return body | config.extra_body

    async def ask(self, requests: Sequence[Request]) -> list[Answer]:
        """One POST: one request, or samples of the same prompt, of which fewer may come back.

        Raises NoAnswer, TeacherRefused, Refused.
        """
        body = self.body(requests[0])
        if len(requests) > 1:
            body["n"] = len(requests)
        started = time.perf_counter()
        headers, raw = await self.send("POST", CHAT, json.dumps(body).encode())
        answer = Answer(raw, 200, time.perf_counter() - started, struck(headers.get("x-request-id", ""))[:200])
        if len(requests) == 1:
            return [answer]
        return [replace(answer, raw=part) for part in apart(raw, len(requests))]

    async def stream(self, request: Request) -> Answer:
        """``ask`` with the moments of its tokens, for measuring. Raises NoAnswer, TeacherRefused, Refused."""
        return await streamed(self, request)

    async def send(
        self,
        method: str,
        path: str,
        data: bytes | None = None,
        *,
        kind: str = "application/json",
        most: int = MAX_BODY,
        arrivals: Arrivals | None = None,
    ) -> tuple[Mapping[str, str], bytes]:
        """Headers and body of a 2xx answer of at most ``most`` bytes. Raises NoAnswer, TeacherRefused, Refused.

        ``arrivals``: a stream is wanted, and when its chunks came is noted there.
        """
        status, headers, raw = await self._exchange(method, path, data, kind, most, arrivals)
        self.pace = pace(headers)
        if self._key and self._key.encode() in raw:
            raw = raw.replace(self._key.encode(), b"*" * len(self._key))
        if status == 404 and path != CHAT:  # a file or a batch that is not there: no reason to stop
            raise NoAnswer("http_404", billed=False, status=404, permanent=True, detail=self._clean(_message(raw)))
        if not 200 <= status < 300:
            raise self._failure(status, headers, raw)
        return headers, raw

    async def _exchange(
        self, method: str, path: str, data: bytes | None, kind: str, most: int, arrivals: Arrivals | None
    ) -> tuple[int, Mapping[str, str], bytes]:
        import aiohttp

        headers = self._headers if data is None else {**self._headers, "Content-Type": kind}
        if arrivals is not None:  # compressed, it would come in lumps
            headers = {**headers, "Accept": "text/event-stream", "Accept-Encoding": "identity"}
        url = self.config.base_url + path
        try:
            async with self._open().request(
                method, url, data=data, headers=headers, allow_redirects=False, proxy=self._proxy
            ) as response:
                return response.status, response.headers, await _capped(response.content, most, arrivals)
        except (
            aiohttp.ClientConnectorError,
            aiohttp.ConnectionTimeoutError,
            aiohttp.ClientProxyConnectionError,
        ) as error:
            raise NoAnswer("connect", billed=False, detail=self._clean(str(error))) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NoAnswer("connection_lost", detail=self._clean(str(error))) from None

    def _open(self) -> Any:
        import aiohttp

        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, keepalive_timeout=IDLE_S)
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
            )
            self._loop = loop
        return self._session

    def _failure(self, status: int, headers: Mapping[str, str], raw: bytes) -> Exception:
        """What a status other than 2xx means for this request and for the run."""
        said = self._clean(_message(raw))
        named = f" (key from ${self.config.api_key_env})" if self.config.api_key_env else " (no api_key_env is set)"
        if 300 <= status < 400:
            return Refused(
                f"the endpoint redirects (HTTP {status}); a key is never sent to another address",
                where=self.config.base_url,
                next="set base_url to the final address",
            )
        if status in (401, 402, 403, 407):
            return self._refused(f"HTTP {status}{named}: {said}", "check the key and the account")
        if status == 404:
            return self._refused(f"HTTP 404 for model {self.config.model!r}: {said}", "check base_url and model")
        wait = retry_after(headers)
        if status == 429 and any(word in said.lower() for word in QUOTA):
            return self._refused(f"the quota is used up: {said}", "top up the account")
        if status == 429 or (status == 503 and wait is not None):
            return NoAnswer(f"http_{status}", billed=False, status=status, throttled=True, retry_after_s=wait)
        reason = f"http_{status}"
        if status in (408, 409, 425, 500, 501, 503, 529):
            return NoAnswer(reason, billed=False, status=status, retry_after_s=wait, detail=said)
        if status >= 500:  # a gateway gave up: the model behind it may have worked
            return NoAnswer(reason, status=status, retry_after_s=wait, detail=said)
        return NoAnswer(reason, billed=False, status=status, permanent=True, detail=said)

    def _refused(self, what: str, next: str) -> TeacherRefused:
        return TeacherRefused(
            what, where=self.config.base_url, safe="every answer received so far", next=f"{next}; then the same command"
        )

    def _clean(self, text: str) -> str:
        """What a server said, short, on one line, without the key."""
        if self._key:
            text = text.replace(self._key, "***")
        return "".join(c if c.isprintable() else " " for c in text)[:200]

    def parse(self, raw: bytes) -> Completion:
        """Read a chat completion; an answer held by a JSON schema is taken out of its object."""
        completion = parse_chat(raw)
        if self.config.constrain != "json_schema" or not completion.text.lstrip().startswith("{"):
            return completion
        try:
            value = json.loads(completion.text)
        except ValueError:
            return completion
        if isinstance(value, dict) and list(value) == [CHOSEN] and isinstance(value[CHOSEN], str):
            return replace(completion, text=value[CHOSEN])
        return completion

    @property
    def batches(self) -> Batches:
        """The endpoint's batch API."""
        return Batches(self)

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        if self._session is not None and self._loop is asyncio.get_running_loop():
            await self._session.close()
            self._session = None

    def close(self) -> None:
        """Nothing is left open: ``aclose`` ran at the end of the event loop."""
        self._session = None


async def _capped(stream: Any, most: int, arrivals: Arrivals | None = None) -> bytes:
    """The body, inflated. Raises NoAnswer when it is larger than ``most`` bytes."""
    chunks, size = [], 0
    while chunk := await stream.readany():
        size += len(chunk)
        if arrivals is not None:
            arrivals.add(size)
        if size > most:
            raise NoAnswer("too_large", permanent=True, detail=f"more than {most:,} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _one_of(choices: tuple[str, ...]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {CHOSEN: {"type": "string", "enum": list(choices)}},
        "required": [CHOSEN],
        "additionalProperties": False,
    }


def _schema(schema: dict[str, Any]) -> dict[str, Any]:
    # "strict" is only taken for closed objects; without it the schema is still the grammar where engines have one.
    strict = schema.get("additionalProperties") is False
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": strict, "schema": schema}}


def _message(raw: bytes) -> str:
    """The readable part of an error body: message, type and code where it has them."""
    try:
        body = json.loads(raw[:65_536])
    except (ValueError, RecursionError):
        return raw[:200].decode("utf-8", "replace")
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, dict):
        return " ".join(str(error[name]) for name in ("message", "type", "code", "detail") if error.get(name))
    return str(error)
