"""What the fault tests share: requests, an openai provider for a loopback teacher, a quick policy."""

from dataclasses import replace

from distill.providers import openai
from distill.providers._base import Context
from distill.query.pressure import Policy
from distill.records import Message, Request, Sampling

QUICK = replace(Policy(), max_attempts=4, timeout_s=4.0, deadline_s=30.0, backoff_s=0.01, backoff_cap_s=0.05)


def requests_of(texts, max_new_tokens=32):
    return [Request((Message("user", text),), Sampling(max_new_tokens=max_new_tokens)) for text in texts]


def provider_of(url, **settings):
    config = openai.Config(**({"model": "hostile-1", "base_url": url, "concurrency": 16} | settings))
    return openai.build(config, Context())
