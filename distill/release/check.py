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
    from distill.release.llamacpp import Engine
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


class Opened:
    """One form of the student, loaded: reads a probe and gives logits. ``engine`` in place of the library's model."""

    def __init__(self, model: Any, tokenizer: Any, engine: Engine | None = None):
        self.model, self.tokenizer, self.engine = model, tokenizer, engine

    def encode(self, probe: Probe) -> tuple[list[int], int]:
        """(token ids of prompt and answer, how many of the last positions predict the answer)."""
        from distill.models import encode_chat

        if self.engine is None:
            prompt = encode_chat(self.tokenizer, probe.messages)
            answer: list[int] = self.tokenizer.encode(probe.answer, add_special_tokens=False)[:POSITIONS]
        else:
            prompt = self.engine.read(rendered(self.tokenizer, probe.messages))
            answer = self.engine.read(probe.answer)[:POSITIONS]
        return (prompt + answer)[-MAX_TOKENS:], min(POSITIONS, len(answer) + 1)

    def logits(self, ids: list[int], positions: int) -> Any:
        """Float32 logits [T, V] of the last ``positions`` positions."""
        if self.engine is not None:
            return self.engine.logits(ids, positions)
        import torch

        with torch.inference_mode():
            tokens = torch.tensor([ids], device=self.model.device)
            return self.model(input_ids=tokens, logits_to_keep=positions).logits[0].float().cpu()

    def close(self) -> None:
        """Free the weights."""
        if self.engine is not None:
            self.engine.close()
        self.model = None
        gc.collect()


def rendered(tokenizer: Any, messages: Sequence[Message]) -> str:
    """The chat up to where the answer begins, as text: what an engine is given to read by itself."""
    turns = [{"role": m.role, "content": m.content} for m in messages]
    return str(tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))


class Reference:
    """The student as it was trained: base plus adapter. Its logits are computed once and kept for every target."""

    def __init__(self, job: Job, probes: Sequence[Probe]):
        from distill.models import load_causal_lm

        self.dtype = precision(job.weights)
        student = Opened(*load_causal_lm(job.weights, dtype=self.dtype, adapter=job.adapter))
        self.tokenizer = student.tokenizer
        self.probes = probes
        self.inputs = [student.encode(probe) for probe in probes]
        self.logits = [student.logits(*ids) for ids in self.inputs]
        student.close()

    def compare(self, kind: str, export: Export) -> Distance:
        """Load ``export`` back and measure. Raises GateFailed beyond its tolerance or when its tokens differ."""
        opened = self._open(export)
        try:
            worst, kl, same, positions = self._measure(kind, opened)
        finally:
            opened.close()
        tolerance = export.tolerance if self.dtype == "float32" else max(export.tolerance, COARSE)
        agreement = round(same / positions, 4)
        computed_in = self.dtype if export.engine is None else "llama.cpp"
        result = Distance(
            worst, max(kl, 0.0) / positions, agreement, len(self.probes), positions, tolerance, computed_in
        )
        if not worst <= tolerance:  # NaN fails too
            raise GateFailed(
                f"its logits are {worst:.3g} away from the student's, {tolerance:g} allowed",
                where=f"target {kind}",
                safe="the trained student",
            )
        return result

    def _measure(self, kind: str, opened: Opened) -> tuple[float, float, int, int]:
        """(worst distance, summed divergence, same top tokens, positions). Raises GateFailed for other tokens."""
        worst, kl, same, positions = 0.0, 0.0, 0, 0
        with progress(f"check {kind}", len(self.probes), "prompts") as bar:
            for probe, ids, ours_TV in zip(self.probes, self.inputs, self.logits, strict=True):
                if opened.encode(probe) != ids:
                    raise GateFailed(
                        "its tokenizer or chat template reads a prompt differently", where=f"target {kind}"
                    )
                theirs_TV = opened.logits(*ids)
                if theirs_TV.shape != ours_TV.shape:
                    raise GateFailed(f"vocabulary {theirs_TV.shape[1]}, not {ours_TV.shape[1]}", where=f"target {kind}")
                far, divergence, agree = _distance(ours_TV, theirs_TV)
                worst = max(worst, far)
                kl, same, positions = kl + divergence, same + agree, positions + len(ours_TV)
                bar.advance()
        return worst, kl, same, positions

    def _open(self, export: Export) -> Opened:
        if export.engine is not None:
            return Opened(None, self.tokenizer, export.engine(MAX_TOKENS + POSITIONS))
        assert export.load is not None
        return Opened(*export.load(self.dtype))


def _distance(ours_TV: Any, theirs_TV: Any) -> tuple[float, float, int]:
    ours_TV, theirs_TV = ours_TV.double(), theirs_TV.double()
    ours = ours_TV - ours_TV.mean(-1, keepdim=True)
    theirs = theirs_TV - theirs_TV.mean(-1, keepdim=True)
    far = (ours - theirs).norm(dim=-1) / ours.norm(dim=-1).clamp_min(1e-12)
    log_p, log_q = ours_TV.log_softmax(-1), theirs_TV.log_softmax(-1)
    kl = (log_p.exp() * (log_p - log_q)).sum()
    return float(far.max()), float(kl), int((ours.argmax(-1) == theirs.argmax(-1)).sum())
