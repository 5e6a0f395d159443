"""A filter file: ``Config`` and ``keep(rows, config) -> list[str]``.

``rows`` are the candidate rows still standing (dicts with ``id cluster lang messages answer reasoning finish meta``)
in a fixed order; the result has one entry for each: "" to keep it, or the reason why not. Filters see every row at
once, so that duplicates can be found; reasons are counted, and kept + rejected = asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from distill.plugins import PluginConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Self

    from distill.config import RunConfig


class FilterConfig(PluginConfig):
    """Base of a filter's settings."""

    PATHS: ClassVar[tuple[str, ...]] = ()
    """Settings that hold lists of files, relative to the configuration file."""

    def files(self) -> tuple[str, ...]:
        """The files it reads, as written in the configuration."""
        return tuple(path for name in self.PATHS for path in getattr(self, name))

    def completed(self, config: RunConfig) -> Self:
        """A copy with what is left to the rest of the configuration filled in."""
        return self

    def located(self, resolve: Callable[[str], Path]) -> Self:
        """A copy whose paths are absolute."""
        paths = {name: tuple(str(resolve(path)) for path in getattr(self, name)) for name in self.PATHS}
        return self.model_copy(update=paths)
