"""A filter file: ``Config`` and ``keep(rows, config) -> list[str]``.

``rows`` are all candidate rows (dicts with ``id cluster lang messages answer reasoning meta``) in a fixed order;
the result has one entry for each: "" to keep it, or the reason why not. Filters see every row at once, so that
duplicates can be found; reasons are counted, and kept + rejected = asked.
"""

from __future__ import annotations

from distill.plugins import PluginConfig


class FilterConfig(PluginConfig):
    """Base of a filter's settings."""
