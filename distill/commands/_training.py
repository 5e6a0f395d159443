"""What the training takes: steps, compute, memory, hours, euros, electricity. Every assumption has a name here.

Sizes are in bytes, compute in floating-point operations, money in EUR.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill import catalog, costs
from distill.catalog.route import official
from distill.commands._tokens import cached_folder
from distill.config import LIVE_METHODS
from distill.energy import HOST_W, LIFE_H, MFU, POWER_SHARE, PUE
from distill.train import memory

if TYPE_CHECKING:
    from distill.catalog.rows import GpuRow, ModelRow
    from distill.commands._tokens import Tokens
    from distill.config import RunConfig


@dataclass(frozen=True)
class Size:
    """Parameters of a model, and where the number comes from."""

    params: float
    active: float
    layers: int
    hidden: int
    how: str


def size_of(model: str, config: RunConfig) -> Size | None:
    """What the catalogue, the files on this disk, or the model's name say; None when none of them does."""
    name = official(model)
    row: ModelRow | None = catalog.find_model(name)
    if row is not None and row.params_b:
        return _size(row.params_b * 1e9, (row.active_b or row.params_b) * 1e9, "catalogue", row.layers, row.hidden)
    folder = cached_folder(model, config)
    known = memory.folder_size(folder) if folder else None
    if known is not None:
        params, layers, hidden = known
        return _size(params, params, "files", layers, hidden)
    found = re.search(r"(?<![\w.])(\d+(?:\.\d+)?)(B|M)(?![a-z])", name.rpartition("/")[2], re.IGNORECASE)
    if found:
        params = float(found[1]) * (1e9 if found[2].upper() == "B" else 1e6)
        return _size(params, params, "its name", None, None)
    return None


def _size(params: float, active: float, how: str, layers: Any, hidden: Any) -> Size:
    # Dense decoders have about 12 * layers * hidden^2 parameters and one layer for each 128 hidden units.
    guess = (params * 128 / 12) ** (1 / 3)
    return Size(params, active, int(layers or max(1, round(guess / 128))), int(hidden or max(1, round(guess))), how)


def training(config: RunConfig, data: Tokens, student: Size, teacher: Size | None) -> dict[str, Any]:
    """Rows, steps, tokens, compute and memory of the training, with the formulas used."""
    rows = round(data.asked * (1 - config.generate.holdout))
    steps = math.ceil(rows / config.train.batch_size) * config.train.epochs if rows else 0
    steps = min(steps, config.train.max_steps or steps)
    row_tokens = sum(data.mean_usage())
    tokens = steps * config.train.batch_size * row_tokens
    lora = config.student.adapter.kind != "none"
    factor = 4 if lora else 6
    live = config.train.method in LIVE_METHODS and config.teacher.kind == "transformers"  # a server is not planned here
    if config.train.method == "preference":  # two answers each, and the untrained student as reference
        factor = 2 * factor + 4
    scored = 2 * teacher.active * tokens if teacher and live else 0.0
    own = config.train.rollout_share * config.train.rollout_max_new_tokens if config.train.method == "on_policy" else 0
    rolled = 2 * student.active * own * steps * config.train.batch_size
    trainable = memory.trained(student.params, student.layers, student.hidden, config.student.adapter)
    bytes_needed = memory.needed(
        student.params,
        trainable,
        student.layers,
        student.hidden,
        memory.micro_tokens(config.train, min(config.student.max_length, row_tokens)),
        quantised=config.student.adapter.kind == "qlora",
        checkpointing=config.train.gradient_checkpointing,
        teacher=teacher.params if scored and teacher else 0,
    )
    return {
        "rows": rows,
        "steps": steps,
        "tokens": round(tokens),
        "flop": factor * student.active * tokens + scored + rolled,
        "memory_bytes": round(bytes_needed),
        "student_params": student.params,
        "trainable_params": round(trainable),
        "params_from": student.how,
        "formulas": [
            f"compute = {factor} x parameters x tokens"
            + (" + 2 x teacher's active parameters x tokens" if scored else "")
            + (" + 2 x parameters x tokens of the student's own answers" if rolled else ""),
            memory.formula(config.train, config.student.adapter, teacher=bool(scored)),
        ],
    }


def on_gpu(gpu: GpuRow, count: int, work: dict[str, Any], zone: str) -> dict[str, Any]:
    """Hours, euros, kWh and g CO2e of the training on ``count`` cards; what is not known is None."""
    hours = work["flop"] / (gpu.bf16_tflops * 1e12 * MFU * count) / 3600
    kwh = hours * count * (POWER_SHARE * gpu.tdp_w + HOST_W) / 1000 * PUE
    price = next((p for p in gpu.prices if p.verified), gpu.prices[0] if gpu.prices else None)
    per_hour = None if price is None else float(price.per_hour / costs.exchange_rate(price.currency)[0])
    row = next((r for r in catalog.grid() if r.zone == zone), None)
    return {
        "gpu": gpu.id,
        "count": count,
        "fits": work["memory_bytes"] < 0.9 * gpu.memory_gb * 1e9,
        "hours": hours,
        "eur": None if per_hour is None else hours * count * per_hour,
        "price": None if price is None else f"{price.provider} {price.per_hour} {price.currency}/h ({price.as_of})",
        "price_as_of": None if price is None else price.as_of.isoformat(),
        "price_verified": None if price is None else price.verified,
        "price_age": None if price is None else catalog.staleness(price.as_of),
        "kwh": kwh,
        "g_co2e": None if row is None else kwh * row.g_per_kwh,
        "g_co2e_making": None if gpu.embodied_kg is None else 1000 * gpu.embodied_kg * hours * count / LIFE_H,
    }
