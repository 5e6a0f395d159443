"""The answer is JSON of a given shape."""

from __future__ import annotations

import functools
import json
import re
from typing import Any, Literal

from pydantic import Field

from distill.errors import ConfigError, MissingDependency
from distill.generate.verifiers._base import VerifierConfig

FENCED = re.compile(r"\A```(?:json)?[ \t]*\n(.*)\n```\Z", re.DOTALL)


class Config(VerifierConfig):
    """The shape."""

    kind: Literal["json_schema"] = "json_schema"
    shape: dict[str, Any] = Field(default_factory=dict)
    """JSON Schema (draft 2020-12) of the answer. Empty = any JSON. Nothing is fetched for a `$ref`."""
    fenced: bool = False
    """A code block around the JSON is allowed."""


def check(row: dict[str, Any], config: Config) -> str:
    """``not_json``, ``wrong_shape`` or "". Raises ConfigError for a schema that is none, MissingDependency."""
    answer = row["answer"].strip()
    if config.fenced and (match := FENCED.match(answer)):
        answer = match[1]
    try:
        value = json.loads(answer, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return "not_json"
    if not config.shape:
        return ""
    return "" if _validator(json.dumps(config.shape, sort_keys=True)).is_valid(value) else "wrong_shape"


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


@functools.lru_cache(maxsize=16)
def _validator(schema: str) -> Any:
    try:
        from jsonschema import Draft202012Validator, SchemaError
        from referencing import Registry
    except ModuleNotFoundError:
        raise MissingDependency("jsonschema", "the verifier 'json_schema'", "data") from None
    shape = json.loads(schema)
    try:
        Draft202012Validator.check_schema(shape)
    except SchemaError as error:
        raise ConfigError(f"not a JSON Schema: {error.message:.200}", where="generate.verifiers") from None
    return Draft202012Validator(shape, registry=Registry())
