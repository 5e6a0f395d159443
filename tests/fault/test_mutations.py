# ruff: noqa: E501 - a table of code snippets
"""Each line that a promise hangs on is taken out of a copy of the code in turn: a test must notice, or it proves nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNIT, KILL, HOSTILE, DISK = "tests/unit/query", "tests/fault/test_kill.py", "tests/fault/test_hostile_answers.py", "tests/fault/test_disk.py"  # fmt: skip
QUERY, OPENAI = "distill/query/", "distill/providers/openai.py"

# name: (file, what is there, what it becomes, tests that must fail)
MUTATIONS = {
    "sync_off": (QUERY + "database.py", '"synchronous", "FULL", 2', '"synchronous", "OFF", 0', UNIT),
    "no_wal": (QUERY + "database.py", '"journal_mode", "WAL", "wal"', '"journal_mode", "OFF", "off"', UNIT),
    "unchecked_pragma": (QUERY + "database.py", "if answer != expected:", "if False:", UNIT),
    "unlocked": (QUERY + "database.py", "fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass", UNIT),
    "unchecked_hash": (QUERY + "database.py", "if raw is None or hashlib.sha256(raw).digest() != digest:", "if raw is None:", UNIT),
    "foreign_file": (QUERY + "database.py", "if tables and mark != APPLICATION_ID:", "if False:", UNIT),
    "newer_file": (QUERY + "database.py", "if version > SCHEMA_VERSION:", "if False:", UNIT),
    "not_committed": (QUERY + "store.py", 'self._writer.execute("COMMIT")\n        except', 'self._writer.execute("ROLLBACK")\n        except', UNIT),
    "no_recovery": (QUERY + "store.py", '[row[0] for row in rows], "uncertain"', '[], "uncertain"', UNIT),
    "recovered_as_free": (QUERY + "store.py", '"uncertain", "process_died"', '"released", "process_died"', UNIT),
    "no_ballast": (QUERY + "store.py", "database.is_full(error) and self._ballast.drop()", "False", DISK),
    "failed_disk_goes_on": (QUERY + "store.py", "self._disk_full = failure", "pass", DISK),
    "cap_ignored": (QUERY + "ledger.py", "uncertain_nano + ?1 <= cap_nano", "uncertain_nano + ?1 <= cap_nano + 500", UNIT),
    "no_check": (QUERY + "ledger.py", "  CHECK (spent_nano + reserved_nano + uncertain_nano <= cap_nano)\n", "  CHECK (1)\n", UNIT),
    "settle_outside_the_books": (QUERY + "attempts.py", "ledger.move(connection, reserved, spent=spent)", "pass", UNIT),
    "uncertain_is_free": (QUERY + "attempts.py", 'uncertain=total if state == "uncertain" else 0', "uncertain=0", UNIT),
    "asked_again": (QUERY + "ask.py", "if key not in done", "if True", UNIT),
    "unpriced": (QUERY + "ask.py", "if able.paid and price is None:", "if False:", UNIT),
    "uncapped": (QUERY + "ask.py", "if price is not None and not max_cost_eur > 0:", "if False:", UNIT),
    "late_stop": (QUERY + "flow.py", "self._stop(refusal)  # before", "pass  # before", HOSTILE),
    "unsent_stays_reserved": (QUERY + "flow.py", 'await self.store.release(unsent, "not_sent")', "pass", KILL),
    "no_grace": (QUERY + "flow.py", "await self.stop.wait(self._tasks, grace)", "pass", KILL),
    "endless_attempts": (QUERY + "results.py", "spent = item.attempts >= self.policy.max_attempts or", "spent = ", HOSTILE),
    "no_breaker": (QUERY + "results.py", "share > self.policy.breaker_rate", "False", HOSTILE),
    "no_scout": (QUERY + "results.py", "        if missing:\n", "        if False:\n", HOSTILE),
    "timeout_is_free": (QUERY + "results.py", "if failure.billed is False:", "if True:", HOSTILE),
    "no_worst_case": (QUERY + "results.py", "return item.worst\n        cost", "return 0\n        cost", HOSTILE),
    "no_pause": (QUERY + "pressure.py", "self.pause(wait if wait is not None else", "(wait if wait is not None else", UNIT),
    "key_kept": (OPENAI, "if self._key and self._key.encode() in raw:", "if False:", HOSTILE),
    "redirected": (OPENAI, "allow_redirects=False", "allow_redirects=True", HOSTILE),
    "uncapped_body": (OPENAI, "if size > MAX_BODY:", "if False:", HOSTILE),
    "quota_is_a_pause": (OPENAI, "any(word in said.lower() for word in QUOTA)", "False", HOSTILE),
}  # fmt: skip


def mutated(folder: Path, file: str, old: str, new: str) -> None:
    """A copy of the packages and the tests in ``folder``, with one change."""
    for name in ("distill", "evals", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "catalog.cache"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    text = (folder / file).read_text()
    assert text.count(old) == 1, f"{file}: {old!r} is there {text.count(old)} times"
    (folder / file).write_text(text.replace(old, new))


def run(folder: Path, tests: str) -> subprocess.CompletedProcess[str]:
    """The tests, on the copy."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-m",
        "not fault",
        "-p",
        "no:cacheprovider",
        "--timeout",
        "60",
        tests,
    ]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", MUTATIONS)
def test_every_mutation_names_a_line_that_is_still_there(name):
    file, old, _, _ = MUTATIONS[name]
    assert (ROOT / file).read_text().count(old) == 1


@pytest.mark.fault
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_missing_line_of_defence_breaks_a_test(tmp_path, name):
    file, old, new, tests = MUTATIONS[name]
    mutated(tmp_path, file, old, new)
    result = run(tmp_path, tests)
    assert result.returncode == 1, f"nothing noticed: {result.stdout[-500:]}"
    assert "failed" in result.stdout, result.stdout[-2000:]


@pytest.mark.fault
def test_the_copy_without_a_change_passes(tmp_path):
    mutated(tmp_path, QUERY + "ask.py", "import hashlib", "import hashlib  # unchanged")
    assert run(tmp_path, UNIT).returncode == 0
