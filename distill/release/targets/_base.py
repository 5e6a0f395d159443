"""A target file: ``Config`` and ``export(student: Path, out: Path, config, seed: int) -> dict``.

``student`` is the run's ``student/`` folder, ``out`` an empty folder to fill. The result holds what was checked
after loading the export back (largest logit difference, for example); a failed check raises GateFailed.
Heavy imports go inside ``export``.
"""

from __future__ import annotations

from distill.plugins import PluginConfig


class TargetConfig(PluginConfig):
    """Base of a target's settings."""
