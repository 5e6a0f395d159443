"""Rows of every kind of file become prompts, or are refused by line before anything is asked."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill import prompts
from distill.config import Prompts
from distill.errors import ConfigError, DataError
from distill.records import Message, Prompt

if TYPE_CHECKING:
    from pathlib import Path

ROWS = [{"id": f"r{n}", "prompt": f"Question {n}?", "lang": "en" if n % 3 else "fr"} for n in range(12)]


def write_jsonl(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def settings_of(**values) -> Prompts:
    return Prompts(path="x", **values)


def write_csv(path: Path, rows: list) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(path: Path, rows: list) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize(
    ("name", "write"), [("a.jsonl", write_jsonl), ("a.csv", write_csv), ("a.parquet", write_parquet)]
)
def test_every_kind_of_file_gives_the_same_prompts(tmp_path, name, write):
    built = prompts.build(settings_of(lang_field="lang"), write(tmp_path / name, ROWS), 0)
    assert [p.id for p in built] == [row["id"] for row in ROWS]
    assert built[3].messages == (Message("user", "Question 3?"),)
    assert built[3].lang == "fr"
    assert built[3].meta == ROWS[3]
    assert prompts.load_rows(tmp_path / name) == ROWS


def test_a_saved_dataset_folder_is_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    assert prompts.load_rows(tmp_path / "saved") == ROWS
    datasets.DatasetDict({"one": datasets.Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "splits")
    with pytest.raises(DataError, match="name one: one"):
        prompts.load_rows(tmp_path / "splits")


def test_all_broken_lines_are_named_at_once_and_five_are_shown(tmp_path):
    path = tmp_path / "broken.jsonl"
    good = b'{"id": "%d", "prompt": "hi"}\n'
    bad = [
        b'{"id": 1',
        b"[1, 2]",
        b'{"id": "x", "prompt": NaN}',
        b'{"id": "\xff"}',
        b'{"id": "d", "id": "e", "prompt": "p"}',
        b'{"id": "s", "prompt": "\\ud800"}',
        b'{"id": "deep", "prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ]
    path.write_bytes(b"".join(good % n + line + b"\n" for n, line in enumerate(bad)))
    with pytest.raises(DataError) as caught:
        prompts.build(settings_of(), path, 0)
    text = str(caught.value)
    assert caught.value.exit_code == 4
    assert text.count(f"{path}:") == 5
    assert f"{path}:2: not JSON" in text
    assert f"{path}:4: expected an object" in text
    assert "and 2 more" in text
    assert "7 broken" in text
    assert "\n" not in text
    built = prompts.scan(settings_of(on_error="skip"), path, 0)
    assert (len(built.prompts), len(built.skipped), built.read) == (7, 7, 14)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"id": "a"}, "the field 'prompt' is missing"),
        ({"id": "a", "promt": "x"}, "did you mean 'promt'"),
        ({"prompt": "x"}, "the field 'id' is missing"),
        ({"id": None, "prompt": "x"}, "must be text or a whole number"),
        ({"id": "r0", "prompt": "x"}, "already used in line 1"),
        ({"id": "a", "prompt": "  "}, "empty"),
        ({"id": "a", "messages": []}, "not empty"),
        ({"id": "a", "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}, "user's"),
        ({"id": "a", "messages": [{"role": "tool", "content": "q"}]}, "turn 1"),
    ],
)
def test_a_row_that_cannot_be_a_prompt_says_why(tmp_path, row, reason):
    path = write_jsonl(tmp_path / "a.jsonl", [ROWS[0], row])
    with pytest.raises(DataError, match=reason) as caught:
        prompts.build(settings_of(), path, 0)
    assert f"{path}:2:" in str(caught.value)


def test_a_csv_row_with_a_missing_field_is_named_by_its_first_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('id,prompt\n1,"two\nlines"\n2\n3,ok\n', "utf-8")
    with pytest.raises(DataError, match=r"a\.csv:4: 1 fields, the header has 2"):
        prompts.build(settings_of(), path, 0)
    assert [p.id for p in prompts.build(settings_of(on_error="skip"), path, 0)] == ["1", "3"]


@pytest.mark.parametrize("name", ["absent.jsonl", "absent", "notes.txt", "empty.jsonl", "bad.parquet", "folder"])
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, name):
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "empty.jsonl").write_text("\n\n")
    (tmp_path / "bad.parquet").write_text("x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError) as caught:
        prompts.build(settings_of(), tmp_path / name, 0)
    assert "\n" not in str(caught.value)


def test_rows_without_any_id_are_numbered(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "a"}, {"prompt": "b"}])
    assert [p.id for p in prompts.build(settings_of(), path, 0)] == ["row-1", "row-2"]


def test_a_conversation_is_used_as_it_is():
    turns = [
        {"role": "user", "content": "{{ 7 * 7 }}"},
        {"role": "assistant", "content": "no"},
        {"role": "user", "content": "b"},
    ]
    plain = prompts.render({"messages": turns}, "", "unused {{ x }}")
    assert [(m.role, m.content) for m in plain] == [(t["role"], t["content"]) for t in turns]
    assert prompts.render({"messages": turns}, "Be brief.", "")[0] == Message("system", "Be brief.")
    own = [{"role": "system", "content": "Mine."}, *turns]
    assert prompts.render({"messages": own}, "Be brief.", "")[0] == Message("system", "Mine.")


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ prompt.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{% for x in [].__class__.__base__.__subclasses__() %}{{ x }}{% endfor %}",
        "{{ items.append(1) }}",
        "{% include '/etc/passwd' %}",
        "{{ range(10 ** 9) | list }}",
        "{{ prompt * 9999999999 }}",
        "{{ 9 ** 9 ** 9 }}",
    ],
)
def test_a_template_cannot_reach_code_or_files_or_change_the_row(template):
    row = {"prompt": "x", "items": []}
    with pytest.raises(prompts.BadRow):
        prompts.render(row, "", template)
    assert row == {"prompt": "x", "items": []}


def test_a_template_that_is_none_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="not a Jinja template"):
        prompts.build(settings_of(template="{{ prompt"), write_jsonl(tmp_path / "a.jsonl", ROWS), 0)


def test_braces_in_a_row_are_text_and_not_a_template():
    assert prompts.render({"prompt": "{{ secret }} {% x %}"}, "", "{{ prompt }}")[0].content == "{{ secret }} {% x %}"


LANGS = st.sampled_from(["en", "fr", "de", "it"])
POOL = st.lists(st.tuples(LANGS, st.integers(0, 8)), min_size=1, max_size=60)


@settings(max_examples=200, deadline=None)
@given(POOL, st.sets(LANGS, min_size=1), st.integers(1, 40) | st.none(), st.integers(0, 5))
def test_languages_come_in_equal_numbers_and_the_seed_decides_which(pool, langs, limit, seed):
    items = [Prompt(str(n), (Message("user", "q"),), f"c{cluster}", lang) for n, (lang, cluster) in enumerate(pool)]
    wanted = tuple(sorted(langs))
    have = {lang: sum(p.lang == lang for p in items) for lang in wanted}
    if not all(have.values()) or (limit is not None and limit < len(wanted)):
        with pytest.raises(DataError):
            prompts.choose(items, wanted, limit, seed)
        return
    chosen = prompts.choose(items, wanted, limit, seed)
    counts = {lang: sum(p.lang == lang for p in chosen) for lang in wanted}
    assert len(set(counts.values())) == 1
    assert sum(counts.values()) == len(chosen)
    assert limit is None or len(chosen) <= limit
    assert chosen == prompts.choose(items, wanted, limit, seed)


def test_whole_clusters_are_drawn_and_another_seed_draws_others():
    items = [Prompt(f"{c}-{n}", (), f"c{c}") for c in range(40) for n in range(3)]
    chosen = prompts.choose(items, (), 31, 0)
    assert len(chosen) == 30
    assert all(sum(p.cluster == q.cluster for q in chosen) == 3 for p in chosen)
    assert {p.cluster for p in chosen} != {p.cluster for p in prompts.choose(items, (), 31, 1)}


def test_rows_added_later_do_not_reshuffle_the_draw():
    items = [Prompt(str(n), (), str(n)) for n in range(200)]
    before = {p.id for p in prompts.choose(items[:150], (), 50, 3)}
    after = {p.id for p in prompts.choose(items, (), 50, 3)}
    assert len(before & after) >= 30


def test_a_language_that_no_row_has_is_named(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(DataError, match="no row in mt"):
        prompts.build(settings_of(lang_field="lang", languages=("en", "mt")), path, 0)


PIECES = st.sampled_from(
    [
        b"id,prompt\n",
        b'{"id": "a", "prompt": "x"}\n',
        b"1,2\n",
        b'"',
        b",",
        b"\n",
        b"\r",
        b"\x00",
        b"\xff",
        b"PAR1",
        b"{",
        b"]",
    ]
)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".parquet"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(PIECES | st.binary(max_size=8), max_size=8), on_error=st.sampled_from(["refuse", "skip"]))
def test_no_file_makes_a_traceback(tmp_path, suffix, parts, on_error):
    path = tmp_path / f"fuzz{suffix}"
    path.write_bytes(b"".join(parts))
    try:
        built = prompts.scan(settings_of(on_error=on_error), path, 0)
    except DataError as error:
        assert "\n" not in str(error)
        return
    json.dumps([prompt.meta for prompt in built.prompts], ensure_ascii=False).encode("utf-8")


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="{}%|.-_()[]'\"abx10 ~*/:,", max_size=30))
def test_no_template_makes_a_traceback(template):
    try:
        prompts.render({"a": "text", "b": 3, "x": [1, {"a": None}]}, "", template)
    except (ConfigError, prompts.BadRow) as error:
        assert str(error)


# -- quotas --------------------------------------------------------------------------------------------------------

SOURCES = st.sampled_from(["wiki", "mail", "law"])
QUOTAS = st.dictionaries(SOURCES | st.just("*"), st.integers(0, 12), max_size=4)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(LANGS, SOURCES, st.integers(0, 8)), min_size=1, max_size=60),
    st.dictionaries(LANGS, st.integers(0, 12), max_size=4),
    QUOTAS,
    st.integers(1, 40) | st.none(),
)
def test_no_quota_is_exceeded_and_room_is_left_only_where_rows_are_missing(pool, langs, sources, limit):
    items = [
        Prompt(str(n), (), f"c{cluster}", meta={"lang": lang, "source": source})
        for n, (lang, source, cluster) in enumerate(pool)
    ]
    quotas = {"lang": langs, "source": sources}
    try:
        chosen = prompts.choose(items, (), limit, 0, quotas=quotas)
    except DataError:
        chosen = []

    def room(prompt, taken):
        if limit is not None and len(taken) >= limit:
            return False
        for field, most in quotas.items():
            value = prompt.meta[field]
            bound = most.get(value, most.get("*"))
            if bound is not None and sum(p.meta[field] == value for p in taken) >= bound:
                return False
        return True

    ids = {p.id for p in chosen}
    assert len(ids) == len(chosen) <= (limit or 60)
    for p in chosen:
        assert room(p, [q for q in chosen if q is not p])
    assert not any(room(p, chosen) for p in items if p.id not in ids), "a row that fits was left out"


def test_a_quota_that_cannot_be_filled_is_said(tmp_path, capsys):
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    built = prompts.build(settings_of(quotas={"lang": {"fr": 2, "en": 30}}), path, 0)
    assert [p.meta["lang"] for p in built].count("fr") == 2
    assert "prompts.quotas.lang asks for: en 8 of 30" in capsys.readouterr().err


# -- personal data before it is sent -------------------------------------------------------------------------------

PLANTED = {
    "email": ["anna.kowalska@firma.pl", "o'brien+x@mail.gov.ie"],
    "iban": [
        "DE89 3704 0044 0532 0130 00",
        "FR1420041010050500013M02606",
        "NL91ABNA0417164300",
        "EE382200221020145685",
    ],
    "card": ["4111 1111 1111 1111", "5500-0000-0000-0004"],
    "phone": ["+33 1 42 68 53 00", "+49 30 901820", "0171 2345678", "+48 22 694 70 00", "00351 21 391 4000"],
}
CLEAN = [
    "Invoice 2026-11-23, 1 250,00 EUR",
    "write to info@example.com",
    "version 3.12.4, room 0.12",
    "EN 13757-4:2019",
]


@pytest.mark.parametrize("kind", PLANTED)
def test_planted_personal_data_never_leaves_unless_it_is_allowed(tmp_path, kind):
    rows = [{"id": f"r{n}", "prompt": f"Please answer {text} today."} for n, text in enumerate(PLANTED[kind])]
    rows.append({"id": "turns", "messages": [{"role": "user", "content": f"Hi, {PLANTED[kind][0]}!"}]})
    rows += [{"id": f"clean{n}", "prompt": text} for n, text in enumerate(CLEAN)]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    planted = len(PLANTED[kind]) + 1
    sent = prompts.scan(settings_of(personal_data="mask"), path, 0)
    text = json.dumps([[p.messages[-1].content, p.meta] for p in sent.prompts], ensure_ascii=False)
    assert not any(find in text for find in PLANTED[kind])
    assert text.count(f"[{kind.upper()}]") == 2 * planted
    assert sent.masked == planted
    assert [p.messages[0].content for p in sent.prompts[planted:]] == CLEAN, "nothing else is touched"
    with pytest.raises(DataError, match=rf"{planted} broken row.*a\.jsonl:1: holds personal data \({kind}"):
        prompts.scan(settings_of(personal_data="block"), path, 0)
    left = prompts.scan(settings_of(personal_data="block", on_error="skip"), path, 0)
    assert [p.messages[0].content for p in left.prompts] == CLEAN
    assert len(left.skipped) == planted
    allowed = prompts.build(settings_of(), path, 0)
    assert PLANTED[kind][0] in allowed[0].messages[0].content, "control: the planted text is found by looking for it"


def test_clusters_stay_apart_when_their_name_is_masked_in_the_prompt(tmp_path):
    rows = [{"id": f"r{n}", "who": f"p{n}@firma.pl"} for n in range(3)]
    asked = settings_of(personal_data="mask", cluster_field="who", template="Write to {{ who }}")
    built = prompts.build(asked, write_jsonl(tmp_path / "a.jsonl", rows), 0)
    assert len({p.cluster for p in built}) == 3
    assert {p.messages[0].content for p in built} == {"Write to [EMAIL]"}


def test_a_folder_of_parquet_files_is_numbered_through(tmp_path):
    (tmp_path / "parts").mkdir()
    write_parquet(tmp_path / "parts/a.parquet", ROWS[:5])
    write_parquet(tmp_path / "parts/b.parquet", [*ROWS[5:7], {**ROWS[0], "id": None}])
    assert len(prompts.build(settings_of(on_error="skip"), tmp_path / "parts", 0)) == 7
    with pytest.raises(DataError, match="parts:8: the field 'id' must be text"):
        prompts.build(settings_of(), tmp_path / "parts", 0)
