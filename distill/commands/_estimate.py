"""The arithmetic of `distill plan`: tokens, training, memory, examination, GPAI. Every assumption has a name here.

Nothing is loaded, sent or spent. Sizes are in bytes, compute in floating-point operations, money in EUR.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from distill import catalog, costs
from distill.catalog.route import official, route_of
from distill.config import LIVE_METHODS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from distill.catalog.rows import GpuRow, ModelRow
    from distill.config import RunConfig
    from distill.records import Request

# UTF-8 bytes per token: measured with the Qwen2.5 vocabulary on short texts in eight European languages
# (Polish 3.1, German 3.5, French 3.9, English 4.6).
BYTES_PER_TOKEN = 3.7
BYTES_PER_TOKEN_BEST = 4.6
TOKENS_PER_TURN = 5  # ChatML: two markers, the role, a line break each
TOKENS_TO_ANSWER = 3
FREE_ANSWER_SHARE = 0.5  # a free answer is taken to be half as long as its limit
SAMPLED = 500  # requests counted with a real tokenizer; the others follow by their bytes

MFU = 0.35  # share of a GPU's peak that training reaches
POWER_SHARE = 0.75  # mean power of a training GPU, as a share of its limit
HOST_W = 150  # the server around one GPU
PUE = 1.5
ACTIVATION_BYTES = 34  # per token, layer and hidden unit in bfloat16 (Korthikanti et al. 2022), nothing recomputed
LORA_PER_RANK = 17.7  # (inputs + outputs of the linear layers of one block) / hidden size, Llama-like
HEAD_BYTES = 32e6
Z_TWO_SIDED, Z_ONE_SIDED, Z_POWER = 1.959964, 1.644854, 0.841621  # 5 % two- and one-sided, 80 % power
GPAI_FALLBACK = 3.3e22  # a third of 1e23, when the base's own compute is not known
UNKNOWN_TEACHER_B = 1000.0  # billions of active parameters: above any model known


@dataclass(frozen=True)
class Tokens:
    """Tokens of all requests together: the least, the expected, and the most."""

    requests: int
    asked: int
    """Requests that differ: equal ones are paid once."""
    prompt: tuple[int, int, int]
    completion: tuple[int, int, int]
    how: str
    """Where the expected number comes from."""

    def mean_usage(self) -> tuple[float, float]:
        """Expected prompt and completion tokens of one request."""
        return self.prompt[1] / max(self.asked, 1), self.completion[1] / max(self.asked, 1)


def count_tokens(requests: Sequence[Request], tokenizer: Any = None, name: str = "") -> Tokens:
    """Tokens of the distinct requests; ``tokenizer`` (tokenizers.Tokenizer) counts a sample when it is at hand."""
    distinct = list({hashlib.sha256(r.canonical({})).digest(): r for r in requests}.values())
    bytes_of = [sum(len(m.content.encode("utf-8", "surrogatepass")) for m in r.messages) for r in distinct]
    frame = [TOKENS_PER_TURN * len(r.messages) + TOKENS_TO_ANSWER for r in distinct]
    per_token, best, how = BYTES_PER_TOKEN, BYTES_PER_TOKEN_BEST, f"{BYTES_PER_TOKEN} bytes per token, assumed"
    if tokenizer is not None and distinct:
        some = distinct[:: max(1, len(distinct) // SAMPLED)]
        texts = [m.content for r in some for m in r.messages]
        counted = sum(len(e.ids) for e in tokenizer.encode_batch(texts, add_special_tokens=False))
        per_token = best = sum(len(t.encode("utf-8", "surrogatepass")) for t in texts) / max(counted, 1)
        how = f"tokenizer of {name}, {len(some)} of {len(distinct)} requests"
    expected = [answer_tokens(r, per_token) for r in distinct]
    return Tokens(
        requests=len(requests),
        asked=len(distinct),
        prompt=(
            round(sum(bytes_of) / best) + sum(frame),
            round(sum(bytes_of) / per_token) + sum(frame),
            sum(map(costs.prompt_tokens_bound, distinct)),
        ),
        completion=(
            len(distinct),
            round(sum(expected)),
            sum(r.sampling.max_new_tokens for r in distinct),
        ),
        how=how,
    )


def answer_tokens(request: Request, bytes_per_token: float) -> float:
    """Expected length of an answer: that of a mean choice, or half the limit."""
    limit = request.sampling.max_new_tokens
    if not request.choices:
        return max(1.0, FREE_ANSWER_SHARE * limit)
    mean = sum(len(choice.encode()) for choice in request.choices) / len(request.choices)
    return min(limit, mean / bytes_per_token + 1)


def cached_tokenizer(config: RunConfig) -> tuple[Any, str]:
    """(the teacher's tokenizer, its name) when its files are on this disk, else (None, ""). Nothing is fetched."""
    try:
        from tokenizers import Tokenizer
    except ImportError:
        return None, ""
    folder = cached_folder(route_of(config.teacher).official_model, config) or cached_folder(
        config.teacher.model,  # type: ignore[attr-defined]
        config,
    )
    file = folder / "tokenizer.json" if folder else None
    if file is None or not file.is_file():
        return None, ""
    try:
        return Tokenizer.from_file(str(file)), str(config.teacher.model)  # type: ignore[attr-defined]
    except Exception:  # tokenizers raises bare Exception for a damaged file; an estimate goes on without it
        return None, ""


def cached_folder(model: str, config: RunConfig) -> Path | None:
    """Folder of a model that is on this disk already."""
    from distill.models import source

    if model.startswith("path:"):
        return config.resolve(model.removeprefix("path:"))
    row = catalog.find_model(model)
    named = row.sources if row else (model,) if model.startswith(("hub:", "package:")) else ()
    return next((source._entry(name) for name in named if source._is_cached(name)), None)


# -- the student ------------------------------------------------------------------------------------------------


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
    weights = sum(f.stat().st_size for f in folder.glob("*.safetensors")) if folder and folder.is_dir() else 0
    if folder and weights:
        settings = _settings(folder)
        width = 4 if "float32" in str(settings.get("dtype", settings.get("torch_dtype"))) else 2
        layers, hidden = settings.get("num_hidden_layers"), settings.get("hidden_size")
        return _size(weights / width, weights / width, "files", layers, hidden)
    found = re.search(r"(?<![\w.])(\d+(?:\.\d+)?)(B|M)(?![a-z])", name.rpartition("/")[2], re.IGNORECASE)
    if found:
        params = float(found[1]) * (1e9 if found[2].upper() == "B" else 1e6)
        return _size(params, params, "its name", None, None)
    return None


def _settings(folder: Path) -> dict[str, Any]:
    try:
        value = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


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
    live = config.train.method in LIVE_METHODS
    if config.train.method == "preference":  # two answers each, and the untrained student as reference
        factor = 2 * factor + 4
    scored = 2 * teacher.active * tokens if teacher and live else 0.0
    own = config.train.rollout_share * config.train.rollout_max_new_tokens if config.train.method == "on_policy" else 0
    rolled = 2 * student.active * own * steps * config.train.batch_size
    trainable = LORA_PER_RANK * student.hidden * student.layers * config.student.adapter.r if lora else student.params
    length = min(config.student.max_length, row_tokens)
    activations = ACTIVATION_BYTES * length * config.train.micro_batch_size * student.hidden * student.layers
    memory = (
        2 * student.params
        + 16 * trainable
        + activations
        + HEAD_BYTES
        + (2 * teacher.params if scored and teacher else 0)
    )
    return {
        "rows": rows,
        "steps": steps,
        "tokens": round(tokens),
        "flop": factor * student.active * tokens + scored + rolled,
        "memory_bytes": round(memory),
        "student_params": student.params,
        "trainable_params": round(trainable),
        "params_from": student.how,
        "formulas": [
            f"compute = {factor} x parameters x tokens"
            + (" + 2 x teacher's active parameters x tokens" if scored else "")
            + (" + 2 x parameters x tokens of the student's own answers" if rolled else ""),
            "memory = 2 bytes x parameters + 16 bytes x trained parameters + "
            f"{ACTIVATION_BYTES} bytes x tokens in a micro-batch x layers x hidden size"
            + (" + 2 bytes x teacher's parameters" if scored else ""),
        ],
    }


def on_gpu(gpu: GpuRow, count: int, work: dict[str, Any], zone: str) -> dict[str, Any]:
    """Hours, euros, kWh and g CO2e of the training on ``count`` cards; unknown prices are None."""
    hours = work["flop"] / (gpu.bf16_tflops * 1e12 * MFU * count) / 3600
    kwh = hours * count * (POWER_SHARE * gpu.tdp_w + HOST_W) / 1000 * PUE
    price = gpu.prices[0] if gpu.prices else None
    per_hour = None if price is None else float(price.per_hour / costs.exchange_rate(price.currency)[0])
    row = next((r for r in catalog.grid() if r.zone == zone), None)
    return {
        "gpu": gpu.id,
        "count": count,
        "fits": work["memory_bytes"] < 0.9 * gpu.memory_gb * 1e9,
        "hours": hours,
        "eur": None if per_hour is None else hours * count * per_hour,
        "price": None if price is None else f"{price.provider} {price.per_hour} {price.currency}/h ({price.as_of})",
        "kwh": kwh,
        "g_co2e": None if row is None else kwh * row.g_per_kwh,
    }


# -- the examination --------------------------------------------------------------------------------------------


def smallest_visible_drop(items: int, disagree: float) -> float:
    """Difference in accuracy that a paired test of ``items`` finds with 80 % power at 5 %, two-sided.

    ``disagree``: share of the items on which exactly one of the two systems is right.
    """
    z = (Z_TWO_SIDED + Z_POWER) ** 2
    return min(1.0, math.sqrt(z * disagree / (max(items, 1) + z)))


def items_for_margin(margin: float, disagree: float) -> int:
    """Items after which two equal systems pass a non-inferiority test with this margin (one-sided 5 %, 80 % power)."""
    return math.ceil((Z_ONE_SIDED + Z_POWER) ** 2 * disagree / margin**2)


# -- law --------------------------------------------------------------------------------------------------------


def gpai(config: RunConfig, data: Tokens, learnt: Tokens, student: Size, teacher: Size | None) -> dict[str, Any]:
    """Compute of the modification against a third of the base's (Commission guidelines C(2025) 5045). Not advice.

    Counted: 6 x parameters x training tokens, and the teacher's 2 x active parameters for each token it read or wrote.
    """
    trained = 6 * student.params * (learnt.prompt[1] + learnt.completion[1]) * config.train.epochs
    active = teacher.active if teacher else UNKNOWN_TEACHER_B * 1e9
    asked = 2 * active * (data.prompt[1] + data.completion[1])
    row = catalog.find_model(official(config.student.model))
    known = row.params_b * row.pretrain_tokens_t if row and row.params_b and row.pretrain_tokens_t else None
    threshold = 6 * known * 1e21 / 3 if known else GPAI_FALLBACK
    return {
        "training_flop": trained,
        "teacher_flop": asked,
        "teacher_size": teacher.how
        if teacher
        else f"unknown: counted as {UNKNOWN_TEACHER_B:g} billion active parameters",
        "threshold_flop": threshold,
        "threshold": "a third of the base's training compute" if known else "fallback: the base's compute is not known",
        "share": (trained + asked) / threshold,
        "new_provider": trained + asked > threshold,
    }


def as_dict(value: Any) -> dict[str, Any]:
    """A dataclass as JSON values."""
    return asdict(value)
