"""The teacher's log-probabilities on disk: one writer, one reader, for top-k and for sampled targets.

::

    signals/
      manifest.json     what they are (:class:`About`), and for each shard its SHA-256, keys and tokens
      shard-00000.bin   header (JSON) + one fixed-size row per answer token (distill.signal_codec)

A row holds the answer's token, K vocabulary ids, and the K values: for ``topk`` log-probabilities (the first exact,
the others within a stated bound), for ``sampled`` how often each id was drawn (exact; Anshumali et al. 2025, "Sparse
Logit Sampling": count / draws is an unbiased estimate of the distribution, a renormalised top-k is not).

Shapes: T answer tokens, K entries, V vocabulary.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from distill import artifacts, signal_codec
from distill.errors import DataError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

SCHEMA = 1
SHARD_TOKENS = 100_000
FLUSH_S = 30.0


@dataclass(frozen=True, slots=True, eq=False)
class Signal:
    """One answer: its token ids [T] int32, and per token K ids [T, K] int32 with log-probabilities [T, K] float32.

    Entries are sorted, the most likely first. An entry with log-probability -inf is padding.
    """

    token_ids_T: NDArray[np.int32]
    top_ids_TK: NDArray[np.int32]
    top_logprobs_TK: NDArray[np.float32]

    def retained(self) -> NDArray[np.float32]:
        """The probability that the K entries hold together, per token [T]; the rest is the tail's."""
        import numpy as np

        return np.minimum(np.exp(self.top_logprobs_TK).sum(-1), np.float32(1))


@dataclass(frozen=True)
class About:
    """What the signals are. A reader compares it with what it needs; a writer refuses to mix two kinds."""

    teacher: dict[str, Any]
    """The provider's identity."""
    tokenizer: str
    """Fingerprint of the tokenizer that the ids belong to (`distill.models.tokenizer_fingerprint`)."""
    vocab: int
    """V: every id is below it."""
    k: int
    """Entries per token."""
    kind: Literal["topk", "sampled"] = "topk"
    """`topk`: the k most likely. `sampled`: `draws` ids drawn from the whole distribution, k distinct at most."""
    temperature: float = 1.0
    """Applied to the logits before truncation or drawing."""
    draws: int = 0
    """Draws per token of `sampled`."""
    vocabulary: tuple[str, ...] = field(default=(), repr=False)
    """Set when the teacher names tokens by their text: id i stands for vocabulary[i]."""


class SignalWriter:
    """Appends answers to ``folder``; what earlier processes wrote is kept: ``key in writer`` says so.

    A shard is written when it holds ``shard_tokens`` or is ``FLUSH_S`` old; a kill loses at most the unfinished one.
    ``finish(keys)`` then lays the shards out anew, so that the bytes depend on the signals and not on the kills.
    Raises IntegrityError when the folder holds signals of another kind.
    """

    def __init__(self, folder: Path, about: About, shard_tokens: int = SHARD_TOKENS):
        self.folder, self.about, self.shard_tokens = folder, about, shard_tokens
        self._codec = signal_codec.Codec(about.k, about.vocab, about.draws if about.kind == "sampled" else 0)
        self._pending: dict[str, bytes] = {}
        self._tokens, self._flushed = 0, time.monotonic()
        self._shards: list[dict[str, Any]] = []
        manifest = _manifest(folder)
        if manifest is not None:
            if manifest["about"] != _plain(about):
                raise IntegrityError(
                    "these signals come from another teacher or other settings",
                    where=str(folder),
                    next=f"rm -r {folder}",
                )
            self._shards = manifest["shards"]
        self._keys = {key for shard in self._shards for key in shard["keys"]}

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: str, signal: Any) -> None:
        """Store what has a :class:`Signal`'s arrays; a key that is there is left alone. DataError on bad numbers."""
        if key in self._keys:
            return
        rows = self._codec.encode(signal.token_ids_T, signal.top_ids_TK, signal.top_logprobs_TK)
        self._pending[key] = rows.tobytes()
        self._keys.add(key)
        self._tokens += len(rows)
        if self._tokens >= self.shard_tokens or time.monotonic() - self._flushed > FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Write what is pending as one shard, then the manifest that names it."""
        if self._pending:
            self._shards.append(_write_shard(self.folder, len(self._shards), self._pending, self._codec.row_bytes))
            artifacts.write_bytes(self.folder / "manifest.json", _dump(self.about, self._shards))
        self._pending, self._tokens, self._flushed = {}, 0, time.monotonic()

    def finish(self, keys: Sequence[str]) -> None:
        """Make the folder hold exactly ``keys``, in this order, in full shards. DataError when one is missing."""
        self.flush()
        reader = SignalReader(self.folder) if self._shards else None
        shards: list[dict[str, Any]] = []
        with artifacts.new_folder(self.folder) as folder:
            part: dict[str, bytes] = {}
            tokens = 0
            for key in dict.fromkeys(keys):
                part[key] = reader.rows(key).tobytes() if reader else b""
                tokens += len(part[key]) // self._codec.row_bytes
                if tokens >= self.shard_tokens:
                    shards.append(_write_shard(folder, len(shards), part, self._codec.row_bytes))
                    part, tokens = {}, 0
            if part:
                shards.append(_write_shard(folder, len(shards), part, self._codec.row_bytes))
            artifacts.write_bytes(folder / "manifest.json", _dump(self.about, shards))
        self._shards = shards


class SignalReader:
    """``reader[request_key] -> Signal``. A shard's SHA-256 is checked the first time it is used."""

    def __init__(self, folder: Path):
        manifest = _manifest(folder)
        if manifest is None:
            raise DataError(
                "there are no teacher signals",
                where=str(folder),
                next="set generate.signals_top_k, then distill generate",
            )
        self.folder = folder
        about = manifest["about"]
        self.about = About(**{**about, "vocabulary": tuple(about["vocabulary"])})
        draws = self.about.draws if self.about.kind == "sampled" else 0
        self._codec = signal_codec.Codec(self.about.k, self.about.vocab, draws)
        self._place: dict[str, tuple[int, int, int]] = {}
        self._shards = manifest["shards"]
        for number, shard in enumerate(self._shards):
            first = 0
            for key, tokens in zip(shard["keys"], shard["tokens"], strict=True):
                self._place[key] = (number, first, tokens)
                first += tokens
        self._open: dict[int, NDArray[np.uint8]] = {}

    def __len__(self) -> int:
        return len(self._place)

    def __contains__(self, key: str) -> bool:
        return key in self._place

    def __iter__(self) -> Iterator[str]:
        return iter(self._place)

    def __getitem__(self, key: str) -> Signal:
        return Signal(*self._codec.decode(self.rows(key)))

    def rows(self, key: str) -> NDArray[np.uint8]:
        """The encoded rows [T, bytes] of an answer."""
        if key not in self._place:
            raise DataError(
                f"no teacher signal for the answer {key[:12]}...", where=str(self.folder), next="distill generate"
            )
        number, first, tokens = self._place[key]
        return self._rows(number)[first : first + tokens]

    def tokens(self) -> int:
        """Answer tokens in all shards."""
        return sum(sum(shard["tokens"]) for shard in self._shards)

    def _rows(self, number: int) -> NDArray[np.uint8]:
        import numpy as np

        if number not in self._open:
            shard = self._shards[number]
            path, width = self.folder / shard["file"], self._codec.row_bytes
            size = sum(shard["tokens"]) * width
            if not path.is_file() or path.stat().st_size != size or artifacts.sha256_file(path) != shard["sha256"]:
                raise IntegrityError(
                    "a signal shard is missing or damaged",
                    where=str(path),
                    safe="run.db",
                    next=f"rm -r {self.folder}, then distill generate",
                )
            empty = np.zeros((0, width), np.uint8)
            self._open[number] = np.memmap(path, np.uint8, "r", shape=(size // width, width)) if size else empty
        return self._open[number]


def same(folder: Path, about: About) -> bool:
    """True when ``folder`` holds signals described by ``about``, or none."""
    manifest = _manifest(folder)
    return manifest is None or manifest["about"] == _plain(about)


def _write_shard(folder: Path, number: int, rows: dict[str, bytes], width: int) -> dict[str, Any]:
    """Write one shard; its entry of the manifest."""
    body = b"".join(rows.values())
    name = f"shard-{number:05d}.bin"
    artifacts.write_bytes(folder / name, body)
    counts = [len(part) // width for part in rows.values()]
    return {"file": name, "sha256": hashlib.sha256(body).hexdigest(), "keys": list(rows), "tokens": counts}


def _plain(about: About) -> dict[str, Any]:
    return dict(json.loads(json.dumps(asdict(about))))


def _dump(about: About, shards: list[dict[str, Any]]) -> bytes:
    value = {"schema": SCHEMA, "about": _plain(about), "shards": shards}
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False).encode("utf-8")


def _manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest, or None when nothing was written. Raises IntegrityError when it cannot be read."""
    path = folder / "manifest.json"
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        try:
            manifest = json.loads(path.read_bytes())
            if manifest["schema"] == SCHEMA and isinstance(manifest["shards"], list):
                return dict(manifest)
        except (ValueError, KeyError, TypeError):
            pass
        raise IntegrityError(
            "the signals' manifest is damaged or of another version", where=str(path), next=f"rm -r {folder}"
        )
    return None
