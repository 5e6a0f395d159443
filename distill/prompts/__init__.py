"""Rows of a user's data as prompts: reading, sandboxed templates, quotas. Used by generate, plan and the evals.

Read: JSONL, CSV, TSV, Parquet, a folder written by ``datasets.Dataset.save_to_disk``, a data set of a model hub. A row
that holds ``messages`` is a conversation and is used as it is; any other row goes through the template.
"""

from distill.prompts.draw import choose, order
from distill.prompts.hub import locate
from distill.prompts.scan import Built, build, load_rows, refusal, scan, scan_rows
from distill.prompts.template import BadRow, compile_template, conversation, fill, render

__all__ = [
    "BadRow",
    "Built",
    "build",
    "choose",
    "compile_template",
    "conversation",
    "fill",
    "load_rows",
    "locate",
    "order",
    "refusal",
    "render",
    "scan",
    "scan_rows",
]
