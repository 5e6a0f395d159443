"""What licences and terms ask travels from the gates into the data card, NOTICE, model card and bundle."""

from __future__ import annotations

import pytest

from distill.config import RunConfig
from distill.errors import Refused
from distill.models import resolve
from distill.release import card, licence, papers, record
from tests.unit.release.made import WAIVER, base_folder, run_folder

MISTRAL = {"kind": "openai", "provider": "mistral", "model": "mistral-large-4"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("obligations")
    base = base_folder(folder / "base")
    config, run = run_folder(folder / "run", base)
    return config, run, base


def read(made, **changed):
    config, run, base = made
    values = config.resolved()
    for section, settings in changed.items():
        values[section] = values[section] | settings if section != "teacher" else settings
    other = RunConfig.model_validate(values)
    other._folder = config._folder
    return record.read(other, run, resolve(f"path:{base}", config._folder))


def test_the_terms_of_the_route_are_in_notice_card_and_data_card(made):
    found = read(
        made,
        teacher=MISTRAL,
        policy={"made_with": ["google/gemma-3-27b-it", "our/set"], "waivers": [WAIVER | {"model": "our/set"}]},
    )
    for text in (licence.notice(found, []), card.model_card(found, {}, []), papers.data_card(found)):
        assert "teacher mistral-api" in text
        assert "NO_REVERSE_ENGINEERING: do not use outputs" in text
        assert "prompts gemma-terms" in text
        assert "GEMMA_FLOWDOWN" in text
        assert "taken upon them by A. Person on 2026-11-01" in text
        assert "student base apache-2.0" in text


def test_a_made_up_teacher_asks_nothing(made):
    """Negative control."""
    assert [role for role, _, _ in licence.obligations(read(made))] == ["student base apache-2.0"]


def test_a_private_address_of_the_teacher_stays_private(made):
    own = {"kind": "openai", "model": "openai/gpt-oss-120b", "base_url": "http://gpu-box.internal:8000/v1"}
    found = read(made, teacher=own)
    assert "teacher apache-2.0" in licence.notice(found, [])
    for text in (licence.notice(found, []), card.model_card(found, {}, []), papers.data_card(found)):
        assert "gpu-box" not in text


def test_what_the_gates_refuse_is_not_released(made):
    with pytest.raises(Refused, match="anthropic-api"):
        read(made, teacher={"kind": "openai", "provider": "anthropic", "model": "x"}, policy={"regions": ["*"]})
