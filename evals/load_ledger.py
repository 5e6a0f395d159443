"""A sweep of an engine that costs money: a level leaves only when all of it is reserved at its worst case.

Each call is a request of its own in the store, never the stored answer of an item: the latency of a stored answer says
nothing. Bills are committed beside the loop, so that a commit delays no request; a process that dies leaves its calls
charged at worst case.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any

from distill import costs
from distill.errors import BudgetReached
from distill.query import ask, ledger
from distill.query.attempts import Plan, Received
from distill.query.keys import Account

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from distill.costs import Price
    from distill.providers._base import NoAnswer
    from distill.query.store import Store
    from distill.records import Answer, Request


class Ledger:
    """The account of one level. ``reserve`` first, ``settled`` at the end."""

    def __init__(self, provider: Any, store: Store, price: Price, max_cost_eur: float, level: dict[str, Any]):
        self._provider, self._store, self._price = provider, store, price
        self._cap, self._level = max_cost_eur, level
        self._attempts: list[int] = []
        self._open: set[int] = set()
        self._commits: list[asyncio.Task[None]] = []

    async def reserve(self, requests: Sequence[Request]) -> None:
        """Set the worst case of all calls aside. Raises BudgetReached, ConfigError: nothing is then set aside."""
        ask.check(self._provider, requests, self._price, self._cap)
        account = Account.of(ask.config_of(self._provider))
        await asyncio.to_thread(self._store.set_cap, ledger.nano(self._cap), account)
        plans = [[self._plan(number, request)] for number, request in enumerate(requests)]
        granted = await self._store.reserve(plans)
        self._attempts = [attempt for (attempt,) in granted]
        self._open = set(range(len(granted)))
        if len(granted) < len(plans):
            await self.settled()
            raise BudgetReached(
                f"{len(plans)} calls may cost more than is left of {self._cap:g} EUR",
                next="raise generate.max_cost_eur (compare: --max-cost-eur), or lower load.requests",
            )

    def _plan(self, number: int, request: Request) -> Plan:
        identity = {**self._provider.identity(), "load": {**self._level, "number": number}}
        canonical = request.canonical(identity)
        return Plan(hashlib.sha256(canonical).hexdigest(), canonical, costs.worst_case_nano(request, self._price))

    def answered(self, number: int, request: Request, answer: Answer) -> None:
        """Commit the bytes and the bill."""
        completion = self._provider.parse(answer.raw)
        usage, cost = completion.usage, costs.worst_case_nano(request, self._price)
        if usage.prompt > 0 and not (completion.text and usage.completion <= 0):  # absent usage: the worst case
            cost = min(cost, costs.cost_nano(usage, self._price))
        attempt = self._ends(number)
        kept = Received(attempt, answer.raw, answer.status, answer.latency_s, cost, answer.request_id)
        self._commit(self._store.settle([kept]))

    def failed(self, number: int, failure: NoAnswer) -> None:
        """Free the money of a call that did no work; any other stays charged."""
        end = self._store.release if failure.billed is False else self._store.uncertain
        self._commit(end([self._ends(number)], failure.reason, failure.status))

    async def settled(self) -> None:
        """Everything is committed; what never left is free again."""
        unsent, self._open = [self._attempts[n] for n in sorted(self._open)], set()
        if unsent:
            await self._store.release(unsent, "not_sent")
        await asyncio.gather(*self._commits)

    def _ends(self, number: int) -> int:
        self._open.discard(number)
        return self._attempts[number]

    def _commit(self, work: Coroutine[Any, Any, None]) -> None:
        self._commits.append(asyncio.create_task(work))
