"""What came back: answers are committed with their bill before they are used; failures are repeated or given up."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from distill.errors import TeacherRefused, TeacherUnavailable, TooManyRejected
from distill.progress import say
from distill.query import ledger
from distill.query.attempts import Received
from distill.query.items import Outcome
from distill.query.usage import UsageWatch
from distill.records import Completion, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from distill.costs import Price
    from distill.progress import Progress
    from distill.providers._base import NoAnswer, Provider
    from distill.query.items import Batch, Item
    from distill.query.pressure import Lane, Policy
    from distill.query.store import Store
    from distill.records import Answer

# Bytes that are no answer at all: paid, kept, and asked again while attempts are left.
UNREADABLE = frozenset({"error_body", "html", "not_json", "not_an_object", "no_choices", "parser_error"})
REFUSED_AT_START = 10  # that many permanent failures before the first answer: the request itself is wrong


class Results:
    """Outcomes by key, and what decides about the rest. ``stop(error)`` ends the query, ``retry`` queues items."""

    def __init__(
        self,
        provider: Provider,
        store: Store,
        price: Price | None,
        policy: Policy,
        lane: Lane,
        stop: Callable[[BaseException], None],
        retry: Callable[[list[Item], float], None],
        batched: bool = False,
    ):
        self.provider, self.store, self.price, self.policy, self.lane = provider, store, price, policy, lane
        self._stop, self._retry, self._batched = stop, retry, batched
        self.bar: Progress | None = None
        self.asked = 0
        self.outcomes: dict[str, Outcome] = {}
        self.rejects: Counter[str] = Counter()
        """Outcomes that cannot be used, by reason."""
        self.faults: Counter[str] = Counter()
        """Sends that brought no answer, by reason."""
        self.models: Counter[str] = Counter()
        """What the answers say they come from."""
        self._refused = self._answers = self._spent = self._tokens = 0
        self._usage = UsageWatch()
        self._began = time.monotonic()

    def committed(self, items: dict[str, Item]) -> dict[str, Outcome]:
        """Outcomes of what the store already holds. Unreadable answers with attempts left are asked again."""
        gone = Completion("", "error", reject="erased")
        done = {key: Outcome(key, gone, None, None, True) for key in self.store.erased(items)}
        bills = []
        for key, answer in self.store.get_many(items).items():
            completion, cost = self._parse(answer.raw), answer.cost_nano
            if answer.unbilled is not None:
                attempt, worst = answer.unbilled
                charged = self._charge(worst, completion, answer.received)
                bills.append((attempt, worst if charged is None else charged))
                cost = (cost or 0) + bills[-1][1]
            if completion.model:
                self.models[completion.model] += 1
            outcome = Outcome(key, completion, cost, answer.latency_s, True)
            if outcome.completion.reject in UNREADABLE and answer.answers < self.policy.max_attempts:
                items[key].attempts, items[key].stored = answer.answers, outcome
            else:
                done[key] = outcome
        if bills:
            self.store.bill(bills)
        return done

    def age(self, item: Item, now: float) -> float:
        """Seconds since the item was first sent, pauses of the lane taken off."""
        return now - (item.started or now) - (self.lane.paused_s - item.paused_s)

    async def answered(self, batch: Batch, answers: list[Answer]) -> None:
        """Keep the raw bytes before they are read, commit them with their bill in one transaction, then use them."""
        received = [
            Received(attempt, answer.raw, answer.status, answer.latency_s, None, answer.request_id)
            for attempt, answer in zip(batch.attempts, answers, strict=True)
        ]
        if not self._batched:  # what a batch brought can be fetched again
            self.store.receive([(item.key, answer) for item, answer in zip(batch.items, received, strict=True)])
        completions = [self._parse(answer.raw) for answer in answers]
        costs = self._costs(batch, completions)
        await self.store.settle([replace(answer, cost_nano=cost) for answer, cost in zip(received, costs, strict=True)])
        for item, completion, answer, cost in zip(batch.items, completions, answers, costs, strict=True):
            self._spent += cost or 0
            self._answers += 1
            self._tokens += completion.usage.prompt + completion.usage.completion
            self._usage.add(item.request, completion)
            self.lane.answered(not completion.reject)
            if completion.model:
                self.models[completion.model] += 1
            if self.lane.scouting:
                self._scouted(item, completion)
            before = item.stored.cost_nano or 0 if item.stored else 0
            total = None if cost is None else cost + before
            outcome = Outcome(item.key, completion, total, answer.latency_s, False)
            if completion.reject in UNREADABLE:
                item.stored = outcome
                item.attempts += 1
                self.again(item, completion.reject)
            else:
                self._done(item, outcome)
        self._refuse_drift()
        self._judge()

    def _refuse_drift(self) -> None:
        """An alias that begins to mean another model: half the data set would have another teacher."""
        if len(self.models) < 2 or getattr(getattr(self.provider, "config", None), "model_drift", "") != "stop":
            return
        first, *others = self.models
        self._stop(
            TeacherRefused(
                f"the answers came from {first!r} and now come from {', '.join(map(repr, others))}",
                where="teacher.model",
                safe="every answer received so far",
                next="name one model exactly and start a new run, or set teacher.model_drift: report",
            )
        )

    def _costs(self, batch: Batch, completions: list[Completion]) -> list[int | None]:
        """What each answer cost. Samples that came in one response are one bill, evenly split."""
        if not batch.shared:
            return [self._charge(item.worst, done) for item, done in zip(batch.items, completions, strict=True)]
        usage = sum((done.usage for done in completions), Usage())
        worst = sum(item.worst or 0 for item in batch.items)
        text = "".join(done.text for done in completions)
        total = self._charge(worst, replace(completions[0], usage=usage, text=text))
        if total is None:
            return [None] * len(completions)
        part, more = divmod(total, len(completions))
        return [part + (number < more) for number in range(len(completions))]

    def _charge(self, worst: int | None, completion: Completion, at: float | None = None) -> int | None:
        """What the answer cost. A usage that is absent, or more than the request can hold, is charged at worst case."""
        if self.price is None or worst is None:
            return None
        from distill.costs import cost_nano

        usage = completion.usage
        if usage.prompt <= 0 or (completion.text and usage.completion <= 0):
            return worst
        cost = cost_nano(usage, self.price, batch=self._batched, at=datetime.fromtimestamp(at or time.time(), UTC))
        if cost > worst:
            self.faults["usage_too_large"] += 1
        return min(cost, worst)

    def _parse(self, raw: bytes) -> Completion:
        try:
            return self.provider.parse(raw)
        except Exception:
            return Completion("", "error", reject="parser_error")

    async def no_answer(self, batch: Batch, failure: NoAnswer) -> None:
        """Account for a send without an answer, and repeat it where that is allowed."""
        now = time.monotonic()
        self.faults[failure.reason] += len(batch.items)
        # First the lane, then the commit: nothing more leaves to a teacher that said stop while it is written.
        if failure.throttled:
            self._throttled(failure, now)
        else:
            self._failed(batch, failure, now)
        if failure.billed is False:
            await self.store.release(batch.attempts, failure.reason, failure.status)
        else:
            await self.store.uncertain(batch.attempts, failure.reason, failure.status)
        if failure.throttled:
            self._retry(batch.items, self.lane.paused_until)
            return
        unsent = failure.billed is False and failure.status is None
        for item in batch.items:
            item.attempts += not unsent  # what never left is the lane's failure, not the request's
            item.uncertain += failure.billed is not False
            self.again(item, failure.reason, failure)

    def _failed(self, batch: Batch, failure: NoAnswer, now: float) -> None:
        """Tell the lane, and stop where going on makes no sense."""
        if self.lane.failed(now):
            say(f"the teacher does not answer ({failure.reason}): trying for up to {self.policy.patience_s:.0f} s")
        if failure.permanent and not self._answers:
            self._refused += len(batch.items)
            if self._refused >= REFUSED_AT_START or self.lane.scouting:
                self._stop(TeacherRefused(f"every request is refused: {failure.reason} {failure.detail}".strip()))
        elif failure.billed is not False and self.lane.failures >= self.policy.breaker_failures:
            self._stop(unavailable(f"{self.lane.failures} failures in a row, the last: {failure.reason}"))

    def _throttled(self, failure: NoAnswer, now: float) -> None:
        """Too many requests: the lane pauses and the batch waits; no attempt is used up."""
        if (failure.retry_after_s or 0) > self.policy.retry_after_cap_s:
            self._stop(unavailable(f"it asks for a pause of {failure.retry_after_s:.0f} s"))
        self.lane.throttle(failure.retry_after_s, now)

    def _scouted(self, item: Item, completion: Completion) -> None:
        """The first answer shows whether the endpoint does what is asked, before all the others are paid for."""
        if completion.reject:
            return
        self.lane.scouting = False
        request, missing = item.request, ""
        if request.top_logprobs and completion.logprobs is None:
            missing = "it returns no log-probabilities; set generate.signals_top_k=0 or use another teacher"
        elif request.choices and self.provider.capabilities.choices and completion.text not in request.choices:
            missing = "it is not held to the choices; try another `constrain`"
        if missing:
            self._stop(TeacherRefused(f"the endpoint ignores a part of the request: {missing}", safe="its answer"))

    def again(self, item: Item, reason: str, failure: NoAnswer | None = None) -> None:
        """Queue another attempt, or give the item up with its reason."""
        now = time.monotonic()
        over = self.policy.deadline_s is not None and self.age(item, now) >= self.policy.deadline_s
        spent = item.attempts >= self.policy.max_attempts or item.uncertain > self.policy.retry_uncertain
        if spent or over or (failure is not None and failure.permanent):
            self._done(
                item, item.stored or Outcome(item.key, Completion("", "error", reject=reason), None, None, False)
            )
            return
        wait = self.policy.backoff(max(item.attempts, min(self.lane.failures, 7)))
        if failure is not None and failure.retry_after_s is not None:
            wait = max(wait, min(failure.retry_after_s, self.policy.retry_after_cap_s))
        self._retry([item], now + wait)

    def _done(self, item: Item, outcome: Outcome) -> None:
        self.outcomes[item.key] = outcome
        if outcome.completion.reject:
            self.rejects[outcome.completion.reject] += 1
        if self.bar is not None:
            self.bar.advance(1, **(self._facts() if self.bar.due() else {}))

    def _facts(self) -> dict[str, object]:
        """The live line: spent, projected, and how fast both money and tokens go, since this process began."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        pace = f"{self._tokens / seconds:,.0f} tokens/s"
        if self.price is None:
            return {"at": pace}
        spent = self._spent / ledger.NANO
        whole = spent / max(len(self.outcomes), 1) * self.asked
        return {"spent": f"{spent:.4f} of ~{whole:.4f} EUR", "at": f"{60 * spent / seconds:.3f} EUR/min, {pace}"}

    def _judge(self) -> None:
        """A paid teacher whose answers cannot be used, or whose bill cannot be right, is not asked further."""
        if self.price is not None and (wrong := self._usage.complaint(self.faults["usage_too_large"])):
            self._stop(
                TooManyRejected(
                    f"the teacher's token counts cannot be right: {wrong}",
                    safe="every answer received so far; no call was booked below what it may cost",
                    next="compare with the provider's own usage page, or ask another endpoint",
                )
            )
        share = self.lane.unusable()
        if self.price is not None and share > self.policy.breaker_rate:
            common = ", ".join(reason for reason, _ in self.rejects.most_common(2))
            self._stop(unavailable(f"{share:.0%} of its last answers are unusable ({common})"))


def unavailable(what: str) -> TeacherUnavailable:
    """The one line for a teacher that cannot be relied on now."""
    return TeacherUnavailable(
        f"the teacher does not answer as it should: {what}",
        safe="every answer received so far",
        next="look at the endpoint, then run the same command",
    )
