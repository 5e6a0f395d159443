"""The answer's number equals a field of the prompt row. European and English notation and fractions are read."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import Field

from distill.generate.verifiers._base import VerifierConfig

SPACES = " \u00a0\u202f\u2009'’"
NUMBER = re.compile(
    rf"(?<![\w.,])[-+−]?(?:\d{{1,3}}(?:[{SPACES}]\d{{3}})+(?:[.,]\d+)?|\d[\d.,]*\d|\d)(?:[eE][-+]?\d{{1,3}})?(?!\w)"
)
FRACTION = re.compile(r"\\[dt]?frac\{\s*(\d+)\s*\}\{\s*(\d+)\s*\}")
RATIO = re.compile(rf"(?<![\w.,/])([-+−]?\d+)[{SPACES}]?/[{SPACES}]?(\d+)(?![\w/]|[.,]\d)")
BOXED = re.compile(r"\\boxed\{([^{}]*)\}")


class Config(VerifierConfig):
    """Which field, which tolerance, which notation."""

    kind: Literal["numeric"] = "numeric"
    field: str = "expected"
    """Field of the prompt row that holds the right number."""
    rel_tol: Annotated[float, Field(ge=0, lt=1)] = 1e-6
    """Largest difference, relative to the right number."""
    abs_tol: Annotated[float, Field(ge=0)] = 1e-9
    """Largest difference in all: what counts when the right number is 0."""
    decimal: Literal["any", "point", "comma"] = "any"
    """Sign before the decimals. `any`: `1.234` may be read as 1.234 and as 1234; one reading must be right."""


def check(row: dict[str, Any], config: Config) -> str:
    """``wrong_number``, ``no_number``, ``no_expected_number`` or "". The boxed number counts, else the last one."""
    expected = row["meta"].get(config.field)
    right = [float(expected)] if _is_number(expected) else _values(str(expected), config.decimal)
    if expected is None or not right:
        return "no_expected_number"
    answer = FRACTION.sub(r"\1/\2", row["answer"])
    boxed = BOXED.findall(answer)
    values = _values(boxed[-1] if boxed else answer, config.decimal)
    if not values:
        return "no_number"
    close = any(math.isclose(v, r, rel_tol=config.rel_tol, abs_tol=config.abs_tol) for v in values for r in right)
    return "" if close else "wrong_number"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _values(text: str, decimal: str) -> list[float]:
    """What the last number of a text can mean; a fraction at its end is that fraction, or its last number."""
    text = FRACTION.sub(r"\1/\2", text)
    found = NUMBER.findall(text)
    values = readings(found[-1], decimal) if found else []
    ratios = RATIO.findall(text)
    if ratios and found and found[-1] == ratios[-1][1] and int(ratios[-1][1]):
        top, bottom = (int(part.replace("−", "-")) for part in ratios[-1])
        values.append(top / bottom)
    return values


def readings(text: str, decimal: str) -> list[float]:
    """What the digits can mean: with the point, with the comma, or both before the decimals."""
    plain = text.strip().replace("−", "-")
    for space in SPACES:
        plain = plain.replace(space, "")
    signs = {"point": [(",", ".")], "comma": [(".", ",")]}.get(decimal, [(",", "."), (".", ",")])
    values = []
    for group, point in signs:
        if _grouped(plain, group, point):
            try:
                value = float(plain.replace(group, "").replace(point, "."))
            except (ValueError, OverflowError):
                continue
            if math.isfinite(value):
                values.append(value)
    return values


def _grouped(text: str, group: str, point: str) -> bool:
    """True when ``group`` stands only between groups of three digits, before ``point``."""
    whole, _, decimals = text.partition(point)
    parts = whole.split(group)
    return group not in decimals and all(len(part) == 3 for part in parts[1:])
