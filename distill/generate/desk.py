"""Where the stage asks: every teacher, judge and writer of prompts through one store and one budget."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from distill import costs, gates, plugins
from distill.providers._base import Context
from distill.query.ask import ask_all, check
from distill.query.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill.artifacts import RunFolder
    from distill.config import RunConfig
    from distill.providers._base import Provider
    from distill.query.ask import Outcome
    from distill.records import Request

IN_PROCESS = ("transformers", "vllm")


class Desk:
    """A context manager. What was asked is booked by what it was for: `prompts`, `answers`, `judge`."""

    def __init__(self, config: RunConfig, folder: RunFolder):
        self.config, self.folder = config, folder
        self.seconds: dict[str, float] = {}
        """How long was waited."""
        self.booked: dict[str, dict[str, Outcome]] = {}
        """Request key -> outcome."""
        self._open: dict[str, Provider] = {}
        self._known: dict[str, dict[str, Any]] = {}
        self._stack = contextlib.ExitStack()
        self._store: Store | None = None

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, *error: object) -> None:
        self._close(list(self._open))
        self._stack.close()

    def check(self) -> None:
        """Refuse, before the first of several models is paid, one that has no price or cannot be reached by key.

        Raises ConfigError and what building a provider raises.
        """
        models = [settings for _, settings in gates.asked(self.config) if settings.kind not in IN_PROCESS]
        for settings in models[1:] if models[:1] == [self.config.teacher] else models:
            check(self.provider(settings), (), costs.price_of(settings), self.config.generate.max_cost_eur)

    def provider(self, settings: Any) -> Provider:
        """The model behind these settings. One model with weights in this process is held at a time."""
        key = settings.model_dump_json()
        if key not in self._open:
            if settings.kind in IN_PROCESS:
                self._close([name for name in self._open if self._known[name]["kind"] in IN_PROCESS])
            executor = self.config.generate.executor
            spread = plugins.load("distill.executors", executor.kind).spread
            self._open[key] = spread(executor, settings, Context(folder=self.config.resolve(".")))
            self._known[key] = self._open[key].identity()
        return self._open[key]

    def identity(self, settings: Any) -> dict[str, Any]:
        """The provider's identity; weights that were let go are not loaded again for it."""
        return self._known.get(settings.model_dump_json()) or self.provider(settings).identity()

    def ask(self, settings: Any, requests: Sequence[Request], title: str, part: str) -> list[Outcome]:
        """One outcome for each request, in order, booked under ``part``; raises what ``query.ask.ask_all`` raises."""
        provider, started = self.provider(settings), time.monotonic()
        try:
            outcomes = ask_all(
                provider,
                requests,
                self._opened(),
                title=title,
                price=costs.price_of(settings),
                max_cost_eur=self.config.generate.max_cost_eur,
            )
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.monotonic() - started
        booked = self.booked.setdefault(part, {})
        for outcome in reversed(outcomes):  # the first of a key says whether it was asked
            booked[outcome.key] = outcome
        return outcomes

    def _opened(self) -> Store:
        """The store, made when something is asked for the first time: a refused run leaves none."""
        if self._store is None:
            self._store = self._stack.enter_context(Store(self.folder.db))
        return self._store

    def _close(self, names: list[str]) -> None:
        for name in names:
            self._open.pop(name).close()
