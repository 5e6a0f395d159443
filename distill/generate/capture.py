"""The teacher's log-probabilities of the kept answers, into signals/.

Two sources. A provider that holds the weights has ``score_tokens(items, k)``: it scores finished answers, with its
own token ids. An endpoint sends ``top_logprobs`` with the answer: tokens are named by their text, so the ids are
places in the signals' own vocabulary.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import shutil
import signal
from typing import TYPE_CHECKING, Any, Literal

from distill import signals
from distill.errors import ConfigError, DataError, Interrupted, Preempted
from distill.progress import progress, say
from distill.signal_draws import draw

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from distill.artifacts import RunFolder
    from distill.config import RunConfig
    from distill.providers._base import Provider
    from distill.records import Completion, Message, TopLogprobs

    Kept = tuple[str, tuple[Message, ...], str, Completion]


ENDINGS = {signal.SIGTERM: Preempted, signal.SIGINT: Interrupted}


def require(provider: Provider, k: int, kind: str) -> None:
    """Refuse, before anything is asked, signals that this teacher cannot give. Raises ConfigError."""
    if k and kind == "sampled" and not hasattr(provider, "score_tokens"):
        raise ConfigError(
            "generate.signals_kind: sampled needs the whole distribution, which only a local teacher gives",
            next="set generate.signals_kind: topk, or use a local teacher",
        )
    if k and not hasattr(provider, "score_tokens") and provider.capabilities.top_logprobs < k:
        most = provider.capabilities.top_logprobs
        able = f"at most {most} log-probabilities per token" if most else "no log-probabilities"
        raise ConfigError(
            f"generate.signals_top_k is {k}, but this teacher returns {able}",
            next=f"set generate.signals_top_k to {most or 0}, or use a local teacher",
        )


def top_logprobs(provider: Provider, k: int) -> int:
    """How many log-probabilities to ask for with the answer: none when finished answers can be scored."""
    return 0 if hasattr(provider, "score_tokens") else k


def write(provider: Provider, config: RunConfig, folder: RunFolder, kept: Sequence[Kept]) -> list[Path]:
    """Store the signal of each kept answer that has none yet; the folder."""
    k = config.generate.signals_top_k
    unique = list({item[0]: item for item in kept}.values())
    if hasattr(provider, "score_tokens"):
        _scored(provider, folder.signals, k, config.generate.signals_kind, unique)
    else:
        _received(provider, folder.signals, k, unique)
    return [folder.signals]


def _writer(folder: Path, about: signals.About) -> signals.SignalWriter:
    if not signals.same(folder, about):
        say("generate: the stored signals are of another teacher or setting; they are made anew")
        shutil.rmtree(folder)
    return signals.SignalWriter(folder, about)


def _scored(provider: Any, folder: Path, k: int, kind: Literal["topk", "sampled"], kept: Sequence[Kept]) -> None:
    """Signals of finished answers, scored by the teacher in batches."""
    vocab, sampled = provider.vocab, kind == "sampled"
    about = signals.About(
        provider.identity(), provider.tokenizer_fingerprint, vocab, min(k, vocab), kind, draws=k if sampled else 0
    )
    writer = _writer(folder, about)
    missing = [item for item in kept if item[0] not in writer]
    size = 1 if sampled else provider.batch_size  # a whole distribution is large: one answer at a time
    with progress("signals", len(kept), "answers") as bar, _stopping() as heard:
        bar.resume_at(len(kept) - len(missing))
        for start in range(0, len(missing), size):
            batch = missing[start : start + size]
            items = [(messages, answer) for _, messages, answer, _ in batch]
            found = provider.score_tokens(items, vocab if sampled else about.k)
            for (key, *_), scored in zip(batch, found, strict=True):
                writer.add(key, _drawn(scored, k, key) if sampled else scored)
            bar.advance(len(batch))
            if heard:
                writer.flush()
                raise ENDINGS[heard[0]](
                    f"stopped by {heard[0].name}",
                    safe=f"every answer, and {len(writer)} of {len(kept)} signals",
                    next="run the same command again",
                )
    writer.finish([key for key, *_ in kept])


@contextlib.contextmanager
def _stopping() -> Iterator[list[signal.Signals]]:
    """The stop signals heard so far: the first lets the batch end, a second one leaves at once (main thread only)."""
    heard: list[signal.Signals] = []

    def note(number: int, _: object) -> None:
        if heard:
            raise KeyboardInterrupt
        heard.append(signal.Signals(number))

    before: dict[signal.Signals, Any] = {}
    try:
        for number in ENDINGS:
            with contextlib.suppress(ValueError):
                before[number] = signal.signal(number, note)
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _drawn(whole: Any, draws: int, key: str) -> signals.Signal:
    """``draws`` draws per token from the whole distribution; the seed is the answer's own."""
    import numpy as np

    places_TK, logprobs_TK = draw(whole.top_logprobs_TK, draws, int(key[:15], 16))
    ids_TK = np.take_along_axis(whole.top_ids_TK, np.maximum(places_TK, 0), 1)
    return signals.Signal(whole.token_ids_T, ids_TK, logprobs_TK)


def _received(provider: Provider, folder: Path, k: int, kept: Sequence[Kept]) -> None:
    """Signals that came with the answers. Raises DataError when an answer has none."""
    if lacking := [key for key, *_, completion in kept if completion.logprobs is None]:
        raise DataError(
            f"{len(lacking)} of {len(kept)} answers came without usable log-probabilities (first: {lacking[0][:12]})",
            next="set generate.signals_top_k: 0",
        )
    sources = [(key, completion.logprobs) for key, *_, completion in kept if completion.logprobs is not None]
    words = sorted({word for _, source in sources for word in _words(source)})
    place = {word: number for number, word in enumerate(words)}
    # Unused names fill a vocabulary smaller than k: padding needs ids of its own.
    about = signals.About(
        teacher=provider.identity(), tokenizer="text", vocab=len(words) + k + 1, k=k, vocabulary=tuple(words)
    )
    writer = _writer(folder, about)
    for key, source in sources:
        if key not in writer:
            writer.add(key, signals.Signal(*_arrays(source, place, k)))
    writer.finish([key for key, _ in sources])


def _words(source: TopLogprobs) -> set[str]:
    return set(source.tokens) | {word for alternatives in source.top for word, _ in alternatives}


def _arrays(source: TopLogprobs, place: dict[str, int], k: int) -> tuple[Any, Any, Any]:
    """(token ids [T], ids [T, K], log-probabilities [T, K]); a token without alternatives has itself only."""
    import numpy as np

    count = len(source.tokens)
    ids, logprobs = np.full((count, k), -1, np.int32), np.full((count, k), -np.inf, np.float32)
    tops = source.top or ((),) * count
    for row, (token, logprob, top) in enumerate(zip(source.tokens, source.logprobs, tops, strict=True)):
        # Two tokens can have the same text (a broken character): their probabilities are one entry's.
        found: dict[str, float] = {}
        for word, value in itertools.islice(top or ((token, logprob),), k):
            found[word] = _together(found[word], value) if word in found else value
        best = sorted(found.items(), key=lambda item: -item[1])
        ids[row, : len(best)] = [place[word] for word, _ in best]
        logprobs[row, : len(best)] = [min(0.0, value) for _, value in best]
    return np.array([place[token] for token in source.tokens], np.int32), ids, logprobs


def _together(first: float, second: float) -> float:
    """log(exp(first) + exp(second))."""
    return max(first, second) + math.log1p(math.exp(-abs(first - second)))
