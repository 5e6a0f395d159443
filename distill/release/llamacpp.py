"""llama.cpp through its Python package: its own quantiser, and a GGUF file asked as a client would ask it.

Shapes: T token positions, V vocabulary.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from distill.errors import IntegrityError, MissingDependency

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def library(needed_by: str) -> Any:
    """The module `llama_cpp`, silent. Raises MissingDependency."""
    try:
        import llama_cpp
    except ImportError:
        raise MissingDependency("llama-cpp-python", needed_by, "llamacpp") from None
    logging.getLogger("llama-cpp-python").setLevel(logging.CRITICAL)
    return llama_cpp


def quantise(source: Path, target: Path, precision: str) -> None:
    """Write ``target`` from the F16 file ``source`` by llama.cpp's quantiser; ``precision`` is `q4_k_m`."""
    cpp = library(f"a GGUF file in {precision}")
    settings = cpp.llama_model_quantize_default_params()
    settings.ftype = {"q4_k_m": cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M}[precision]
    settings.nthread = len(os.sched_getaffinity(0))
    if cpp.llama_model_quantize(str(source).encode(), str(target).encode(), settings):
        raise IntegrityError("llama.cpp could not quantise the file", where=source.name)


class Engine:
    """A GGUF file opened by llama.cpp, as its server opens it: default cache, greedy choice."""

    def __init__(self, path: Path, context: int):
        self.cpp = library("a GGUF file judged by llama.cpp")
        try:
            self.model = self.cpp.Llama(
                str(path), n_ctx=context, n_threads=len(os.sched_getaffinity(0)), n_gpu_layers=0, verbose=False
            )
        except (ValueError, RuntimeError) as error:
            raise IntegrityError(f"llama.cpp does not open it: {str(error)[:120]}", where=path.name) from None
        self.context = context

    def read(self, text: str) -> list[int]:
        """Token ids of ``text`` by the file's own tokenizer; marks such as <|im_end|> are read as what they are."""
        return list(self.model.tokenize(text.encode("utf-8"), add_bos=False, special=True))

    def logits(self, ids: Sequence[int], positions: int) -> Any:
        """Float32 logits [T, V] after each of the last ``positions`` tokens."""
        import torch

        start = len(ids) - positions + 1
        self.model.reset()
        rows = []
        for part in (ids[:start], *([token] for token in ids[start:])):
            self.model.eval(part)
            rows.append(self._last())
        return torch.stack(rows)

    def answer(self, ids: Sequence[int], ends: Sequence[int], limit: int) -> str:
        """The greedy answer: up to ``limit`` tokens, cut where a token of ``ends`` stands."""
        self.model.reset()
        said: list[int] = []
        step = list(ids)
        while len(said) < limit and len(ids) + len(said) < self.context:
            self.model.eval(step)
            token = int(self._last().argmax())
            if token in ends:
                break
            said.append(token)
            step = [token]
        return str(self.model.detokenize(said).decode("utf-8", "replace"))

    def close(self) -> None:
        """Free the weights."""
        self.model.close()

    def _last(self) -> Any:
        import numpy as np
        import torch

        pointer = self.cpp.llama_get_logits_ith(self.model.ctx, -1)
        return torch.from_numpy(np.ctypeslib.as_array(pointer, shape=(self.model.n_vocab(),)).copy())
