"""Alambic: distil a large teacher into a small student, and prove what it lost and what it saves.

Read in this order: ``cli`` (the table of commands), ``config`` (one YAML = one run), ``artifacts`` (the run
folder), ``query`` (asking a model, durably), then the four stages ``generate``, ``train``, ``evals``
(a package of its own) and ``release``. Importing this package loads nothing heavy.
"""

__version__ = "0.1.0"
