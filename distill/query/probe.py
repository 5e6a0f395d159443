"""What an endpoint can really do with a model: found out with a few tiny calls, once, before anything dear is asked.

Each call is reserved and committed like any other, so the probe is in the ledger too. What it found is kept in the
cache, with its date. A request that needs what the endpoint lacks is then refused before it is sent.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from distill.artifacts import write_json
from distill.catalog import today
from distill.errors import BudgetReached, ConfigError
from distill.models import cache_dir
from distill.providers._base import NoAnswer
from distill.query.attempts import Plan, Received
from distill.records import Message, Request, Sampling, canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from distill.costs import Price
    from distill.query.store import Store

VALID_DAYS = 30
TRIES = 3
WAIT_S = 1.0
TOKENS = 16
CHOICES = ("yes", "no")


@dataclass(frozen=True, slots=True)
class Abilities:
    """What was seen, on the day ``as_of``. None: the endpoint did not answer, so nobody knows."""

    as_of: str
    top_logprobs: int | None
    """Most log-probabilities per token that came back."""
    samples: bool | None
    """Several answers to one request (`n`)."""
    seed: bool | None
    """A seed is accepted; whether it is heeded cannot be seen."""
    schema: bool | None
    """An answer was held to a JSON Schema (`response_format`)."""


def wants_more_than_text(provider: Any, requests: Iterable[Request]) -> bool:
    """True when a request needs what not every endpoint has, and this provider can be probed for it."""
    if not hasattr(provider, "send"):
        return False
    held = provider.config.constrain == "json_schema"
    several = provider.capabilities.samples > 1
    return several or any(r.top_logprobs or (held and (r.choices or r.schema)) for r in requests)


async def abilities(provider: Any, store: Store, price: Price | None) -> Abilities:
    """What the endpoint can do: from the cache, or found out now."""
    path = _path(provider)
    if (found := _read(path)) is not None:
        return found
    found = await probe(provider, store, price)
    if None not in (found.top_logprobs, found.samples, found.seed, found.schema):
        write_json(path, {"endpoint": provider.config.base_url, "model": provider.config.model, **asdict(found)})
    return found


def refuse(found: Abilities, provider: Any, requests: Iterable[Request]) -> None:
    """Raise ConfigError for the first request that needs what the endpoint lacks."""
    model, seen = provider.config.model, f"(probed on {found.as_of})"
    held = provider.config.constrain == "json_schema"
    if provider.capabilities.samples > 1 and found.samples is False:
        raise ConfigError(
            f"{model!r} gives one answer per request here {seen}",
            where="teacher.samples_per_request",
            next="set teacher.samples_per_request: 1",
        )
    for request in requests:
        if found.top_logprobs is not None and request.top_logprobs > found.top_logprobs:
            able = f"at most {found.top_logprobs}" if found.top_logprobs else "no"
            raise ConfigError(
                f"{model!r} returns {able} log-probabilities per token here, {request.top_logprobs} are wanted {seen}",
                where="teacher.top_logprobs",
                next=f"set generate.signals_top_k: {found.top_logprobs}, or use another teacher",
            )
        if held and (request.choices or request.schema) and found.schema is False:
            raise ConfigError(
                f"{model!r} does not hold answers to a JSON Schema here {seen}",
                where="teacher.constrain",
                next="set teacher.constrain: none",
            )


async def probe(provider: Any, store: Store, price: Price | None) -> Abilities:
    """Ask the endpoint. Raises TeacherRefused, Refused, BudgetReached."""
    asker = _Asker(provider, store, price)
    several = await asker.ask({"n": 2, "temperature": 1.0}, times=2)
    seed = provider.config.seed_field
    seeded = await asker.ask({} if seed == "none" else {seed: 1})
    held = await asker.ask({"response_format": _held()})
    return Abilities(
        today().isoformat(),
        await _most_logprobs(asker, provider.config.top_logprobs),
        None if several is None else len(several.get("choices") or []) == 2,
        None if seeded is None else bool(seeded) and seed != "none",
        None if held is None else _is_held(held),
    )


async def _most_logprobs(asker: _Asker, wanted: int) -> int | None:
    """The most that came back: the number wanted is tried first, then the limits that endpoints usually have."""
    for k in sorted({k for k in (wanted, 20, 5, 1) if k}, reverse=True):
        answer = await asker.ask({"logprobs": True, "top_logprobs": k})
        if answer is None:
            return None
        try:
            count = len(answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"])
        except (KeyError, IndexError, TypeError):
            count = 0
        if count:
            return min(count, k)
    return 0


class _Asker:
    """Sends small requests, each reserved before and committed after."""

    def __init__(self, provider: Any, store: Store, price: Price | None):
        self.provider, self.store, self.price = provider, store, price
        self._request = Request((Message("user", "Is the sea blue?"),), Sampling(max_new_tokens=TOKENS))

    async def ask(self, changes: dict[str, Any], times: int = 1) -> dict[str, Any] | None:
        """The answer's body; {} when the endpoint refuses it; None when it does not answer at all."""
        body = self.provider.body(self._request)
        body.pop(self.provider.config.seed_field, None)
        data = json.dumps(body | changes).encode()
        for attempt in range(TRIES):
            try:
                raw = await self._once(data, times)
            except NoAnswer as failure:
                if failure.permanent:
                    return {}
                if attempt + 1 < TRIES:
                    await asyncio.sleep(min(failure.retry_after_s or WAIT_S, 30.0))
                continue
            try:
                answer = json.loads(raw)
            except ValueError:
                answer = None
            return answer if isinstance(answer, dict) and answer.get("choices") else {}
        return None

    async def _once(self, data: bytes, times: int) -> bytes:
        from distill.costs import cost_nano, worst_case_nano

        identity = self.provider.identity()
        canonical = canonical_json({"probe": data.decode(), "provider": identity, "at": time.time_ns()})
        key = hashlib.sha256(canonical).hexdigest()
        worst = None if self.price is None else times * worst_case_nano(self._request, self.price)
        granted = await self.store.reserve([[Plan(key, canonical, worst)]])
        if not granted:
            raise BudgetReached(
                "not even a probe of the endpoint fits under generate.max_cost_eur",
                safe="every answer received so far",
                next="raise generate.max_cost_eur, then run the same command",
            )
        ((attempt,),) = granted
        try:
            async with asyncio.timeout(self.provider.config.timeout_s):
                headers, raw = await self.provider.send("POST", "/chat/completions", data)
        except TimeoutError:
            await self.store.uncertain([attempt], "timeout")
            raise NoAnswer("timeout") from None
        except NoAnswer as failure:
            end = self.store.release if failure.billed is False else self.store.uncertain
            await end([attempt], failure.reason, failure.status)
            raise
        except BaseException:
            await self.store.release([attempt], "refused")
            raise
        usage = self.provider.parse(raw).usage
        cost = None if worst is None else worst
        if self.price is not None and worst is not None and usage.prompt > 0:
            cost = min(worst, cost_nano(usage, self.price))
        request_id = headers.get("x-request-id", "")[:200]
        await self.store.settle([Received(attempt, raw, 200, None, cost, request_id)])
        return bytes(raw)


def _held() -> dict[str, Any]:
    shape = {
        "type": "object",
        "properties": {"answer": {"type": "string", "enum": list(CHOICES)}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": shape}}


def _is_held(answer: dict[str, Any]) -> bool:
    try:
        value = json.loads(answer["choices"][0]["message"]["content"])
    except (ValueError, KeyError, IndexError, TypeError):
        return False
    return isinstance(value, dict) and value.get("answer") in CHOICES


def _path(provider: Any) -> Path:
    """Where the findings of this endpoint and model are kept."""
    config = provider.config
    named = canonical_json([config.base_url, config.model, config.top_logprobs, config.seed_field, config.extra_body])
    return cache_dir() / "endpoints" / f"{hashlib.sha256(named).hexdigest()[:32]}.json"


def _read(path: Path) -> Abilities | None:
    """Findings that are not too old; None when there are none."""
    try:
        value = json.loads(path.read_bytes())
        found = Abilities(**{name: value[name] for name in Abilities.__slots__})
        age = today() - datetime.date.fromisoformat(found.as_of)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if abs(age.days) <= VALID_DAYS else None
