"""Rows of a user's file as prompts: reading, sandboxed templates, quotas. Used by generate and by the evals."""
