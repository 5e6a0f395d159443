"""The student's answers of a step, kept until no checkpoint needs them: a step that is taken again learns the same.

A file holds what one process drew for one step. Its key is everything that the answers depend on - weights, prompts,
seeds, settings -, so a file of another run, or of weights that a resumed run no longer has, is never used.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from distill import artifacts
from distill.progress import say
from distill.train.rollout_server import Drawn

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Spool:
    """Answers in ``folder``, beside the checkpoints in ``checkpoints``."""

    def __init__(self, folder: Path, checkpoints: Path):
        self.folder, self.checkpoints = folder, checkpoints

    def read(self, step: int, key: str) -> tuple[list[Drawn], float] | None:
        """(answers, what the sync before them measured); None when there are none or the file is damaged."""
        path = self._path(step, key)
        if not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                about = file.metadata()
                ids, logprobs, lengths = (file.get_tensor(name) for name in ("ids", "logprobs", "lengths"))
            good = about["key"] == key and about["sha256"] == _digest(ids, logprobs, lengths)
        except (OSError, SafetensorError, KeyError, TypeError):
            good = False
        if not good:
            say(f"train: {path.name} is damaged: the answers of step {step + 1} are drawn again")
            return None
        sizes = lengths.tolist()
        parts = zip(ids.split(sizes), logprobs.split(sizes), strict=True)
        return [Drawn(tuple(i.tolist()), tuple(p.tolist())) for i, p in parts], float(about["sync_error"])

    def write(self, step: int, key: str, drawn: Sequence[Drawn], sync_error: float) -> None:
        """Keep the answers of a step, and forget those of steps before the oldest checkpoint. Raises DiskProblem."""
        ids = torch.tensor([i for one in drawn for i in one.ids], dtype=torch.int32)
        logprobs = torch.tensor([p for one in drawn for p in one.logprobs], dtype=torch.float64)
        lengths = torch.tensor([len(one.ids) for one in drawn], dtype=torch.int64)
        about = {"key": key, "sha256": _digest(ids, logprobs, lengths), "sync_error": repr(sync_error)}
        tensors = {"ids": ids, "logprobs": logprobs, "lengths": lengths}
        artifacts.write_bytes(self._path(step, key), save(tensors, metadata=about))
        oldest = min((path.name for path in self.checkpoints.glob("step-*")), default="")
        for path in self.folder.glob("step-*.safetensors"):
            if path.name[: len(oldest)] < oldest:
                path.unlink(missing_ok=True)

    def _path(self, step: int, key: str) -> Path:
        return self.folder / f"step-{step:08d}-{key[:16]}.safetensors"


def _digest(*tensors: torch.Tensor) -> str:
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()
