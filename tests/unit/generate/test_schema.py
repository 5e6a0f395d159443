"""A JSON Schema stated once, with its verifier, reaches the endpoint with every request."""

from __future__ import annotations

import json

import pytest

from tests.fault.hostile import HostileTeacher
from tests.unit.generate.stage import generate

SHAPE = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}


@pytest.mark.parametrize("constrain", ["json_schema", "none"])
def test_the_schema_of_the_verifier_goes_out_with_every_request(work, constrain):
    tmp_path, load = work
    verifiers = [{"kind": "json_schema", "shape": SHAPE}]
    with HostileTeacher(lambda text, nth: "an_object") as server:
        teacher = {"kind": "openai", "model": "m", "base_url": server.url, "constrain": constrain, "replies": None}
        waivers = [{"model": "m", "name": "A. Person", "date": "2026-11-01", "reason": "a loopback test"}]
        config = load(teacher=teacher, generate={"verifiers": verifiers}, policy={"waivers": waivers})
        made = generate(config, tmp_path / "run")
        asked = [call.body for call in server.calls if call.text.startswith("Question")]
    assert made["card"]["rows"]["kept"] == len(asked) == 40
    formats = [body.get("response_format", {}).get("json_schema", {}).get("schema") for body in asked]
    assert formats == [SHAPE if constrain == "json_schema" else None] * 40
    assert json.loads(made["train"][0]["answer"])["answer"]
