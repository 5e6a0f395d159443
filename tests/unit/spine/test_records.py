"""The request key: any field changes it, nothing else does."""

from __future__ import annotations

import dataclasses

from distill.records import Message, Request, Sampling, canonical_json

BASE = Request((Message("system", "s"), Message("user", "u")))
IDENTITY = {"kind": "fake", "model": "m"}


def test_every_field_of_a_request_is_in_its_key():
    changed = [
        dataclasses.replace(BASE, messages=(Message("system", "s"), Message("user", "v"))),
        dataclasses.replace(BASE, messages=(Message("user", "s"), Message("user", "u"))),
        dataclasses.replace(BASE, choices=("a",)),
        dataclasses.replace(BASE, top_logprobs=1),
        dataclasses.replace(BASE, sample=1),
        dataclasses.replace(BASE, schema='{"type":"object"}'),
        *(
            dataclasses.replace(BASE, sampling=dataclasses.replace(Sampling(), **{name: value}))
            for name, value in {
                "max_new_tokens": 7,
                "temperature": 0.5,
                "top_p": 0.5,
                "seed": 9,
                "stop": ("x",),
            }.items()
        ),
    ]
    assert len(dataclasses.fields(Request)) == 6, "a new field needs a line above"
    assert len(dataclasses.fields(Sampling)) == 5, "a new field needs a line above"
    keys = {request.key(IDENTITY) for request in (BASE, *changed)}
    assert len(keys) == len(changed) + 1
    assert BASE.key({"kind": "fake", "model": "other"}) not in keys


def test_equal_requests_have_equal_keys():
    again = Request((Message("system", "s"), Message("user", "u")))
    assert again.key(dict(reversed(IDENTITY.items()))) == BASE.key(IDENTITY)


def test_text_is_not_normalised():
    composed, decomposed = "\u00e9", "e\u0301"
    assert canonical_json(composed) != canonical_json(decomposed)
