"""How likely a model finds given texts, and how far two models' next tokens lie apart.

Bits per byte compare any tokenizers. The divergence is KL(reference || candidate) per token over the tokens that both
rank among their K likeliest, all others as one: by the data-processing inequality a lower bound of the whole one. It
needs the same tokenizer. Shapes: T tokens, K top-k.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.errors import ConfigError
from evals.bootstrap import bootstrap
from evals.samples import Sample

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from distill.providers._engine import Likelihood
    from evals.analysis import Arm
    from evals.asking import Exam

TOP = 64


@dataclass(frozen=True)
class Reading:
    """One text as one model read it. ``tokenizer``: fingerprint, so that only like is compared with like."""

    nats: float
    size: int
    """Bytes of the text."""
    tokenizer: str
    answer: Likelihood


def read(provider: Any, name: str, questions: Sequence[Exam]) -> tuple[list[Sample], dict[tuple[str, str], Reading]]:
    """(samples, readings) of the questions that are only read. Raises ConfigError for an engine that cannot."""
    from distill import models

    if not hasattr(provider, "likelihoods"):
        raise ConfigError(
            f"{name} does not say how likely a given text is",
            where=questions[0].config.title,
            next="a model of kind: transformers, or leave the task out",
        )
    texts = [q.module.gold_text(q.item) for q in questions]
    pairs = [
        (models.encode_chat(provider.tokenizer, q.request.messages), models.encode_answer(provider.tokenizer, text))
        for q, text in zip(questions, texts, strict=True)
    ]
    samples, readings = [], {}
    for q, text, (context, answer), found in zip(
        questions, texts, pairs, provider.likelihoods(pairs, TOP), strict=True
    ):
        nats, size = -sum(found.logprobs_T), len(text.encode("utf-8", "surrogatepass"))
        readings[q.config.title, q.item.id] = Reading(nats, size, provider.tokenizer_fingerprint, found)
        samples.append(
            Sample(
                id=q.item.id,
                task=q.config.title,
                cluster=q.item.cluster,
                lang=q.item.lang,
                gold=text,
                prompt=q.request.messages[-1].content,
                text="",
                predicted="",
                correct=math.exp(-nats / size),
                prompt_tokens=len(context),
                completion_tokens=len(answer),
                finish="read",
            )
        )
    return samples, readings


def report(arms: Sequence[Arm], candidate: str, reference: str, draws: int, seed: int) -> list[dict[str, Any]]:
    """Per task: bits per byte of every system that read it, and the candidate's divergence from the reference."""
    readings = {arm.name: arm.readings for arm in arms if arm.readings}
    if candidate not in readings or reference not in readings:
        return []
    found = []
    for task in dict.fromkeys(task for task, _ in readings[reference]):
        rows = [s for arm in arms if arm.name == reference for s in arm.samples if s.task == task]
        keys, clusters = [(task, s.id) for s in rows], [s.drawn_with for s in rows]
        systems = {}
        for name, mine in readings.items():
            bits = [mine[key].nats / math.log(2) for key in keys]
            drawn = bootstrap({"bits": bits, "bytes": [mine[key].size for key in keys]}, clusters, draws, seed)
            rate = drawn.ratio("bits", "bytes")
            tokens = sum(len(mine[key].answer.logprobs_T) for key in keys)
            systems[name] = {
                "bits_per_byte": rate.as_dict() if rate else None,
                "perplexity": math.exp(min(700.0, sum(mine[key].nats for key in keys) / tokens)),
            }
        pair = _divergence(readings[candidate], readings[reference], keys, clusters, draws, seed)
        found.append({"task": task, "n": len(keys), "arms": systems, "divergence": pair})
    return found


def _divergence(
    candidate: Mapping[tuple[str, str], Reading],
    reference: Mapping[tuple[str, str], Reading],
    keys: Sequence[tuple[str, str]],
    clusters: Sequence[Any],
    draws: int,
    seed: int,
) -> dict[str, Any] | None:
    """Nats per token and the share of tokens with the same likeliest one; None for two tokenizers."""
    if {candidate[key].tokenizer for key in keys} != {reference[key].tokenizer for key in keys}:
        return None
    apart = [coarse_kl(reference[key].answer, candidate[key].answer) for key in keys]
    lengths = [len(values) for values, _ in apart]
    columns: dict[str, Any] = {
        "kl": [sum(values) for values, _ in apart],
        "same": [same for _, same in apart],
        "tokens": lengths,
    }
    drawn = bootstrap(columns, clusters, draws, seed)
    kl, same = drawn.ratio("kl", "tokens"), drawn.ratio("same", "tokens")
    return {
        "nats_per_token": kl.as_dict() if kl else None,
        "same_first": same.as_dict() if same else None,
        "tokens": sum(lengths),
        "top": TOP,
    }


def coarse_kl(p: Likelihood, q: Likelihood) -> tuple[list[float], int]:
    """(KL of each token over the ids both rank, the rest as one; tokens whose likeliest id is the same)."""
    values, same = [], 0
    for p_ids, p_logs, q_ids, q_logs in zip(
        p.top_ids_TK.tolist(),
        p.top_logprobs_TK.tolist(),
        q.top_ids_TK.tolist(),
        q.top_logprobs_TK.tolist(),
        strict=True,
    ):
        theirs = dict(zip(q_ids, q_logs, strict=True))
        shared = [(log, theirs[token]) for token, log in zip(p_ids, p_logs, strict=True) if token in theirs]
        total = sum(math.exp(a) * (a - b) for a, b in shared)
        p_rest = max(1e-9, 1 - sum(math.exp(a) for a, _ in shared))
        q_rest = max(1e-9, 1 - sum(math.exp(b) for _, b in shared))
        values.append(max(0.0, total + p_rest * math.log(p_rest / q_rest)))
        same += p_ids[0] == q_ids[0]
    return values, same
