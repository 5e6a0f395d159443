"""A local causal model that answers batches: one shared prefix, exact choices, per-token log-probabilities.

The tokens that all prompts of a batch begin with are computed once, kept, and reused by later batches. Rows are
padded on the left, so the last position is every row's newest token.

Shapes: B rows, T tokens of the padded rows, S keys (shared prefix + T), N tokens of all choices together,
V vocabulary, K top-k.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from distill import models
from distill.providers._cache import growing
from distill.records import Sampling, canonical_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import torch
    from numpy.typing import NDArray

SHORTEST_PREFIX = 8
WORTH_EXTENDING = 32
LOGIT_BYTES = 1 << 29
"""Logits that may exist at the same time."""
KEPT_BYTES = 1 << 25
"""Keys and values of one pass over choices on a processor, where more rows at once save no time."""


class Scored(NamedTuple):
    """One answer under the model: its token ids [T], the K most likely ids [T, K] and log-probabilities [T, K]."""

    token_ids_T: NDArray[np.int32]
    top_ids_TK: NDArray[np.int32]
    top_logprobs_TK: NDArray[np.float32]


class Likelihood(NamedTuple):
    """A given answer: the log-probability of each token [T], the K likeliest ids and their log-probabilities [T, K]."""

    logprobs_T: list[float]
    top_ids_TK: NDArray[np.int32]
    top_logprobs_TK: NDArray[np.float32]


@dataclass
class Row:
    """One prompt to continue, and what has come out so far."""

    ids: list[int]
    sampling: Sampling = field(default_factory=Sampling)
    top: int = 0
    seed: int = 0
    choices: tuple[str, ...] = ()
    """The answer must be one of these texts (empty = free)."""
    tokens: list[int] = field(default_factory=list)
    """Answer tokens, the one that ended the turn included."""
    logprobs: list[float] = field(default_factory=list)
    tops: list[list[tuple[int, float]]] = field(default_factory=list)
    text: str = ""
    finish: str = ""
    cached: int = 0
    random: Any = None
    first_at: float | None = None
    last_at: float | None = None
    """When its tokens came, on the monotonic clock."""


def row_seed(sampling_seed: int, sample: int, messages: Sequence[Any]) -> int:
    """A seed of this request alone, so that a sample does not depend on the batch it was drawn in."""
    text = canonical_json([sampling_seed, sample, [[m.role, m.content] for m in messages]])
    return int.from_bytes(hashlib.sha256(text).digest()[:7], "big")


def _same(left: Sequence[int], right: Sequence[int]) -> int:
    """How many leading tokens are equal."""
    return next((n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


class Engine:
    """A loaded model, its tokenizer, and the prefix it keeps."""

    def __init__(self, model: Any, tokenizer: Any, end_ids: Sequence[int]):
        from transformers.cache_utils import DynamicCache, DynamicLayer

        self.model = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.tokenizer = tokenizer
        self.end = end_ids[0]
        stated = self.model.generation_config.eos_token_id
        self.stop_ids = {*end_ids, *(stated if isinstance(stated, list) else [] if stated is None else [stated])}
        self.device = next(self.model.parameters()).device
        self.dtype = models.compute_dtype(self.model)
        text_config = self.model.config.get_text_config()
        self.vocab = int(text_config.vocab_size)
        self.longest = int(getattr(text_config, "max_position_embeddings", 0) or 1 << 30)
        # Only a plain growing cache can be cut, shared and branched; windows and recurrences cannot.
        layers = DynamicCache(config=self.model.config).layers
        self.plain = bool(layers) and all(type(layer) is DynamicLayer for layer in layers)
        self.cancelled = False
        self._prefix: list[int] = []
        self._keys_values: list[tuple[torch.Tensor, torch.Tensor]] = []

    def rows_at_once(self, length: int) -> int:
        """How many rows of ``length`` tokens one pass over choices may hold; as many as asked on an accelerator."""
        if self.device.type != "cpu":
            return 1 << 20
        config = self.model.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        token = 2 * config.num_hidden_layers * heads * width * self.dtype.itemsize
        return max(1, KEPT_BYTES // (token * length))

    # -- the shared prefix ------------------------------------------------------------------------------------

    def share(self, rows: Sequence[Sequence[int]], limit: int) -> int:
        """How many leading tokens of all ``rows`` (at most ``limit``) are in the kept cache; extends it if worth it."""
        if not self.plain:
            return 0
        first, last = min(map(list, rows)), max(map(list, rows))  # in dictionary order: the two least alike
        common = first[: min(limit, _same(first, last))]
        have = _same(self._prefix, common)
        worth = have < SHORTEST_PREFIX if len(rows) == 1 else len(common) - have >= WORTH_EXTENDING
        if worth and len(common) >= SHORTEST_PREFIX:
            self._extend(common, have)
            have = len(common)
        return have if have >= SHORTEST_PREFIX else 0

    def _extend(self, prefix: list[int], have: int) -> None:
        import torch

        cache = self.kept_cache(have, 1)
        ids = torch.tensor([prefix[have:]], device=self.device)
        with torch.inference_mode():
            self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        self._keys_values = [(layer.keys, layer.values) for layer in cache.layers]
        self._prefix = list(prefix)

    def kept_cache(self, shared: int, rows: int, length: int = 0) -> Any:
        """A new cache that holds the first ``shared`` tokens for each of ``rows`` rows.

        With ``length``, the positions of the prompts, it is one that grows in place by single tokens.
        """
        from transformers.cache_utils import DynamicCache

        config = self.model.config
        cache = growing(config, length) if self.plain and length else DynamicCache(config=config)
        for number, (keys, values) in enumerate(self._keys_values if shared else []):
            cache.update(
                keys[:, :, :shared].expand(rows, -1, -1, -1), values[:, :, :shared].expand(rows, -1, -1, -1), number
            )
        return cache

    def pad(self, rows: Sequence[Sequence[int]], shared: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids [B, T] without the shared prefix, padded on the left, and the mask [B, S] of real tokens."""
        import torch

        width = max(len(row) for row in rows) - shared
        ids_BT = torch.full((len(rows), width), self.end)
        mask_BS = torch.ones((len(rows), shared + width), dtype=torch.long)
        for number, row in enumerate(rows):
            own = torch.tensor(row[shared:])
            ids_BT[number, width - len(own) :] = own
            mask_BS[number, shared : shared + width - len(own)] = 0
        return ids_BT.to(self.device), mask_BS.to(self.device)

    def prompts(self, rows: Sequence[Row]) -> tuple[int, torch.Tensor, torch.Tensor]:
        """(length of the shared prefix, ids [B, T], mask [B, S]) of the prompts; notes on each row what was shared."""
        prompts = [row.ids for row in rows]
        shared = self.share(prompts, min(map(len, prompts)) - 1)
        for row in rows:
            row.cached = shared
        return shared, *self.pad(prompts, shared)

    def forward(self, ids_BT: torch.Tensor, mask_BS: torch.Tensor, cache: Any, keep: int) -> torch.Tensor:
        """Logits of the last ``keep`` positions; the cache grows by T."""
        logits: torch.Tensor = self.model(
            input_ids=ids_BT,
            attention_mask=mask_BS,
            position_ids=(mask_BS.cumsum(-1) - 1).clamp(min=0)[:, -ids_BT.shape[1] :],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=keep,
        ).logits
        return logits

    # -- free text --------------------------------------------------------------------------------------------

    def generate(self, rows: Sequence[Row]) -> None:
        """Fill in tokens, text and finish of each row: greedy, or sampled with the row's own seed."""
        import torch

        shared, ids_BT, mask_BS = self.prompts(rows)
        cache = self.kept_cache(shared, len(rows), mask_BS.shape[1])
        alive = list(rows)
        with torch.inference_mode():
            while alive and not self.cancelled:
                logits_BV = self.forward(ids_BT, mask_BS, cache, 1)[:, -1]
                best_B = logits_BV.argmax(-1).tolist()
                for number, row in enumerate(alive):
                    self._take(row, logits_BV[number], best_B[number])
                going = [number for number, row in enumerate(alive) if not row.finish]
                ids_BT = torch.tensor([[row.tokens[-1]] for row in alive], device=self.device)
                mask_BS = torch.cat([mask_BS, mask_BS.new_ones((len(alive), 1))], dim=-1)
                if len(going) < len(alive):
                    chosen = torch.tensor(going, device=self.device, dtype=torch.long)
                    ids_BT, mask_BS, alive = ids_BT[chosen], mask_BS[chosen], [alive[n] for n in going]
                    if alive:
                        cache.batch_select_indices(chosen)

    def _take(self, row: Row, logits_V: torch.Tensor, best: int) -> None:
        """Add one token to ``row`` and see whether that ends it."""
        token = best if row.sampling.temperature == 0 else self._draw(row, logits_V)
        row.tokens.append(token)
        row.last_at = time.monotonic()
        row.first_at = row.first_at or row.last_at
        if row.top:
            logprobs_V = logits_V.float().log_softmax(-1)
            values_K, ids_K = logprobs_V.topk(min(row.top, logprobs_V.shape[-1]))
            row.logprobs.append(float(logprobs_V[token]))
            row.tops.append(list(zip(ids_K.tolist(), values_K.tolist(), strict=True)))
        if token in self.stop_ids:
            row.finish = "stop"
            row.text = self._decode(row.tokens[:-1])
            return
        if row.sampling.stop:
            text = self._decode(row.tokens)
            places = [place for stop in row.sampling.stop if (place := text.find(stop)) >= 0]
            if places:
                row.finish, row.text = "stop", text[: min(places)]
                return
        if len(row.tokens) >= min(row.sampling.max_new_tokens, self.longest - len(row.ids)):
            row.finish, row.text = "length", self._decode(row.tokens)

    def _draw(self, row: Row, logits_V: torch.Tensor) -> int:
        """One token from the nucleus of the tempered distribution (Holtzman et al. 2020)."""
        import torch

        if row.random is None:
            row.random = torch.Generator().manual_seed(row.seed)
        probs_V, ids_V = (logits_V.float().cpu() / row.sampling.temperature).softmax(-1).sort(descending=True)
        before_V = probs_V.cumsum(-1) - probs_V
        probs_V[before_V >= row.sampling.top_p] = 0
        return int(ids_V[torch.multinomial(probs_V, 1, generator=row.random)])

    def _decode(self, tokens: Sequence[int]) -> str:
        text = self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    # -- given answers ----------------------------------------------------------------------------------------

    def score(self, pairs: Sequence[tuple[list[int], list[int]]], k: int) -> list[Scored]:
        """The K most likely tokens at every position of each (context, answer) pair's answer."""
        import numpy as np

        order = sorted(range(len(pairs)), key=lambda n: len(pairs[n][0]) + len(pairs[n][1]))
        found: dict[int, Scored] = {}
        start = 0
        while start < len(order):
            count = self._fitting([len(pairs[n][1]) for n in order[start:]])
            batch = order[start : start + count]
            for n, (_, ids, values) in zip(batch, self.answers([pairs[n] for n in batch], k), strict=True):
                found[n] = Scored(np.array(pairs[n][1], dtype=np.int32), ids, values)
            start += count
        return [found[n] for n in range(len(pairs))]

    def _fitting(self, lengths: Sequence[int], most: int = 16) -> int:
        """How many of the next answers may share a forward pass without too many logits."""
        width = 0
        for count, length in enumerate(lengths[:most], start=1):
            width = max(width, length)
            if count > 1 and count * width * self.vocab * 4 > LOGIT_BYTES:
                return count - 1
        return min(len(lengths), most)

    def answers(self, pairs: Sequence[tuple[list[int], list[int]]], k: int) -> list[tuple[list[float], Any, Any]]:
        """Per pair: log-probability of each answer token, top ids [T, K], top log-probabilities [T, K]."""
        import torch

        rows = [[*context, *answer[:-1]] for context, answer in pairs]
        keep = max(len(answer) for _, answer in pairs)
        shared = self.share(rows, min(len(context) for context, _ in pairs) - 1)
        ids_BT, mask_BS = self.pad(rows, shared)
        with torch.inference_mode():
            logits_BTV = self.forward(ids_BT, mask_BS, self.kept_cache(shared, len(rows)), keep)
        results = []
        for (_, answer), logits_TV in zip(pairs, logits_BTV, strict=True):
            logprobs_TV = logits_TV[-len(answer) :].float().log_softmax(-1)
            values_TK, top_TK = logprobs_TV.topk(min(k, self.vocab), dim=-1)
            taken_T = logprobs_TV.gather(-1, torch.tensor(answer, device=self.device)[:, None])[:, 0]
            results.append((taken_T.tolist(), top_TK.int().cpu().numpy(), values_TK.cpu().numpy()))
        return results
