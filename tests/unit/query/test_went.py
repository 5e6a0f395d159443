"""What went where: every send counted by host, own machines without a name, nothing that never left."""

from __future__ import annotations

import asyncio

import pytest

from distill.query import went
from distill.query.attempts import Plan, Received
from distill.query.store import Store
from distill.records import Message, Request

MISTRAL = {"kind": "openai", "base_url": "https://api.mistral.ai/v1", "model": "mistral-large-4"}
OWN = {"kind": "openai", "base_url": "http://gpu-box.internal:8000/v1", "model": "big"}
HERE = {"kind": "transformers", "model": "path:/secret/folder/weights"}
STRANGER = {"kind": "openai", "base_url": "https://api.example.com/v1", "model": "m"}


def send(store, identity, text, **how):
    asyncio.run(_send(store, identity, text, **how))


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "run.db") as opened:
        yield opened


def request(text):
    return Request((Message("user", text),))


async def _send(store, identity, text, raw=b'{"answer": 1}', *, end=None, times=1):
    for _ in range(times):
        asked = request(text)
        (ids,) = await store.reserve([[Plan(asked.key(identity), asked.canonical(identity))]])
        if end is None:
            await store.settle([Received(ids[0], raw)])
        else:
            kind, reason = end
            await getattr(store, kind)(ids, reason)


def test_every_send_is_counted_where_it_went(store, tmp_path):
    send(store, MISTRAL, "Zürich?", raw=b"x" * 100)
    send(store, MISTRAL, "Bern?", raw=b"x" * 50)
    send(store, MISTRAL, "Bern?", end=("release", "http_429"), times=2)  # it was sent, and sent again
    send(store, MISTRAL, "Basel?", end=("uncertain", "timeout"))
    send(store, MISTRAL, "Genf?", end=("release", "not_sent"))
    send(store, OWN, "x")
    send(store, HERE, "x")
    send(store, STRANGER, "x")
    rows = {row["host"]: row for row in went.table(tmp_path / "run.db")}
    assert set(rows) == {"api.mistral.ai", "api.example.com", "your own network", "this machine"}
    mistral = rows["api.mistral.ai"]
    assert (mistral["company"], mistral["regions"]) == ("Mistral AI, FR", ["EU"])
    assert (mistral["sends"], mistral["bytes_kept"]) == (5, 150)
    assert mistral["bytes_sent"] > 5 * len("Zürich?".encode())
    assert (rows["api.example.com"]["company"], rows["api.example.com"]["regions"]) == (None, [])


def test_no_private_name_is_in_the_table(store, tmp_path):
    send(store, OWN, "x")
    send(store, HERE, "x")
    text = str(went.table(tmp_path / "run.db"))
    assert "gpu-box" not in text
    assert "secret" not in text


def test_without_a_store_nothing_went_anywhere(tmp_path):
    assert went.table(tmp_path / "run.db") == []
