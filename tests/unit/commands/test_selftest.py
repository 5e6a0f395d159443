"""`distill selftest --crash`: the figures of the user's own disk, and exit 6 when a promise is broken there."""

from __future__ import annotations

import functools

from distill import cli
from distill.query import crash
from tests.fault.test_crash import forgetful


def test_the_figures_are_printed_and_nothing_is_left_behind(tmp_path, capsys):
    assert cli.main(["selftest", "--crash", "--kills", "3", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    for figure in ("acknowledged rows lost", "asked again", "nano-EUR apart", "durable rows per second", "one sync"):
        assert figure in said
    assert list(tmp_path.iterdir()) == []


def test_a_broken_promise_ends_with_exit_6_and_its_figure(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(crash, "campaign", functools.partial(crash.campaign, target=forgetful))
    assert cli.main(["selftest", "--crash", "--kills", "3", str(tmp_path)]) == 6
    assert "lost" in capsys.readouterr().err


def test_wrong_arguments_are_one_line(tmp_path, capsys):
    for arguments in ([], ["--crash", "--kills", "0"], ["--crash", str(tmp_path / "nowhere")]):
        assert cli.main(["selftest", *arguments]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
