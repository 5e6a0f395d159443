"""Is what a client would load the student that was evaluated? Logits of both on held-out prompts.

Shapes: T token positions of one prompt that are compared, V vocabulary.
"""

from __future__ import annotations

import gc
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from distill.errors import DataError, GateFailed
from distill.progress import progress
from distill.records import Message

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from distill.artifacts import RunFolder
    from distill.release.targets._base import Export, Job

PROMPTS = 32
POSITIONS = 8
MAX_TOKENS = 1024
COARSE = 6e-2
"""Tolerance where the machine's memory forces the comparison itself into bfloat16."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A held-out prompt and the teacher's answer to it."""

    messages: tuple[Message, ...]
    answer: str


@dataclass(frozen=True, slots=True)
class Distance:
    """How far the logits of an export are from the student's. ``worst`` is what the tolerance bounds."""

    worst: float
    """Largest norm of the difference over the norm of the student's logits, both centred, over all positions."""
    mean_kl_nats: float
    """Mean divergence of the export's next-token distribution from the student's."""
    top1_agreement: float
    """Share of the positions where both choose the same token."""
    prompts: int
    positions: int
    tolerance: float
    computed_in: str

    def as_json(self) -> dict[str, Any]:
        """The figures as bounds: rounded up to one digit, so that the order of a sum does not change a bundle."""
        values = asdict(self)
        return {**values, "worst": bound(self.worst, 1e-5), "mean_kl_nats": bound(self.mean_kl_nats, 1e-9)}


def bound(value: float, least: float) -> float:
    """The next number of one significant digit that is not below ``value``, and at least ``least``; 0 stays 0."""
    if value == 0:
        return 0.0
    scale = 10.0 ** math.floor(math.log10(max(value, least)))
    return float(f"{math.ceil(max(value, least) / scale * (1 - 1e-9)) * scale:.1g}")


def probes(folder: RunFolder) -> list[Probe]:
    """The first held-out rows of the run, or of the training rows when nothing was held out."""
    for path in (folder.holdout_data, folder.train_data):
        if path.is_file() and (found := _read(path)):
            return found
    raise DataError("no data rows to compare the weights on", where=str(folder.train_data.parent))


def _read(path: Path) -> list[Probe]:
    import pyarrow.parquet as pq

    rows = pq.read_table(path, columns=["id", "messages", "answer"]).to_pylist()
    rows.sort(key=lambda row: str(row["id"]))
    return [
        Probe(tuple(Message(m["role"], m["content"]) for m in row["messages"]), row["answer"] or "")
        for row in rows[:PROMPTS]
    ]


def precision(weights: Path) -> str:
    """`float32` when twice that fits in the free memory, else `auto`."""
    from distill.release import tensors

    need = 2 * 4 * sum(math.prod(t.shape) for t in tensors.read_index(weights).values())
    return "float32" if need < _free_memory() else "auto"


def _free_memory() -> int:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 8 << 30


class Reference:
    """The student as it was trained: base plus adapter. Its logits are computed once and kept for every target."""

    def __init__(self, job: Job, probes: Sequence[Probe]):
        from distill.models import load_causal_lm

        self.dtype = precision(job.weights)
        model, tokenizer = load_causal_lm(job.weights, dtype=self.dtype, adapter=job.adapter)
        self.probes = probes
        self.inputs = [_encode(tokenizer, probe) for probe in probes]
        self.logits = [_logits(model, *ids) for ids in self.inputs]
        del model
        gc.collect()

    def compare(self, kind: str, export: Export) -> Distance:
        """Load ``export`` back and measure. Raises GateFailed beyond its tolerance or when its tokens differ."""
        assert export.load is not None
        model, tokenizer = export.load(self.dtype)
        worst, kl, same, positions = 0.0, 0.0, 0, 0
        with progress(f"check {kind}", len(self.probes), "prompts") as bar:
            for probe, ids, ours_TV in zip(self.probes, self.inputs, self.logits, strict=True):
                if _encode(tokenizer, probe) != ids:
                    raise GateFailed(
                        "its tokenizer or chat template reads a prompt differently", where=f"target {kind}"
                    )
                theirs_TV = _logits(model, *ids)
                if theirs_TV.shape != ours_TV.shape:
                    raise GateFailed(f"vocabulary {theirs_TV.shape[1]}, not {ours_TV.shape[1]}", where=f"target {kind}")
                far, divergence, agree = _distance(ours_TV, theirs_TV)
                worst = max(worst, far)
                kl, same, positions = kl + divergence, same + agree, positions + len(ours_TV)
                bar.advance()
        del model
        gc.collect()
        tolerance = export.tolerance if self.dtype == "float32" else max(export.tolerance, COARSE)
        agreement = round(same / positions, 4)
        result = Distance(
            worst, max(kl, 0.0) / positions, agreement, len(self.probes), positions, tolerance, self.dtype
        )
        if not worst <= tolerance:  # NaN fails too
            raise GateFailed(
                f"its logits are {worst:.3g} away from the student's, {tolerance:g} allowed",
                where=f"target {kind}",
                safe="the trained student",
            )
        return result


def _encode(tokenizer: Any, probe: Probe) -> tuple[list[int], int]:
    """(token ids of prompt and answer, how many of the last positions predict the answer)."""
    from distill.models import encode_chat

    prompt = encode_chat(tokenizer, probe.messages)
    answer: list[int] = tokenizer.encode(probe.answer, add_special_tokens=False)[:POSITIONS]
    return (prompt + answer)[-MAX_TOKENS:], min(POSITIONS, len(answer) + 1)


def _logits(model: Any, ids: list[int], positions: int) -> Any:
    """Float32 logits [T, V] of the last ``positions`` positions."""
    import torch

    with torch.inference_mode():
        tokens = torch.tensor([ids], device=model.device)
        return model(input_ids=tokens, logits_to_keep=positions).logits[0].float().cpu()


def _distance(ours_TV: Any, theirs_TV: Any) -> tuple[float, float, int]:
    ours_TV, theirs_TV = ours_TV.double(), theirs_TV.double()
    ours = ours_TV - ours_TV.mean(-1, keepdim=True)
    theirs = theirs_TV - theirs_TV.mean(-1, keepdim=True)
    far = (ours - theirs).norm(dim=-1) / ours.norm(dim=-1).clamp_min(1e-12)
    log_p, log_q = ours_TV.log_softmax(-1), theirs_TV.log_softmax(-1)
    kl = (log_p.exp() * (log_p - log_q)).sum()
    return float(far.max()), float(kl), int((ours.argmax(-1) == theirs.argmax(-1)).sum())
