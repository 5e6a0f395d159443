"""The teacher's log-probabilities on disk: one writer, one reader, for top-k and for sampled targets.

::

    signals/
      manifest.json     what they are (:class:`About`), and for each shard its SHA-256, keys and tokens
      shard-00000.bin   the answers, one behind the other

``topk``: one row of fixed size per answer token with the k most likely ids and their log-probabilities, the first
exact, the others within a stated bound (distill.signal_codec). ``sampled``: the ids that were drawn and how often,
exact and of as many entries as there are (distill.signal_draws).

Shapes: T answer tokens, K entries, V vocabulary.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from distill import artifacts, signal_codec, signal_draws
from distill.errors import DataError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

SCHEMA = 2
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
        self._form = _form(about)
        self._pending: dict[str, Part] = {}
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
        part = self._form.encode(signal)
        self._pending[key] = part
        self._keys.add(key)
        self._tokens += part.tokens
        if self._tokens >= self.shard_tokens or time.monotonic() - self._flushed > FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Write what is pending as one shard, then the manifest that names it."""
        if self._pending:
            self._shards.append(_write_shard(self.folder, len(self._shards), self._pending))
            artifacts.write_bytes(self.folder / "manifest.json", _dump(self.about, self._shards))
        self._pending, self._tokens, self._flushed = {}, 0, time.monotonic()

    def finish(self, keys: Sequence[str]) -> None:
        """Make the folder hold exactly ``keys``, in this order, in full shards. DataError when one is missing."""
        self.flush()
        reader = SignalReader(self.folder) if self._shards else None
        shards: list[dict[str, Any]] = []
        with artifacts.new_folder(self.folder) as folder:
            parts: dict[str, Part] = {}
            tokens = 0
            for key in dict.fromkeys(keys):
                parts[key] = reader.part(key) if reader else Part(b"", 0, 0)
                tokens += parts[key].tokens
                if tokens >= self.shard_tokens:
                    shards.append(_write_shard(folder, len(shards), parts))
                    parts, tokens = {}, 0
            if parts:
                shards.append(_write_shard(folder, len(shards), parts))
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
        self._form = _form(self.about)
        self._place: dict[str, tuple[int, int, int, int]] = {}
        self._shards = manifest["shards"]
        self._width = 1
        """K: entries of the token that has most."""
        for number, shard in enumerate(self._shards):
            first = 0
            for key, tokens, size, width in zip(
                *(shard[n] for n in ("keys", "tokens", "bytes", "widths")), strict=True
            ):
                self._place[key] = (number, first, tokens, size)
                self._width = max(self._width, width)
                first += size
        self._open: dict[int, NDArray[np.uint8]] = {}

    def __len__(self) -> int:
        return len(self._place)

    def __contains__(self, key: str) -> bool:
        return key in self._place

    def __iter__(self) -> Iterator[str]:
        return iter(self._place)

    def __getitem__(self, key: str) -> Signal:
        _, _, tokens, _ = self._found(key)
        return self._form.decode(self._bytes(key), tokens, self._width)

    def part(self, key: str) -> Part:
        """An answer as it is stored."""
        number, _, tokens, _ = self._found(key)
        shard = self._shards[number]
        return Part(self._bytes(key).tobytes(), tokens, shard["widths"][shard["keys"].index(key)])

    def _found(self, key: str) -> tuple[int, int, int, int]:
        if key not in self._place:
            raise DataError(
                f"no teacher signal for the answer {key[:12]}...", where=str(self.folder), next="distill generate"
            )
        return self._place[key]

    def tokens(self) -> int:
        """Answer tokens in all shards."""
        return sum(sum(shard["tokens"]) for shard in self._shards)

    def _bytes(self, key: str) -> NDArray[np.uint8]:
        import numpy as np

        number, first, _, length = self._found(key)
        if number not in self._open:
            shard = self._shards[number]
            path, size = self.folder / shard["file"], sum(shard["bytes"])
            if not path.is_file() or path.stat().st_size != size or artifacts.sha256_file(path) != shard["sha256"]:
                raise IntegrityError(
                    "a signal shard is missing or damaged",
                    where=str(path),
                    safe="run.db",
                    next=f"rm -r {self.folder}, then distill generate",
                )
            self._open[number] = np.memmap(path, np.uint8, "r", shape=(size,)) if size else np.zeros(0, np.uint8)
        return self._open[number][first : first + length]


# -- the two forms -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """One answer as it is stored: its bytes, its tokens, and the entries of the token that has most."""

    data: bytes
    tokens: int
    width: int


class _TopK:
    def __init__(self, about: About):
        self.codec = signal_codec.Codec(about.k, about.vocab)

    def encode(self, signal: Any) -> Part:
        rows = self.codec.encode(signal.token_ids_T, signal.top_ids_TK, signal.top_logprobs_TK)
        return Part(rows.tobytes(), len(rows), self.codec.k)

    def decode(self, data: NDArray[np.uint8], tokens: int, width: int) -> Signal:
        return Signal(*self.codec.decode(data.reshape(tokens, self.codec.row_bytes)))


class _Sampled:
    def __init__(self, about: About):
        self.codec = signal_draws.Counts(about.draws, about.vocab)

    def encode(self, signal: Any) -> Part:
        import numpy as np

        data = self.codec.encode(signal.token_ids_T, signal.top_ids_TK, signal.top_logprobs_TK)
        width = np.isfinite(signal.top_logprobs_TK).sum(1).max(initial=1)
        return Part(data.tobytes(), len(signal.token_ids_T), int(width))

    def decode(self, data: NDArray[np.uint8], tokens: int, width: int) -> Signal:
        return Signal(*self.codec.decode(data, tokens, width))


def _form(about: About) -> _TopK | _Sampled:
    return _Sampled(about) if about.kind == "sampled" else _TopK(about)


def same(folder: Path, about: About) -> bool:
    """True when ``folder`` holds signals described by ``about``, or none."""
    manifest = _manifest(folder)
    return manifest is None or manifest["about"] == _plain(about)


def _write_shard(folder: Path, number: int, parts: dict[str, Part]) -> dict[str, Any]:
    """Write one shard; its entry of the manifest."""
    body = b"".join(part.data for part in parts.values())
    name = f"shard-{number:05d}.bin"
    artifacts.write_bytes(folder / name, body)
    return {
        "file": name,
        "sha256": hashlib.sha256(body).hexdigest(),
        "keys": list(parts),
        "tokens": [part.tokens for part in parts.values()],
        "bytes": [len(part.data) for part in parts.values()],
        "widths": [part.width for part in parts.values()],
    }


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
            if manifest["schema"] == 1 and manifest["about"]["kind"] == "topk":
                manifest = _of_the_first_version(manifest)
            if manifest["schema"] == SCHEMA and isinstance(manifest["shards"], list):
                return dict(manifest)
        except (ValueError, KeyError, TypeError):
            pass
        raise IntegrityError(
            "the signals' manifest is damaged or of another version", where=str(path), next=f"rm -r {folder}"
        )
    return None


def _of_the_first_version(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest that left the size of an answer to its tokens: all rows of ``topk`` are of one size, then as now."""
    about = manifest["about"]
    size = signal_codec.Codec(about["k"], about["vocab"]).row_bytes
    shards = [
        shard | {"bytes": [size * tokens for tokens in shard["tokens"]], "widths": [about["k"]] * len(shard["tokens"])}
        for shard in manifest["shards"]
    ]
    return manifest | {"schema": SCHEMA, "shards": shards}
