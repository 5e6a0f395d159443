"""What every part of the configuration is built from, and how its problems are told."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, SerializeAsAny, ValidationError

from distill import plugins
from distill.errors import ConfigError
from distill.plugins import PluginConfig

M = TypeVar("M", bound=BaseModel)


class Section(BaseModel):
    """Base of every part of the configuration: unknown keys are refused, nothing changes after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())


def plugin(package: str) -> BeforeValidator:
    """Validate a mapping with the ``Config`` of the plug-in its ``kind`` names. A bare name means its defaults."""

    def validate(value: Any) -> Any:
        if isinstance(value, PluginConfig):
            return value
        if isinstance(value, str):
            value = {"kind": value}
        if not isinstance(value, dict):
            raise ValueError(f"expected a mapping with a 'kind', got {value!r}")
        kind = value.get("kind")
        if not isinstance(kind, str):
            raise ValueError(f"'kind' is missing; available: {', '.join(plugins.available(package))}")
        try:
            module = plugins.load(package, kind)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        try:
            return module.Config.model_validate(value)
        except ValidationError as error:
            raise PluginInvalid(error, module.Config) from None

    return BeforeValidator(validate)


class PluginInvalid(ValueError):
    """Carries a plug-in's own problems, and which settings it has, up to the one report."""

    def __init__(self, error: ValidationError, model: type[BaseModel]):
        super().__init__("invalid plug-in settings")
        self.error, self.model = error, model


Provider = Annotated[SerializeAsAny[PluginConfig], plugin("distill.providers")]
Executor = Annotated[SerializeAsAny[PluginConfig], plugin("distill.executors")]
Loss = Annotated[SerializeAsAny[PluginConfig], plugin("distill.losses")]
Filter = Annotated[SerializeAsAny[PluginConfig], plugin("distill.generate.filters")]
Verifier = Annotated[SerializeAsAny[PluginConfig], plugin("distill.generate.verifiers")]
Source = Annotated[SerializeAsAny[PluginConfig], plugin("distill.generate.sources")]
Task = Annotated[SerializeAsAny[PluginConfig], plugin("evals.tasks")]
Target = Annotated[SerializeAsAny[PluginConfig], plugin("distill.release.targets")]


def validate(model: type[M], values: Any, where: str) -> M:
    """``model`` from plain values; ConfigError with one line for each problem."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = tuple(f"{where}: {line}" for line in problems(error, model))
        raise ConfigError(f"{len(lines)} problem(s)", problems=lines) from None
    except RecursionError:
        raise ConfigError("nested too deeply", where=where) from None


def problems(error: ValidationError, model: type[BaseModel], prefix: str = "") -> list[str]:
    """One readable line for each error, those of nested plug-ins included."""
    lines: list[str] = []
    for item in error.errors(include_url=False):
        path = prefix + ".".join(str(part) for part in item["loc"])
        inner = item.get("ctx", {}).get("error")
        if isinstance(inner, PluginInvalid):
            lines += problems(inner.error, inner.model, path + ".")
        elif item["type"] == "extra_forbidden":
            lines.append(_unknown_key(path, item["loc"], model))
        elif item["type"] == "missing":
            lines.append(f"{path} is required")
        else:
            shown = repr(item["input"])
            got = "" if item["type"] == "value_error" else f" (got {shown[:80]}{'...' if len(shown) > 80 else ''})"
            message = f"{item['msg'].removeprefix('Value error, ')}{got}"
            lines.append(f"{path}: {message}" if path else message)
    return lines


def _unknown_key(path: str, loc: tuple[int | str, ...], model: type[BaseModel]) -> str:
    fields = _siblings(model, loc[:-1])
    close = difflib.get_close_matches(str(loc[-1]), fields, n=1, cutoff=0.5)
    parent = path.rpartition(".")[0]
    if close:
        return f"{path} is not a setting; did you mean {parent + '.' if parent else ''}{close[0]}?"
    return f"{path} is not a setting; allowed here: {', '.join(fields)}" if fields else f"{path} is not a setting"


def _siblings(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    current: Any = model
    for part in loc:
        if isinstance(part, int):
            continue
        annotation = current.model_fields[part].annotation if part in current.model_fields else None
        current = next(
            (t for t in (annotation, *get_args(annotation)) if isinstance(t, type) and issubclass(t, BaseModel)), None
        )
        if current is None:
            return []
    return list(current.model_fields)
