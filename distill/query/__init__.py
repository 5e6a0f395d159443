"""Asking models: the durable store, the ledger, retries and pressure."""
