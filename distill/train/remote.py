"""A teacher on a vLLM server of your own: it reads the student's very tokens and says what it would have said.

One completion request a row, with the row's token ids as the prompt and `prompt_logprobs`: scoring a text is one pass
over it, several times faster than writing it. No text is tokenized twice, so no position can be shifted; that an id
means the same text on both sides is proven before the first step (`check_server`).

What comes back are the k most likely tokens of each position and the one that stands there. The rest of the
distribution is one bucket, as for stored signals. Servers score at temperature 1 only.

Shapes: N completion positions, K candidates.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

from distill.errors import ConfigError, DataError, TeacherUnavailable
from distill.providers._base import NoAnswer
from distill.train.endpoint import Endpoint, told
from distill.train.objective import StoredTeacher
from distill.train.signal import FixedRows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from distill.train.batches import Batch, Row

PATH = "/completions"
SAME_TEXT = 0.98  # least share of the token texts that must agree; partial characters are written in several ways
LEAST = -1e4  # servers write minus infinity as a large number


class Remote(FixedRows):
    """A live teacher behind an OpenAI-compatible endpoint that returns `prompt_logprobs`.

    ``vocab``: ids from here on are padding of the teacher's vocabulary; what mass they have is the rest's.
    """

    def __init__(self, provider: Any, vocab: int):
        if provider.capabilities.paid:
            raise ConfigError(
                "the teacher of a live method is asked at every step, outside the run's budget: it must be a server "
                "of your own, without a price",
                next="train.method: sft, or offline_topk",
            )
        self.provider, self.k, self.vocab = provider, provider.config.top_logprobs, vocab
        self.endpoint = Endpoint(provider)

    def teacher(self, batch: Batch) -> StoredTeacher:
        """The k most likely tokens of each position and the token that stands there, with a bucket for the rest."""
        tops = [top for row in self.ask(batch.rows, self.k) for top in row]
        width = max(map(len, tops))
        ids, logprobs = zip(*(filled(top, width) for top in tops), strict=True)
        device = batch.labels_N.device
        return StoredTeacher(torch.tensor(ids, device=device), torch.tensor(logprobs, device=device))

    def chosen(self, batch: Batch) -> Tensor:
        """Log-probability [N] of the token that stands at each position."""
        tops = [top for row in self.ask(batch.rows, 0) for top in row]
        values = [top[label] for top, label in zip(tops, batch.labels_N.tolist(), strict=True)]
        return torch.tensor(values, device=batch.labels_N.device)

    def ask(self, rows: Sequence[Row], k: int) -> list[list[dict[int, float]]]:
        """For each row and completion position: token id -> log-probability. Raises TeacherUnavailable, DataError."""
        raws = self._scores(rows, k)
        return [self._read(raw, row) for raw, row in zip(raws, rows, strict=True)]

    def _scores(self, rows: Sequence[Row], k: int) -> list[bytes]:
        fixed = {"model": self.provider.config.model, "max_tokens": 1, "temperature": 0, "prompt_logprobs": k}
        try:
            return self.endpoint.post(PATH, [fixed | {"prompt": [*row.prompt, *row.completion]} for row in rows])
        except NoAnswer as error:
            raise TeacherUnavailable(
                f"the teacher's server does not score the answers: {told(error)}",
                where=self.provider.config.base_url,
                safe="the last checkpoint",
                next=f"look at the server, then the same command; it needs --max-logprobs of at least {self.k}",
            ) from None

    def _read(self, raw: bytes, row: Row) -> list[dict[int, float]]:
        """The scores of one row's completion positions."""
        positions = self._positions(raw, len(row))[len(row.prompt) :]
        for label, top in zip(row.completion, positions, strict=True):
            if label not in top:
                raise self._strange(f"row {row.id!r}: the score of token {label} is missing")
        return [{i: value[0] for i, value in top.items() if i < self.vocab} for top in positions]

    def _positions(self, raw: bytes, length: int) -> list[dict[int, tuple[float, str]]]:
        """For each token: id -> (log-probability, the server's text of it); the first token has none."""
        try:
            (choice,) = json.loads(raw)["choices"]
            found = [
                {int(i): (max(LEAST, float(v["logprob"])), str(v.get("decoded_token"))) for i, v in (top or {}).items()}
                for top in choice["prompt_logprobs"]
            ]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise self._strange("its answers hold no prompt_logprobs") from None
        if len(found) != length:
            raise self._strange(f"it scored {len(found)} of {length} tokens")
        return found

    def _strange(self, what: str) -> DataError:
        return DataError(
            f"the teacher's server cannot teach: {what}",
            where=self.provider.config.base_url,
            next="serve the teacher with vLLM, or use train.method: offline_topk",
        )

    def check_server(self, tokenizer: Any, rows: Sequence[Row]) -> None:
        """Proof that an id means the same text for server and student. Raises DataError naming the first that does not.

        Compared are all the tokens the server names at the positions of some rows.
        """
        raws = self._scores(rows, self.k)
        seen = {
            i: text
            for raw, row in zip(raws, rows, strict=True)
            for top in self._positions(raw, len(row))
            for i, (_, text) in top.items()
        }
        texts = {i: (text, own_text(tokenizer, i)) for i, text in seen.items()}
        whole = {i: pair for i, pair in texts.items() if "\ufffd" not in "".join(pair) and all(map(str.strip, pair))}
        other = {i: pair for i, pair in whole.items() if pair[0].strip() != pair[1].strip()}
        if not whole or len(other) > (1 - SAME_TEXT) * len(whole):
            example = next((f"{i} is {a!r} there and {b!r} here" for i, (a, b) in other.items()), "no token has a text")
            raise DataError(
                f"teacher and student have different tokenizers: of {len(whole)} token ids {len(other)} mean another "
                f"text, {example}",
                next="train.method: sft, or a student of the teacher's family",
            )


def own_text(tokenizer: Any, token: int) -> str:
    """The text of one token id; empty when there is no such id."""
    if token >= len(tokenizer):
        return ""
    return str(tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False))


def filled(top: dict[int, float], width: int) -> tuple[list[int], list[float]]:
    """Ids and log-probabilities of one position; entries that are missing get an unused id and no mass."""
    unused = (i for i in range(2 * width) if i not in top)
    spare = [next(unused) for _ in range(width - len(top))]
    return [*top, *spare], [*top.values(), *([float("-inf")] * len(spare))]
