"""One of several texts: which is the most likely answer, and how likely is each.

Shapes: B rows, C choices, T tokens of the padded rows, S keys (shared prefix + T), N tokens of all choices together,
V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from distill.providers._engine import Engine, Row


def choose(engine: Engine, rows: Sequence[Row], choices: Sequence[Sequence[int]]) -> list[list[float]]:
    """Log-probability of each choice (its tokens, then the end of the turn) after each row: [B][C].

    All choices of a row go through the model together, as branches that do not see each other.
    """
    if not engine.plain:
        return _choose_apart(engine, rows, choices)
    import torch

    width = sum(map(len, choices))
    shared, ids_BT, mask_BS = engine.prompts(rows)
    branch_N = torch.tensor([t for choice in choices for t in choice], device=engine.device)
    step_N = torch.tensor([j for choice in choices for j in range(len(choice))], device=engine.device)
    length_B = mask_BS.sum(-1)
    position_BT = (mask_BS.cumsum(-1) - 1).clamp(min=0)[:, shared:]
    with torch.inference_mode():
        logits_BNV = engine.model(
            input_ids=torch.cat([ids_BT, branch_N.expand(len(rows), -1)], dim=-1),
            attention_mask=_branches(engine, mask_BS, shared, [len(choice) for choice in choices]),
            position_ids=torch.cat([position_BT, length_B[:, None] + step_N], dim=-1),
            past_key_values=engine.kept_cache(shared, len(rows)),
            use_cache=True,
            logits_to_keep=width + 1,
        ).logits
        return [_branch_scores(engine, logits_NV, choices) for logits_NV in logits_BNV]


def best(engine: Engine, rows: Sequence[Row], choices: Sequence[Sequence[Sequence[int]]]) -> list[int]:
    """Index of each row's most likely choice among its own: the argmax of ``choose``, usually for one more token.

    The first token alone bounds a choice's log-probability from above; a choice that cannot win any more is
    not looked at.
    """
    if not engine.plain:
        apart = [_choose_apart(engine, [row], own)[0] for row, own in zip(rows, choices, strict=True)]
        return [max(range(len(scores)), key=scores.__getitem__) for scores in apart]
    together = engine.rows_at_once(max(len(row.ids) for row in rows))
    parts = range(0, len(rows), together)
    return [index for n in parts for index in _best(engine, rows[n : n + together], choices[n : n + together])]


def _best(engine: Engine, rows: Sequence[Row], choices: Sequence[Sequence[Sequence[int]]]) -> list[int]:
    import torch

    targets = [[[*choice, engine.end] for choice in own] for own in choices]
    shared, ids_BT, mask_BS = engine.prompts(rows)
    cache = engine.kept_cache(shared, len(rows))
    with torch.inference_mode():
        logits_BV = engine.forward(ids_BT, mask_BS, cache, 1)[:, -1]
        logprobs_BV = logits_BV.float().log_softmax(-1)
        bounds_BC = [
            own_V[[target[0] for target in own]].tolist() for own_V, own in zip(logprobs_BV, targets, strict=True)
        ]
        past = [(layer.keys, layer.values) for layer in cache.layers]
        found: list[dict[int, float]] = [{} for _ in rows]
        going = list(range(len(rows)))
        while going:
            ask = [(b, max(set(range(len(targets[b]))) - set(found[b]), key=bounds_BC[b].__getitem__)) for b in going]
            rest = _rest(engine, past, mask_BS, [(b, targets[b][c]) for b, c in ask])
            for (b, c), value in zip(ask, rest, strict=True):
                found[b][c] = bounds_BC[b][c] + value
            going = [b for b in going if _may_lose(found[b], bounds_BC[b])]
    return [max(scores, key=scores.__getitem__) for scores in found]


def _rest(
    engine: Engine,
    past: list[tuple[torch.Tensor, torch.Tensor]],
    mask_BS: torch.Tensor,
    asked: list[tuple[int, list[int]]],
) -> list[float]:
    """Per (row, target): log-probability of the target after its first token, given the row's kept ``past``."""
    import torch
    from transformers.cache_utils import DynamicCache

    width = max(len(target) for _, target in asked) - 1
    if width == 0:
        return [0.0] * len(asked)
    rows = torch.tensor([b for b, _ in asked], device=engine.device)
    cache = DynamicCache(config=engine.model.config)
    for number, (keys, values) in enumerate(past):
        whole = len(asked) == len(keys)
        cache.update(keys if whole else keys[rows], values if whole else values[rows], number)
    ids = torch.full((len(asked), width), engine.end)
    for number, (_, target) in enumerate(asked):
        ids[number, : len(target) - 1] = torch.tensor(target[:-1], dtype=torch.long)
    mask = torch.cat([mask_BS[rows], mask_BS.new_ones((len(asked), width))], dim=-1)
    logprobs = engine.forward(ids.to(engine.device), mask, cache, width).float().log_softmax(-1)
    return [
        float(sum(logprobs[number, place, token] for place, token in enumerate(target[1:])))
        for number, (_, target) in enumerate(asked)
    ]


def _branches(engine: Engine, mask_BS: torch.Tensor, shared: int, lengths: Sequence[int]) -> torch.Tensor:
    """Additive attention mask [B, 1, T + N, S + N]: rows see their own past, a branch its row and itself."""
    import torch

    (rows, keys), width = mask_BS.shape, sum(lengths)
    queries = keys - shared
    seen = torch.zeros((rows, queries + width, keys + width), dtype=torch.bool, device=engine.device)
    past = torch.ones((queries, keys), dtype=torch.bool, device=engine.device).tril(shared)
    seen[:, :queries, :keys] = past & mask_BS[:, None].bool()
    seen[:, queries:, :keys] = mask_BS[:, None].bool()
    start = 0
    for length in lengths:
        block = torch.ones((length, length), dtype=torch.bool, device=engine.device).tril()
        stop = start + length
        seen[:, queries + start : queries + stop, keys + start : keys + stop] = block
        start = stop
    unseen = torch.finfo(engine.dtype).min
    return torch.zeros(seen.shape, dtype=engine.dtype, device=engine.device).masked_fill(~seen, unseen)[:, None]


def _branch_scores(engine: Engine, logits_NV: torch.Tensor, choices: Sequence[Sequence[int]]) -> list[float]:
    logprobs_NV = logits_NV.float().log_softmax(-1)
    scores, start = [], 1
    for choice in choices:
        # Position 0 is the row's last token; a branch's own positions follow each other.
        places = [0, *range(start, start + len(choice))]
        targets = [*choice, engine.end]
        scores.append(float(logprobs_NV[places, targets].sum()))
        start += len(choice)
    return scores


def _choose_apart(engine: Engine, rows: Sequence[Row], choices: Sequence[Sequence[int]]) -> list[list[float]]:
    scores: list[list[float]] = []
    for row in rows:
        pairs = [(row.ids, [*choice, engine.end]) for choice in choices]
        scores.append([float(sum(logprobs)) for logprobs, _, _ in engine.answers(pairs, 1)])
    return scores


def _may_lose(scores: dict[int, float], bounds: Sequence[float]) -> bool:
    """True while a choice that has not been scored could still beat the best that has."""
    open_bounds = [bound for choice, bound in enumerate(bounds) if choice not in scores]
    return bool(open_bounds) and max(open_bounds) > max(scores.values())
