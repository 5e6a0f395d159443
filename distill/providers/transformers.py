"""A model in this process, through transformers: teacher, student or judge, without a server.

Greedy answers are the same whatever else is in the batch, up to rounding: a larger batch may add up in another
order, which in bfloat16 can turn a near-tie. Samples are drawn with a seed of their own request.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import Field

from distill import models
from distill.artifacts import sha256_file
from distill.errors import DataError, MissingDependency, OutOfMemory
from distill.providers import _choices
from distill.providers._base import Capabilities, ProviderConfig, chat_json, parse_chat
from distill.providers._engine import Engine, Likelihood, Row, Scored, row_seed
from distill.records import Answer, TopLogprobs, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from distill.providers._base import Context
    from distill.records import Completion, Message, Request

T = TypeVar("T")
R = TypeVar("R")
MAX_TOP = 1024


class Config(ProviderConfig):
    """Where the weights are and how they run."""

    kind: Literal["transformers"] = "transformers"
    adapter: str | None = None
    """Folder of a LoRA or DoRA adapter put on the model, relative to the configuration file."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 where the processor multiplies it natively, else float32."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    batch_size: Annotated[int, Field(ge=1, le=1024)] = 16
    """Prompts answered together. Halved by itself when they do not fit."""
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """CPU threads (0 = all cores)."""


def build(config: Config, context: Context) -> TransformersProvider:
    """A provider whose weights are on this disk; they are loaded at the first question."""
    try:
        import transformers  # noqa: F401
    except ImportError:
        raise MissingDependency("transformers", "the transformers provider", "train") from None
    resolved = models.resolve(config.model, context.folder)
    adapter = (context.folder / Path(config.adapter).expanduser()).resolve() if config.adapter else None
    return TransformersProvider(config, resolved, adapter)


class TransformersProvider:
    """See the module."""

    capabilities = Capabilities(choices=True, top_logprobs=MAX_TOP)

    def __init__(self, config: Config, resolved: models.Resolved, adapter: Path | None = None):
        self.config, self.resolved, self.adapter = config, resolved, adapter
        self.batch_size = config.batch_size
        self.tokenizer = models.load_tokenizer(resolved.path)
        self._engine: Engine | None = None
        self._one_at_a_time = threading.Lock()

    def identity(self) -> dict[str, Any]:
        """Kind, weights and adapter hashes, number format, template, tokenizer, engine version."""
        import transformers

        adapter = self.adapter / "adapter_model.safetensors" if self.adapter else None
        if adapter is not None and not adapter.is_file():
            raise DataError("no adapter_model.safetensors here", where=str(self.adapter))
        return {
            "kind": "transformers",
            "model": self.resolved.name,
            "source": self.resolved.source,
            "revision": self.resolved.revision,
            "weights": self.resolved.sha256,
            "adapter": sha256_file(adapter) if adapter else None,
            "dtype": models.pick_dtype(self.config.dtype, models.pick_device(self.config.device)),
            "template": models.template_hash(self.tokenizer),
            "tokenizer": self.tokenizer_fingerprint,
            "engine": f"transformers {transformers.__version__}",
        }

    @functools.cached_property
    def tokenizer_fingerprint(self) -> str:
        """Of the tokenizer whose ids ``score_tokens`` returns."""
        return models.tokenizer_fingerprint(self.tokenizer)

    @property
    def vocab(self) -> int:
        """V: rows of the model's output; every id is below it."""
        return self._loaded().vocab

    async def ask(self, requests: Sequence[Request]) -> list[Answer]:
        """One answer for each request, computed in a thread so that signals are seen. Raises OutOfMemory."""
        work = asyncio.create_task(asyncio.to_thread(self._answer_all, list(requests)))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            if self._engine is not None:
                self._engine.cancelled = True  # the thread leaves at its next token
            raise

    def score_tokens(self, items: Sequence[tuple[Sequence[Message], str]], k: int) -> list[Scored]:
        """The k most likely tokens at every position of each given answer, the end of its turn included."""
        with self._one_at_a_time:
            engine = self._loaded()
            pairs = [
                (models.encode_chat(self.tokenizer, messages), models.encode_answer(self.tokenizer, text))
                for messages, text in items
            ]
            return self._halving(lambda some: engine.score(some, k), pairs)

    def likelihoods(self, pairs: Sequence[tuple[list[int], list[int]]], k: int = 1) -> list[Likelihood]:
        """How likely each answer is after its context, both token ids. Raises DataError for an empty context or answer,
        or one too long for the model."""
        with self._one_at_a_time:
            engine = self._loaded()
            for context, answer in pairs:
                if not context or not answer or len(context) + len(answer) > engine.longest:
                    raise DataError(
                        f"{len(context)} and {len(answer)} tokens cannot be scored; the model reads {engine.longest}",
                        where=self.resolved.name,
                    )
            found: dict[int, Likelihood] = {}
            order = sorted(range(len(pairs)), key=lambda n: -len(pairs[n][0]) - len(pairs[n][1]))
            for start in range(0, len(order), self.batch_size):
                batch = order[start : start + self.batch_size]
                scored = self._halving(lambda some: engine.answers(some, k), [pairs[n] for n in batch])
                found |= {n: Likelihood(*one) for n, one in zip(batch, scored, strict=True)}
            return [found[n] for n in range(len(pairs))]

    def parse(self, raw: bytes) -> Completion:
        """Read what ``ask`` returned."""
        return parse_chat(raw)

    def close(self) -> None:
        """Free the weights."""
        self._engine = None
        gc.collect()

    # -- in the thread ----------------------------------------------------------------------------------------

    def _loaded(self) -> Engine:
        if self._engine is None:
            if self.config.threads:
                import torch

                torch.set_num_threads(self.config.threads)
            model, tokenizer = models.load_causal_lm(
                self.resolved.path, self.config.dtype, self.adapter, self.config.device, as_stored=True
            )
            self._engine = Engine(model, tokenizer, models.end_ids(tokenizer))
        return self._engine

    def _answer_all(self, requests: list[Request]) -> list[Answer]:
        with self._one_at_a_time:
            started = time.monotonic()
            engine = self._loaded()
            engine.cancelled = False
            answers: list[Answer] = [Answer(b"")] * len(requests)
            # Choices that differ are looked at together where only the best is wanted.
            groups: dict[tuple[str, ...] | bool, list[int]] = {}
            for number, request in enumerate(requests):
                alike = request.top_logprobs or request.sampling.temperature
                groups.setdefault(request.choices if alike else bool(request.choices), []).append(number)
            for numbers in groups.values():
                found = self._group(engine, [requests[n] for n in numbers], started)
                for answer, number in zip(found, numbers, strict=True):
                    answers[number] = answer
            latency = time.monotonic() - started if len(requests) == 1 else None
            return [replace(answer, latency_s=latency) for answer in answers]

    def _group(self, engine: Engine, requests: list[Request], started: float) -> list[Answer]:
        """Answers to requests of one sort. One that is too long for the model gets an error body."""
        rows = [
            Row(
                models.encode_chat(self.tokenizer, r.messages),
                r.sampling,
                r.top_logprobs,
                row_seed(r.sampling.seed, r.sample, r.messages),
                r.choices,
            )
            for r in requests
        ]
        texts = {choice for r in requests for choice in r.choices}
        ids = {text: models.encode_answer(self.tokenizer, text)[:-1] for text in texts}
        room = engine.longest - max(map(len, ids.values()), default=1)
        fits = [n for n, row in enumerate(rows) if len(row.ids) < room]
        raws = [_too_long(len(row.ids), engine.longest) for row in rows]
        step = lambda some: self._choose(engine, some, ids) if texts else self._generate(engine, some)  # noqa: E731
        for start in range(0, len(fits), self.batch_size):
            numbers = fits[start : start + self.batch_size]
            for n, raw in zip(numbers, self._halving(step, [rows[n] for n in numbers]), strict=True):
                raws[n] = raw
        return [
            Answer(raw, first_s=since(row.first_at, started), last_s=since(row.last_at, started))
            for raw, row in zip(raws, rows, strict=True)
        ]

    def _generate(self, engine: Engine, rows: Sequence[Row]) -> list[bytes]:
        for row in rows:
            row.tokens, row.logprobs, row.tops, row.finish, row.random = [], [], [], "", None
            row.first_at = row.last_at = None
        engine.generate(rows)
        return [self._free_json(row) for row in rows]

    def _free_json(self, row: Row) -> bytes:
        def text(token: int) -> str:
            return str(self.tokenizer.decode([token], clean_up_tokenization_spaces=False))

        logprobs = None
        if row.top:
            tops = tuple(tuple((text(i), min(0.0, round(p, 6))) for i, p in top) for top in row.tops)
            logprobs = TopLogprobs(
                tuple(map(text, row.tokens)), tuple(min(0.0, round(p, 6)) for p in row.logprobs), tops
            )
        usage = Usage(len(row.ids), len(row.tokens), row.cached)
        return chat_json(row.text, usage, self.resolved.name, row.finish, logprobs)

    def _choose(self, engine: Engine, rows: Sequence[Row], ids: Mapping[str, list[int]]) -> list[bytes]:
        """The most likely choice of each row, or one drawn when the temperature is not 0."""
        if not any(row.top or row.sampling.temperature for row in rows):
            found = _choices.best(engine, rows, [[ids[text] for text in row.choices] for row in rows])
            return [self._chosen(row, ids, row.choices[best]) for row, best in zip(rows, found, strict=True)]
        raws = []
        choices = rows[0].choices
        for row, scores in zip(rows, _choices.choose(engine, rows, [ids[text] for text in choices]), strict=True):
            shares, best = _normalised(scores, row)
            ranked = sorted(zip(choices, shares, strict=True), key=lambda pair: -pair[1])
            top = tuple((text, min(0.0, round(p, 6))) for text, p in ranked)
            logprobs = TopLogprobs((choices[best],), (min(0.0, round(shares[best], 6)),), (top,)) if row.top else None
            raws.append(self._chosen(row, ids, choices[best], logprobs))
        return raws

    def _chosen(self, row: Row, ids: Mapping[str, list[int]], text: str, logprobs: TopLogprobs | None = None) -> bytes:
        usage = Usage(len(row.ids), len(ids[text]) + 1, row.cached)
        return chat_json(text, usage, self.resolved.name, "stop", logprobs)

    def _halving(self, step: Callable[[list[T]], list[R]], rows: list[T]) -> list[R]:
        """``step`` of all rows; when they do not fit, of each half. Raises OutOfMemory when one alone does not."""
        import torch

        try:
            return step(rows)
        except (torch.cuda.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise
            if len(rows) == 1:
                raise OutOfMemory(
                    "one prompt alone does not fit in memory",
                    where=self.resolved.name,
                    next="a smaller model, dtype: bfloat16, or shorter prompts",
                ) from error
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        half = len(rows) // 2
        return [*self._halving(step, rows[:half]), *self._halving(step, rows[half:])]


def _normalised(scores: Sequence[float], row: Row) -> tuple[list[float], int]:
    """(log-probabilities that add up to one over the choices, index of the choice taken)."""
    import torch

    scores_C = torch.tensor(scores, dtype=torch.float64)
    shares_C = scores_C.log_softmax(-1)
    if row.sampling.temperature == 0:
        return shares_C.tolist(), int(shares_C.argmax())
    random = torch.Generator().manual_seed(row.seed)
    drawn = torch.multinomial((scores_C / row.sampling.temperature).softmax(-1), 1, generator=random)
    return shares_C.tolist(), int(drawn)


def since(moment: float | None, started: float) -> float | None:
    """Seconds from ``started``; None when it never came."""
    return None if moment is None else moment - started


def _too_long(length: int, longest: int) -> bytes:
    body = f'{{"error":{{"type":"context_length","message":"{length} tokens; the model reads {longest}"}}}}'
    return body.encode()
