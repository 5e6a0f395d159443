"""The teacher's log-probabilities: exact where it is promised, bounded elsewhere, unbiased when drawn."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.errors import DataError, IntegrityError
from distill.signal_codec import Codec
from distill.signal_draws import Counts, draw
from distill.signals import About, Signal, SignalReader, SignalWriter, same


def some_signal(seed: int, tokens: int, k: int, vocab: int, spread: float = 3.0) -> Signal:
    random = np.random.default_rng(seed)
    logits = random.normal(size=(tokens, vocab)).astype(np.float32) * spread
    logprobs = logits - np.log(np.exp(logits.astype(np.float64)).sum(1, keepdims=True)).astype(np.float32)
    ids = np.argsort(-logprobs, 1, kind="stable")[:, :k]
    values = np.take_along_axis(logprobs, ids, 1)
    return Signal(random.integers(0, vocab, tokens).astype(np.int32), ids.astype(np.int32), values.astype(np.float32))


def about(k: int, vocab: int, **values) -> About:
    return About(teacher={"kind": "fake", "model": "m"}, tokenizer="f" * 64, vocab=vocab, k=k, **values)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 20), st.integers(1, 70), st.integers(0, 500), st.floats(0.01, 30))
def test_a_round_trip_keeps_ids_order_and_top_and_bounds_the_rest(seed, tokens, k, more, spread):
    vocab = k + more
    signal = some_signal(seed, tokens, k, vocab, spread)
    codec = Codec(k, vocab)
    rows = codec.encode(signal.token_ids_T, signal.top_ids_TK, signal.top_logprobs_TK)
    assert rows.shape == (tokens, codec.row_bytes)
    token_ids, ids, logprobs = codec.decode(rows)
    assert (token_ids == signal.token_ids_T).all()
    assert (ids[:, :1] == signal.top_ids_TK[:, :1]).all()
    assert (logprobs[:, :1] == signal.top_logprobs_TK[:, :1]).all(), "the top value is exact"
    assert (np.diff(logprobs, axis=1) <= 0).all()
    for row in range(tokens):
        right = dict(zip(signal.top_ids_TK[row].tolist(), signal.top_logprobs_TK[row].tolist(), strict=True))
        found = dict(zip(ids[row].tolist(), logprobs[row].tolist(), strict=True))
        assert set(found) == set(right)
        top, low = max(right.values()), min(right.values())
        span = (top - low) * (1 + 2**-10)
        for token, value in right.items():
            assert abs(found[token] - value) <= codec.error_bound(top - value, span) + 1e-5 * (1 + abs(value))


@pytest.mark.parametrize("vocab", [32_768, 49_152, 131_072, 151_936, 262_144])
def test_a_row_of_64_takes_at_most_200_bytes_on_disk_all_included(tmp_path, vocab):
    writer = SignalWriter(tmp_path / "signals", about(64, vocab))
    tokens = 0
    signal = some_signal(0, 25, 64, vocab)
    for number in range(20):
        writer.add(f"{number:064x}", signal)
        tokens += 25
    writer.finish([f"{number:064x}" for number in range(20)])
    size = sum(f.stat().st_size for f in (tmp_path / "signals").iterdir())
    assert size / tokens <= 200


def test_the_bound_is_not_met_by_a_coarser_code():
    """Negative control: with two bits less the same check fails."""
    signal, codec = some_signal(0, 50, 64, 5_000), Codec(64, 5_000)
    coarse = Codec(64, 5_000)
    coarse.value_bits -= 2
    coarse.packed = (coarse.id_bits + (coarse.k - 1) * coarse.value_bits + 7) // 8
    _, _, logprobs = coarse.decode(coarse.encode(signal.token_ids_T, signal.top_ids_TK, signal.top_logprobs_TK))
    error = np.abs(np.sort(logprobs, 1) - np.sort(signal.top_logprobs_TK, 1))
    distance = signal.top_logprobs_TK[:, :1] - np.sort(signal.top_logprobs_TK, 1)
    span = distance.max(1, keepdims=True)
    bounds = np.vectorize(codec.error_bound)(distance, np.broadcast_to(span, distance.shape))
    assert (error > bounds + 1e-4).any()


def test_fewer_entries_than_k_become_padding_with_probability_zero():
    codec = Codec(8, 100)
    ids, values = np.array([[5, 9, -1], [0, 1, 2]]), np.array([[-0.5, -2.0, -np.inf], [-1.0, -1.5, -2.0]])
    _, found, logprobs = codec.decode(codec.encode([1, 2], ids, values))
    assert found[0, :2].tolist() == [5, 9]
    assert np.isneginf(logprobs[0, 2:]).all()
    assert np.isfinite(logprobs[1, :3]).all()
    assert np.isneginf(logprobs[1, 3:]).all()
    assert len(set(found[0].tolist())) == 8


@pytest.mark.parametrize(
    ("ids", "values"),
    [
        ([[1, 1]], [[-1.0, -2.0]]),
        ([[1, 100]], [[-1.0, -2.0]]),
        ([[1, 2]], [[0.5, -2.0]]),
        ([[1, 2]], [[-1.0, np.nan]]),
        ([[1, 2]], [[-np.inf, -np.inf]]),
        ([[1, 2, 3]], [[-1.0, -2.0, -3.0]]),
        ([[1, 2], [3, 4]], [[-1.0, -2.0], [-1.0, -2.0]]),
    ],
)
def test_numbers_that_cannot_be_log_probabilities_are_refused(ids, values):
    with pytest.raises(DataError):
        Codec(2, 100).encode([7], np.array(ids), np.array(values))


def test_what_was_written_is_read_and_an_interrupted_writer_goes_on(tmp_path):
    folder, info = tmp_path / "signals", about(16, 300)
    all_keys = [f"{n:064x}" for n in range(30)]
    signals = {key: some_signal(n, 1 + n % 7, 16, 300) for n, key in enumerate(all_keys)}
    writer = SignalWriter(folder, info, shard_tokens=20)
    for key in all_keys[:17]:
        writer.add(key, signals[key])
    del writer  # killed: the pending shard is lost, the written ones are not
    writer = SignalWriter(folder, info, shard_tokens=20)
    assert 0 < len(writer) <= 17
    for key in all_keys:
        writer.add(key, signals[key])
    writer.finish(all_keys)
    reader = SignalReader(folder)
    assert list(reader) == all_keys
    assert reader.tokens() == sum(len(s.token_ids_T) for s in signals.values())
    assert (reader.about.k, reader.about.tokenizer, reader.about.temperature) == (16, "f" * 64, 1.0)
    for key, signal in signals.items():
        found = reader[key]
        assert (found.token_ids_T == signal.token_ids_T).all()
        assert (found.top_ids_TK[:, 0] == signal.top_ids_TK[:, 0]).all()
        assert np.allclose(found.retained(), np.exp(signal.top_logprobs_TK).sum(1), atol=2e-3)
    with pytest.raises(DataError, match="no teacher signal"):
        reader["f" * 64]


def test_finished_bytes_do_not_depend_on_how_often_it_was_interrupted(tmp_path):
    keys = [f"{n:064x}" for n in range(12)]
    for name, stops in (("one", ()), ("two", (2, 5, 6))):
        writer = SignalWriter(tmp_path / name, about(4, 50), shard_tokens=9)
        for n, key in enumerate(keys):
            if n in stops:
                writer.flush()
                writer = SignalWriter(tmp_path / name, about(4, 50), shard_tokens=9)
            writer.add(key, some_signal(n, 3, 4, 50))
        writer.finish(keys)
    one, two = ({f.name: f.read_bytes() for f in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two


def test_finish_drops_what_is_no_longer_wanted(tmp_path):
    writer = SignalWriter(tmp_path / "s", about(4, 50))
    for n in range(4):
        writer.add(f"{n:064x}", some_signal(n, 2, 4, 50))
    writer.finish([f"{2:064x}"])
    assert list(SignalReader(tmp_path / "s")) == [f"{2:064x}"]


def test_other_settings_are_not_mixed_into_the_folder(tmp_path):
    SignalWriter(tmp_path / "s", about(4, 50)).finish([])
    assert same(tmp_path / "s", about(4, 50))
    assert not same(tmp_path / "s", about(5, 50))
    with pytest.raises(IntegrityError):
        SignalWriter(tmp_path / "s", about(5, 50))


def test_a_flipped_bit_a_cut_and_a_missing_shard_are_found(tmp_path):
    folder = tmp_path / "s"
    writer = SignalWriter(folder, about(4, 50))
    writer.add("0" * 64, some_signal(0, 5, 4, 50))
    writer.finish(["0" * 64])
    shard = folder / "shard-00000.bin"
    data = shard.read_bytes()
    assert len(SignalReader(folder)["0" * 64].token_ids_T) == 5
    for broken in (data[:7] + bytes([data[7] ^ 1]) + data[8:], data[:-1], b""):
        shard.write_bytes(broken)
        with pytest.raises(IntegrityError):
            SignalReader(folder)["0" * 64]
    shard.unlink()
    with pytest.raises(IntegrityError):
        SignalReader(folder)["0" * 64]
    for text in ("", "{}", json.dumps({"schema": 99, "shards": []})):
        (folder / "manifest.json").write_text(text)
        with pytest.raises(IntegrityError):
            SignalReader(folder)


def test_top_k_signals_of_the_first_version_are_read_and_sampled_ones_are_refused(tmp_path):
    for name, info in (("topk", about(4, 50)), ("sampled", about(4, 50, kind="sampled", draws=4))):
        folder = tmp_path / name
        ids, values = draw(np.zeros((5, 50), np.float32), 4, 0)
        signal = some_signal(0, 5, 4, 50) if name == "topk" else Signal(np.zeros(5, np.int32), ids, values)
        writer = SignalWriter(folder, info)
        writer.add("0" * 64, signal)
        writer.finish(["0" * 64])
        before = SignalReader(folder)["0" * 64]
        manifest = json.loads((folder / "manifest.json").read_text())
        for shard in manifest["shards"]:
            del shard["bytes"], shard["widths"]
        (folder / "manifest.json").write_text(json.dumps(manifest | {"schema": 1}))
        if name == "topk":
            assert (SignalReader(folder)["0" * 64].top_logprobs_TK == before.top_logprobs_TK).all()
        else:
            with pytest.raises(IntegrityError, match="of another version"):
                SignalReader(folder)


def test_no_signals_is_said_so(tmp_path):
    with pytest.raises(DataError, match="signals_top_k"):
        SignalReader(tmp_path / "none")


# -- sampled targets -----------------------------------------------------------------------------------------------


def mean_target(logprobs_V: np.ndarray, draws: int, repeats: int) -> np.ndarray:
    """The average sampled target, through the file format and back."""
    vocab = len(logprobs_V)
    ids, values = draw(np.tile(logprobs_V, (repeats, 1)), draws, seed=1)
    codec = Counts(draws, vocab)
    _, ids, values = codec.decode(codec.encode(np.zeros(repeats, int), ids, values), repeats, ids.shape[1])
    total = np.zeros(vocab)
    np.add.at(total, ids.ravel(), np.exp(values.astype(np.float64)).ravel())
    return total / repeats


def test_sampled_targets_are_unbiased_and_a_renormalised_top_k_is_not():
    random = np.random.default_rng(7)
    logits = random.normal(size=60) * 1.5
    logprobs = logits - np.log(np.exp(logits).sum())
    p, draws, repeats = np.exp(logprobs), 12, 20_000
    error = np.sqrt(p * (1 - p) / (draws * repeats))  # standard error of a mean of counts
    z = (mean_target(logprobs, draws, repeats) - p) / error
    assert np.abs(z).max() < 4.5
    assert 0.5 < (z**2).mean() < 1.7, "the spread is that of a multinomial"
    top = np.where(p >= np.sort(p)[-12], p, 0)
    assert np.abs((top / top.sum() - p) / error).max() > 50, "control: the biased target is far outside"


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 12), st.integers(1, 70), st.integers(1, 3000), st.floats(0.1, 12))
def test_counts_are_exact_on_disk(seed, tokens, draws, vocab, spread):
    random = np.random.default_rng(seed)
    logits = random.normal(size=(tokens, vocab)) * spread
    ids, values = draw((logits - logits.max(initial=0)).astype(np.float32), draws, seed)
    codec, answer = Counts(draws, vocab), random.integers(0, vocab, tokens)
    width = ids.shape[1] + 2
    data = codec.encode(answer, ids, values)
    found_tokens, found, logprobs = codec.decode(data, tokens, width)
    assert (found_tokens == answer).all()
    assert found.shape == logprobs.shape == (tokens, width)
    for row in range(tokens):
        right = {i: v for i, v in zip(ids[row].tolist(), values[row].tolist(), strict=True) if np.isfinite(v)}
        got = {i: v for i, v in zip(found[row].tolist(), logprobs[row].tolist(), strict=True) if np.isfinite(v)}
        assert got == pytest.approx(right, abs=1e-6)
        assert round(sum(np.exp(v) for v in got.values()) * draws) == draws
        assert len(set(found[row].tolist())) == width, "padding has ids of its own"


@pytest.mark.parametrize(
    ("ids", "counts"),
    [([[1, 1]], [[2, 2]]), ([[1, 9]], [[2, 2]]), ([[1, 2]], [[1, 2]]), ([[-1, 2]], [[2, 2]]), ([[1, 2]], [[3, 2]])],
)
def test_counts_that_are_no_draws_are_refused(ids, counts):
    with pytest.raises(DataError):
        Counts(4, 9).encode([0], np.array(ids), np.log(np.array(counts) / 4))


def test_sampled_signals_take_what_was_drawn_and_not_the_largest_width(tmp_path):
    """A peaked distribution, as of a real model, and a flat one: 50 draws over 151,936 ids."""
    sizes = {}
    for name, scale in (("peaked", 3.0), ("flat", 0.0)):
        logits = np.zeros((40, 151_936), np.float32)
        logits[:, :50] = 20 - scale * np.arange(50)
        ids, values = draw(logits, 50, 0)
        writer = SignalWriter(tmp_path / name, about(50, 151_936, kind="sampled", draws=50))
        writer.add("0" * 64, Signal(np.zeros(40, np.int32), ids, values))
        writer.finish(["0" * 64])
        sizes[name] = (tmp_path / name / "shard-00000.bin").stat().st_size / 40
        found = SignalReader(tmp_path / name)["0" * 64]
        assert found.top_ids_TK.shape == ids.shape, "as wide as the widest token"
    assert sizes["peaked"] < 16
    assert sizes["flat"] < 130


def test_answers_of_one_store_have_one_width_so_that_they_fit_in_a_batch(tmp_path):
    writer = SignalWriter(tmp_path / "s", about(8, 50, kind="sampled", draws=8), shard_tokens=2)
    for number, spread in enumerate((0.0, 30.0)):
        logits = np.linspace(0, spread, 50, dtype=np.float32)[None].repeat(3, 0)
        writer.add(f"{number:064x}", Signal(np.zeros(3, np.int32), *draw(logits, 8, number)))
    writer.finish([f"{n:064x}" for n in range(2)])
    reader = SignalReader(tmp_path / "s")
    first, second = (reader[f"{n:064x}"].top_ids_TK.shape for n in range(2))
    assert first == second
    assert first[1] > 2
