"""A program that a model wrote runs within limits, and only one that reaches its last line has passed."""

import time

import pytest

from distill.sandbox import OUTPUT, run_python


def test_a_program_that_reaches_its_end_has_passed():
    run = run_python("import math\nassert math.sqrt(4) == 2\nprint('so far')")
    assert (run.passed, run.reason, run.output) == (True, "", "so far\n")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("assert 1 == 2", "error"),
        ("def f(: pass", "error"),
        ("import sys; sys.exit(0)", "exit"),  # the tests behind it never ran
        ("import os; os._exit(0)", "exit"),
        ("x = 'a' * 10**10", "memory"),
        ("print('x' * 10**7)", "error"),  # more than it may write
        ("import torch", "error"),  # the standard library alone
        ("\ud800", "error"),
        ("\x00", "error"),
    ],
)
def test_anything_else_has_not(program, reason):
    run = run_python(program)
    assert (run.passed, run.reason) == (False, reason)
    assert len(run.output) <= OUTPUT


def test_a_program_that_never_ends_is_ended_with_what_it_started():
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])"
    started = time.monotonic()
    assert run_python("while True: pass", timeout_s=1).reason == "timeout"
    assert run_python(child, timeout_s=1).reason in ("timeout", "error")  # an ordinary user starts no process at all
    assert time.monotonic() - started < 5


def test_keys_of_the_environment_and_the_folder_of_the_run_are_out_of_sight(monkeypatch, tmp_path):
    monkeypatch.setenv("SOME_API_KEY", "secret")
    monkeypatch.chdir(tmp_path)
    run = run_python("import os\nassert 'SOME_API_KEY' not in os.environ\nopen('mine', 'w').write('x')")
    assert run.passed
    assert list(tmp_path.iterdir()) == []


def test_nothing_it_started_outlives_it(tmp_path):
    """Also a process that left the program's group: they all belong to a kind that ends with its first one."""
    mark = tmp_path / "alive"
    away = f"import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(1)\n    open({str(mark)!r}, 'w')"
    run = run_python(away, timeout_s=5)
    assert run.reason in ("", "error")
    time.sleep(1.5)
    assert not mark.exists()
