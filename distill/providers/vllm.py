"""A model in this process, through vLLM: continuous batching, for a GPU. Needs an environment with vllm.

Answers held to ``choices`` are decoded under a grammar, token by token: always legal, but not always the choice
with the highest total probability (the transformers provider finds that one).
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from distill import models
from distill.errors import EnvironmentProblem, MissingDependency, OutOfMemory
from distill.providers._base import Capabilities, ProviderConfig, chat_json, parse_chat
from distill.providers._engine import Scored, row_seed
from distill.records import Answer, TopLogprobs, Usage, canonical_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill.providers._base import Context
    from distill.records import Completion, Message, Request

MAX_TOP = 1024


class Config(ProviderConfig):
    """Where the weights are and how they run."""

    kind: Literal["vllm"] = "vllm"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: the format of the weights file."""
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 256
    """Prompts handed over together; vLLM schedules them itself."""
    max_model_len: Annotated[int, Field(ge=16)] | None = None
    """Longest prompt and answer in tokens. Default: what the model was made for."""
    memory_share: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of each GPU's memory that vLLM takes."""
    gpus: Annotated[int, Field(ge=1, le=64)] = 1
    """GPUs that the weights are spread over."""
    eager: bool = False
    """Skip compilation: starts sooner, answers slower."""


def build(config: Config, context: Context) -> VllmProvider:
    """A provider whose weights are on this disk; the engine starts at the first question."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # no telemetry; read when vllm is imported
    try:
        import vllm
    except ImportError:
        raise MissingDependency("vllm", "the vllm provider", "vllm") from None
    return VllmProvider(config, models.resolve(config.model, context.folder), vllm.__version__)


class VllmProvider:
    """See the module."""

    capabilities = Capabilities(choices=True, top_logprobs=MAX_TOP)

    def __init__(self, config: Config, resolved: models.Resolved, version: str):
        self.config, self.resolved, self.version = config, resolved, version
        self.batch_size = config.batch_size
        self.tokenizer = models.load_tokenizer(resolved.path)
        self.tokenizer_fingerprint = models.tokenizer_fingerprint(self.tokenizer)
        self._engine: Any = None
        self._one_at_a_time = threading.Lock()

    def identity(self) -> dict[str, Any]:
        """Kind, weights hash, number format, template, tokenizer, engine version."""
        return {
            "kind": "vllm",
            "model": self.resolved.name,
            "source": self.resolved.source,
            "revision": self.resolved.revision,
            "weights": self.resolved.sha256,
            "dtype": self.config.dtype,
            "template": models.template_hash(self.tokenizer),
            "tokenizer": self.tokenizer_fingerprint,
            "engine": f"vllm {self.version}",
        }

    @property
    def vocab(self) -> int:
        """V: rows of the model's output; every id is below it."""
        return int(self._loaded().llm_engine.model_config.get_vocab_size())

    async def ask(self, requests: Sequence[Request]) -> list[Answer]:
        """One answer for each request, computed in a thread so that signals are seen."""
        return await asyncio.to_thread(self._answer_all, list(requests))

    def score_tokens(self, items: Sequence[tuple[Sequence[Message], str]], k: int) -> list[Scored]:
        """The k most likely tokens at every position of each given answer, the end of its turn included."""
        import numpy as np
        from vllm import SamplingParams

        contexts = [models.encode_chat(self.tokenizer, messages) for messages, _ in items]
        answers = [models.encode_answer(self.tokenizer, text) for _, text in items]
        wanted = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=k, detokenize=False)
        whole = [context + answer for context, answer in zip(contexts, answers, strict=True)]
        results = []
        for output, answer in zip(self._generate(whole, [wanted] * len(whole)), answers, strict=True):
            # vLLM adds the prompt's own token when it is not among the best: it has a rank beyond k.
            best = [
                sorted((e.rank, i, e.logprob) for i, e in place.items() if e.rank <= k)[:k]
                for place in output.prompt_logprobs[-len(answer) :]
            ]
            ids_TK = np.array([[i for _, i, _ in row] for row in best], dtype=np.int32)
            logprobs_TK = np.array([[p for _, _, p in row] for row in best], dtype=np.float32)
            results.append(Scored(np.array(answer, dtype=np.int32), ids_TK, logprobs_TK))
        return results

    def parse(self, raw: bytes) -> Completion:
        """Read what ``ask`` returned."""
        return parse_chat(raw)

    def close(self) -> None:
        """Stop the engine and free its memory."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.llm_engine.engine_core.shutdown()

    # -- in the thread ----------------------------------------------------------------------------------------

    def _loaded(self) -> Any:
        if self._engine is None:
            from vllm import LLM

            try:
                self._engine = LLM(
                    model=str(self.resolved.path),
                    dtype=self.config.dtype,
                    max_model_len=self.config.max_model_len,
                    gpu_memory_utilization=self.config.memory_share,
                    tensor_parallel_size=self.config.gpus,
                    max_logprobs=MAX_TOP,
                    enforce_eager=self.config.eager,
                    trust_remote_code=False,
                )
            except Exception as error:
                text = " ".join(str(error).split())[:200]
                if "memory" in text.lower():
                    raise OutOfMemory(f"vLLM does not start: {text}", where=self.resolved.name) from error
                raise EnvironmentProblem(f"vLLM does not start: {text}", where=self.resolved.name) from error
        return self._engine

    def _generate(self, prompts: list[list[int]], wanted: list[Any]) -> list[Any]:
        with self._one_at_a_time:
            asked: Any = [{"prompt_token_ids": ids} for ids in prompts]
            return list(self._loaded().generate(asked, wanted, use_tqdm=False))

    def _answer_all(self, requests: list[Request]) -> list[Answer]:
        started = time.monotonic()
        longest = self._loaded().llm_engine.model_config.max_model_len
        prompts = [models.encode_chat(self.tokenizer, request.messages) for request in requests]
        fits = [n for n, ids in enumerate(prompts) if len(ids) < longest]
        outputs = self._generate([prompts[n] for n in fits], [self._sampling(requests[n]) for n in fits])
        error = {"type": "context_length", "message": f"the model reads {longest} tokens"}
        raws = [canonical_json({"error": error})] * len(requests)
        for n, output in zip(fits, outputs, strict=True):
            raws[n] = self._json(output)
        return [Answer(raw, 200, time.monotonic() - started if len(requests) == 1 else None) for raw in raws]

    def _sampling(self, request: Request) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        wanted = request.sampling
        return SamplingParams(
            max_tokens=wanted.max_new_tokens,
            temperature=wanted.temperature,
            top_p=wanted.top_p,
            seed=row_seed(wanted.seed, request.sample, request.messages) % 2**31,
            stop=list(wanted.stop) or None,
            stop_token_ids=models.end_ids(self.tokenizer),
            logprobs=request.top_logprobs or None,
            structured_outputs=StructuredOutputsParams(choice=list(request.choices)) if request.choices else None,
        )

    def _json(self, output: Any) -> bytes:
        answer = output.outputs[0]
        usage = Usage(len(output.prompt_token_ids), len(answer.token_ids), output.num_cached_tokens or 0)
        logprobs = None
        if answer.logprobs:
            rows = [sorted((e.rank, e.decoded_token or "", e.logprob) for e in row.values()) for row in answer.logprobs]
            taken = [row[token] for row, token in zip(answer.logprobs, answer.token_ids, strict=True)]
            logprobs = TopLogprobs(
                tuple(entry.decoded_token or "" for entry in taken),
                tuple(min(0.0, float(entry.logprob)) for entry in taken),
                tuple(tuple((text, min(0.0, float(p))) for _, text, p in row) for row in rows),
            )
        finish = str(answer.finish_reason or "unknown")
        return chat_json(answer.text, usage, self.resolved.name, finish, logprobs)
