"""The configuration: strict YAML, overrides, and problems a person can act on."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill import config, strict_yaml
from distill.errors import ConfigError

GOOD = """
name: good
prompts: {path: rows.jsonl}
teacher: {kind: fake, model: fake-1}
student: {model: "path:student"}
"""


def load(tmp_path: Path, text: str, *overrides: str) -> config.RunConfig:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return config.load(path, list(overrides))


def lines(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, *overrides)
    assert caught.value.exit_code == 2
    return str(caught.value).splitlines()


def test_all_problems_are_reported_at_once(tmp_path):
    text = GOOD.replace("fake-1}", "fake-1, latency: 3}") + "train: {lrr: 1e-4, epochs: 0}\nnmae: x\n"
    found = "\n".join(lines(tmp_path, text))
    assert "train.lrr is not a setting; did you mean train.lr?" in found
    assert "train.epochs" in found
    assert "nmae is not a setting; did you mean name?" in found
    assert "teacher.latency is not a setting; did you mean teacher.latency_s?" in found


def test_a_wrong_plugin_name_says_what_was_meant(tmp_path):
    (line,) = lines(tmp_path, GOOD.replace("kind: fake", "kind: fkae"))
    assert "no provider 'fkae'; did you mean 'fake'?" in line


def test_norwegian_is_a_language_and_exponents_are_numbers(tmp_path):
    loaded = load(tmp_path, GOOD.replace("rows.jsonl", "rows.jsonl, languages: [no, da]") + "train: {lr: 2e-4}\n")
    assert loaded.prompts.languages == ("no", "da")
    assert loaded.train.lr == 2e-4


def test_an_override_goes_through_the_same_parser(tmp_path):
    assert load(tmp_path, GOOD, "train.lr=2e-5", "prompts.languages=[no]").train.lr == 2e-5
    (line,) = lines(tmp_path, GOOD, "train.lrr=1")
    assert "train.lrr" in line


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a: 1\na: 2\n", "duplicate"),
        ("a: &x 1\nb: *x\n", "anchors"),
        ("a: !!python/object:os.system 1\n", "tag"),
        ("[" * 200 + "]" * 200, "nested"),
        ("a: [1", "expected"),
        ("- 1\n- 2\n", "mapping"),
        ("", "mapping"),
        ("1: x\n", "not text"),
    ],
)
def test_hostile_yaml_is_one_line(tmp_path, text, word):
    found = lines(tmp_path, text)
    assert len(found) == 1
    assert word in found[0].lower()


def test_binary_and_huge_files_are_refused(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        config.load(path)
    path.write_bytes(b"a" * (strict_yaml.MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="larger"):
        config.load(path)


def test_the_hash_changes_with_any_setting_and_not_with_spelling(tmp_path):
    base = load(tmp_path, GOOD).hash()
    assert load(tmp_path, GOOD + "train: {lr: 0.0002}\n").hash() == base
    assert load(tmp_path, GOOD, "seed=1").hash() != base


def test_paths_start_at_the_configuration_file(tmp_path):
    assert load(tmp_path, GOOD).resolve("rows.jsonl") == tmp_path / "rows.jsonl"


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=12)
values = st.recursive(
    scalars, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=8), x, max_size=3), max_leaves=8
)
FIELDS = [
    *config.RunConfig.model_fields,
    *(
        f"{s}.{f}"
        for s, c in (
            ("train", config.Train),
            ("eval", config.Eval),
            ("prompts", config.Prompts),
            ("generate", config.Generate),
            ("student", config.Student),
            ("release", config.Release),
        )
        for f in c.model_fields
    ),
    "teacher.kind",
    "teacher.model",
    "train.loss.kind",
    "eval.tasks.0",
    "generate.filters",
    "release.targets",
]


@settings(max_examples=1000, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), values, max_size=6))
def test_a_thousand_fuzzed_values_never_traceback(changes):
    mapping = strict_yaml.parse_yaml(GOOD, "x")
    for dotted, value in changes.items():
        target = mapping
        *parents, last = dotted.split(".")
        for parent in parents:
            child = target.get(parent)
            if not isinstance(child, dict):
                child = target[parent] = {}
            target = child
        target[last] = value
    try:
        config.validate(config.RunConfig, mapping, "x").hash()
    except ConfigError as error:
        assert str(error)


def test_a_thousand_mangled_files_never_traceback(tmp_path):
    rng = random.Random(0)
    alphabet = "{}[]:,-&*!|>'\"#%@`\n\t \\0x=~<?" + "abnoeyst"
    good = (Path(__file__).parents[3] / "configs" / "quickstart.yaml").read_text("utf-8")
    refused = 0
    for _ in range(1000):
        characters = list(good)
        for _ in range(rng.randint(1, 6)):
            position = rng.randrange(len(characters))
            characters[position : position + rng.randint(0, 3)] = rng.choices(alphabet, k=rng.randint(0, 3))
        try:
            load(tmp_path, "".join(characters))
        except ConfigError as error:
            refused += 1
            assert str(error)
    assert refused > 100
