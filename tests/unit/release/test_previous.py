"""A release is held to the one before it, on the same items, and says what changed."""

import json
import shutil

import pytest

from distill.cli import main
from distill.config import RunConfig
from distill.errors import ConfigError, GateFailed, GateInconclusive, IntegrityError
from distill.release import previous
from tests.unit.release.made import base_folder, build, run_folder, write_samples


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """(base, bundle of release 0.1.0)."""
    base = base_folder(tmp_path_factory.mktemp("base") / "tiny-base")
    return base, build(*run_folder(tmp_path_factory.mktemp("one") / "runs" / "sorter", base))


@pytest.fixture
def second(first, tmp_path):
    """(config, run folder) of release 0.2.0, to be compared with the first."""
    return run_folder(tmp_path / "runs" / "sorter", first[0], version="0.2.0", previous=str(first[1]))


def test_the_scores_in_a_bundle_name_no_item(first):
    text = (first[1] / "scores.json").read_text()
    assert len(json.loads(text)) == 208
    assert "item" not in text
    assert "package" not in text


def test_an_equal_student_passes_and_the_changes_are_written_down(second):
    config, folder = second
    values = config.resolved()
    config = RunConfig.model_validate({**values, "train": {**values["train"], "lr": 0.001}})
    bundle = build(config, folder)
    changes = json.loads((bundle / "papers/changes.json").read_text())
    assert changes["quality"]["outcome"] == "pass"
    assert changes["quality"]["items"] == 208
    assert changes["settings"] == [["train.lr", 0.0002, 0.001]]
    text = (bundle / "papers/changes.md").read_text()
    assert "| train.lr | 0.0002 | 0.001 |" in text
    assert "after sorter-0.1.0" in text


def test_a_worse_student_fails_and_no_bundle_is_left(second):
    config, folder = second
    write_samples(folder.eval / "student.parquet", right=lambda n: n % 2)
    with pytest.raises(GateFailed, match=r"against release 0\.1\.0: -0\.25"):
        build(config, folder)
    assert not list(folder.release.iterdir())


def test_a_better_student_passes_and_lost_and_gained_items_are_counted(second):
    config, folder = second
    write_samples(folder.eval / "student.parquet", right=lambda n: n % 4 or n % 8)
    quality = json.loads((build(config, folder) / "papers/changes.json").read_text())["quality"]
    assert (quality["outcome"], quality["lost"], quality["gained"]) == ("pass", 0, 26)


def test_too_few_common_items_are_inconclusive(second):
    config, folder = second
    write_samples(folder.eval / "student.parquet", right=lambda n: n != 1, items=12)
    with pytest.raises(GateInconclusive):
        build(config, folder)
    (folder.eval / "student.parquet").unlink()
    with pytest.raises(GateInconclusive, match="on 0 common items"):
        build(config, folder)


def test_a_previous_release_that_was_changed_or_is_none_is_refused(first, second, tmp_path):
    config, folder = second
    copy = tmp_path / "old"
    shutil.copytree(first[1], copy)
    (copy / "scores.json").write_text("{}")
    release = config.release.model_copy(update={"previous": str(copy)})
    with pytest.raises(IntegrityError, match=r"scores\.json: changed"):
        build(config.model_copy(update={"release": release}), folder)
    with pytest.raises(ConfigError, match="not a bundle"):
        previous.compare(copy, tmp_path / "nowhere", 0.05)


def test_the_previous_release_is_an_input_of_the_stage(second, first):
    from distill.release import run

    assert run.inputs(second[0]) == [first[1] / "SHA256SUMS"]


# -- the command --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def versions(first, tmp_path_factory):
    """(release 0.1.0, an equal 0.2.0, a worse 0.3.0)."""
    made = [first[1]]
    for version, right in (("0.2.0", lambda n: n % 4), ("0.3.0", lambda n: n % 2)):
        path = tmp_path_factory.mktemp(version) / "runs" / "sorter"
        config, folder = run_folder(path, first[0], version=version)
        write_samples(folder.eval / "student.parquet", right=right)
        made.append(build(config, folder))
    return made


def test_two_bundles_are_compared_and_a_worse_one_is_exit_20(versions, capsys, tmp_path):
    old, equal, worse = map(str, versions)
    assert main(["release", equal, "--compare", old]) == 0
    assert "# What changed: sorter-0.2.0, after sorter-0.1.0" in capsys.readouterr().out
    assert main(["release", worse, "--compare", old]) == 20
    shown = capsys.readouterr()
    assert "| right before, wrong now | 52 |" in shown.out
    assert shown.err.startswith("distill: release.previous: against release 0.1.0: -0.25")
    assert main(["release", old, "--compare", worse]) == 0  # back to what was better: a rollback passes
    assert main(["release", str(tmp_path), "--compare", old]) == 2
    assert main(["release", equal, "--compare", str(tmp_path)]) == 2
    shutil.copytree(old, tmp_path / "old")
    (tmp_path / "old" / "scores.json").write_text("{}")
    assert main(["release", equal, "--compare", str(tmp_path / "old")]) == 6


def test_with_a_configuration_compare_is_the_setting_previous(monkeypatch, tmp_path):
    from distill.commands import release, stage

    seen = []
    monkeypatch.setattr(stage, "main", lambda args: seen.append(args.overrides) or 0)
    (tmp_path / "configs").mkdir()
    path = tmp_path / "configs" / "run.yaml"
    path.write_text("name: x\n")
    monkeypatch.chdir(tmp_path)
    assert main(["release", str(path), "release.version=0.2.0", "--compare", "runs/x/release/x-0.1.0"]) == 0
    assert seen == [["release.version=0.2.0", 'release.previous="../runs/x/release/x-0.1.0"']]
    assert release.__doc__


def test_what_changed_is_said_while_the_bundle_is_built(second, capsys):
    build(*second)
    said = capsys.readouterr().err
    assert "after sorter-0.1.0: accuracy 0.000" in said
