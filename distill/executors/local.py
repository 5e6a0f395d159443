"""In this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from distill import plugins
from distill.executors._base import ExecutorConfig

if TYPE_CHECKING:
    from distill.providers._base import Context, Provider


class Config(ExecutorConfig):
    """Nothing to set."""

    kind: Literal["local"] = "local"


def spread(config: Config, settings: Any, context: Context) -> Provider:  # noqa: ARG001
    """The provider itself."""
    provider: Provider = plugins.load("distill.providers", settings.kind).build(settings, context)
    return provider
