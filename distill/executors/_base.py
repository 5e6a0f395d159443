"""Where a provider runs. An executor file holds ``Config`` and ``spread(config, settings, context) -> Provider``.

What it gives is asked like any provider: the store, the ledger, the retries stay in the process that asks, so an
executor may lose a worker but never an answer that was committed.
"""

from __future__ import annotations

from distill.plugins import PluginConfig


class ExecutorConfig(PluginConfig):
    """What every executor has."""
