"""Take every line that a promise of the query module hangs on out of a copy of the code, one after another.

Each removal must break a test; `python scripts/durability.py` says which did not, and then exits 1. Names as arguments
check only those; `--list` only checks that every line is still there.
"""

# ruff: noqa: E501 - a table of code snippets
from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
Q, OPENAI = "distill/query/", "distill/providers/openai.py"
STORE, SPOOL, POWER, DISK = "tests/unit/query/test_store.py", "tests/unit/query/test_spool.py", "tests/fault/test_power.py", "tests/fault/test_disk.py"  # fmt: skip
KEYS, ASK, PRESSURE = (
    "tests/unit/query/test_keys.py",
    "tests/unit/query/test_ask.py",
    "tests/unit/query/test_pressure.py",
)
KILL, CRASH, HOSTILE = "tests/fault/test_kill.py", "tests/fault/test_crash.py", "tests/fault/test_hostile_answers.py"
DAMAGE = "tests/unit/query/test_damage.py"
BATCH, CANARY = "tests/fault/test_batch.py", "tests/fault/test_canary.py"
PROBE, SAMPLES, USAGE = (f"tests/unit/query/test_{name}.py" for name in ("probe", "samples", "usage"))

# name: (file, what is there, what it becomes, tests that must fail)
LINES = {
    # -- the file ---------------------------------------------------------------------------------------------
    "sync_off": (Q + "database.py", '"synchronous", "FULL", 2', '"synchronous", "OFF", 0', STORE),
    "sync_normal_loses_rows": (Q + "database.py", '"synchronous", "FULL", 2', '"synchronous", "NORMAL", 1', POWER),
    "no_wal": (Q + "database.py", '"journal_mode", "WAL", "wal"', '"journal_mode", "OFF", "off"', STORE),
    "foreign_keys_off": (Q + "database.py", '"foreign_keys", "ON", 1', '"foreign_keys", "OFF", 0', STORE),
    "unchecked_pragma": (Q + "database.py", "if answer != expected:", "if False:", STORE),
    "unlocked": (Q + "database.py", "fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass", ASK),
    "unchecked_hash": (Q + "database.py", "if raw is None or hashlib.sha256(raw).digest() != digest:", "if raw is None:", STORE),
    "foreign_file": (Q + "database.py", "if tables and application != APPLICATION_ID:", "if False:", STORE),
    "newer_file": (Q + "database.py", "if version > SCHEMA_VERSION:", "if False:", STORE),
    "older_file_without_a_copy": (Q + "database.py", 'connection.execute("VACUUM INTO ?", (str(kept),))', "pass", DAMAGE),
    "folder_not_synced": (Q + "database.py", "if fresh or not tables:\n        fsync_dir(path.parent)", "if False:\n        pass", POWER),
    "cut_store_taken_for_whole": (Q + "database.py", "if commits < acknowledged and uuid in (marked, None):", "if False:", DAMAGE),
    "cut_new_store_taken_for_new": (Q + "database.py", "        mark.check(None, 0, path)\n", "        pass\n", DAMAGE),
    "mark_not_written": (Q + "writer.py", "self._mark.set(uuid, commits)", "pass", DAMAGE),
    # -- the commit -------------------------------------------------------------------------------------------
    "not_committed": (Q + "writer.py", 'self._connection.execute("COMMIT")\n        except', 'self._connection.execute("ROLLBACK")\n        except', STORE),
    "told_before_the_commit": (Q + "writer.py", '            self._connection.execute("COMMIT")\n        except', '            _resolve(jobs)\n            self._connection.execute("COMMIT")\n        except', POWER),
    "no_rollback": (Q + "writer.py", 'self._connection.execute("ROLLBACK")', "pass", STORE),
    "no_ballast": (Q + "writer.py", "database.is_full(error) and self._ballast.drop()", "False", DISK),
    "full_disk_goes_on": (Q + "writer.py", "self._disk_full = failure", "pass", DISK),
    "failed_disk_goes_on": (Q + "writer.py", "            self._failure = failure\n", "            pass\n", POWER),
    "one_fault_takes_all_along": (Q + "writer.py", "            for job in jobs:\n                self._commit([job])\n            return\n", "            pass\n", STORE),
    # -- a killed process -------------------------------------------------------------------------------------
    "no_recovery": (Q + "store.py", '[row[0] for row in rows], "uncertain"', '[], "uncertain"', STORE),
    "recovered_as_free": (Q + "store.py", '"uncertain", "process_died"', '"released", "process_died"', STORE),
    "no_replay": (Q + "store.py", "attempts.replay(self._writer, self._spool.found)", "0", SPOOL),
    "spool_not_written": (Q + "results.py", "self.store.receive([", "([", SPOOL),
    "spool_forgotten_too_early": (Q + "spool.py", "if not file.waiting:", "if True:", SPOOL),
    "spool_unchecked": (Q + "spool.py", "or hashlib.sha256(body).digest() != digest", "", SPOOL),
    "spool_of_another_store": (Q + "attempts.py", " AND request_id = (SELECT id FROM request WHERE key = ?)", " AND ? <> x''", SPOOL),
    "replayed_for_free": (Q + "results.py", "            self.store.bill(bills)\n", "            pass\n", SPOOL),
    "asked_again": (Q + "ask.py", "if key not in done", "if True", ASK),
    # -- the money --------------------------------------------------------------------------------------------
    "cap_ignored": (Q + "ledger.py", "uncertain_nano + ?1 <= cap_nano", "uncertain_nano + ?1 <= cap_nano + 500", STORE),
    "no_check": (Q + "ledger.py", "  CHECK (spent_nano + reserved_nano + uncertain_nano <= cap_nano)\n", "  CHECK (1)\n", STORE),
    "not_reserved": (Q + "attempts.py", "if priced and not ledger.reserve(connection, worst, account):", "if False:", STORE),
    "settle_outside_the_books": (Q + "attempts.py", '    ledger.close(connection, "settle", bill)\n', "    pass\n", STORE),
    "unbilled_is_free": (Q + "attempts.py", "charged_nano = coalesce(?, reserved_nano)", "charged_nano = ?", STORE),
    "uncertain_is_free": (Q + "attempts.py", 'charged = row[0] if state == "uncertain" else 0', "charged = 0", STORE),
    "no_line_in_the_ledger": (Q + "ledger.py", '    write(connection, kind, [(end.attempt, end.charged if kind == "settle" else end.held) for end in ended])\n', "", STORE),
    "key_cap_ignored": (Q + "ledger.py", "    if account is None or _fits(connection, amount, account.id):", "    if True:", KEYS),
    "key_share_without_limit": (Q + "keys.py", "left = self.cap_nano - sum(shares.values())", "left = self.cap_nano", KEYS),
    "key_share_never_back": (Q + "keys.py", "self._enter(file, _run(connection), ledger.balance(connection, self.id).committed)", "pass", KEYS),
    "key_share_shrinks_early": (Q + "keys.py", "held = max(shares.pop(run, 0), book.committed)", "shares.pop(run, 0)\n            held = book.committed", KEYS),
    "key_not_given": (Q + "ask.py", ", Account.of(config))", ")", KEYS),
    "unpriced": (Q + "ask.py", "if able.paid and price is None:", "if False:", ASK),
    "uncapped": (Q + "ask.py", "if price is not None and not max_cost_eur > 0:", "if False:", ASK),
    "no_worst_case": (Q + "results.py", "            return worst\n        cost", "            return 0\n        cost", HOSTILE),
    "timeout_is_free": (Q + "results.py", "if failure.billed is False:", "if True:", HOSTILE),
    # -- when to stop -----------------------------------------------------------------------------------------
    "late_stop": (Q + "flow.py", "self._stop(refusal)  # before", "pass  # before", HOSTILE),
    "unsent_stays_reserved": (Q + "flow.py", 'await self.store.release(unsent, "not_sent")', "pass", KILL),
    "no_grace": (Q + "flow.py", "await self.stop.wait(self._tasks, grace)", "pass", KILL),
    "endless_attempts": (Q + "results.py", "spent = item.attempts >= self.policy.max_attempts or", "spent = ", HOSTILE),
    "no_breaker": (Q + "results.py", "share > self.policy.breaker_rate", "False", HOSTILE),
    "no_scout": (Q + "results.py", "        if missing:\n", "        if False:\n", HOSTILE),
    "no_pause": (Q + "pressure.py", "self.pause(wait if wait is not None else", "(wait if wait is not None else", PRESSURE),
    "key_kept": (OPENAI, "if self._key and self._key.encode() in raw:", "if False:", HOSTILE),
    "redirected": (OPENAI, "allow_redirects=False", "allow_redirects=True", HOSTILE),
    "uncapped_body": (OPENAI, "most: int = MAX_BODY", "most: int = 2**40", HOSTILE),
    "quota_is_a_pause": (OPENAI, "any(word in said.lower() for word in QUOTA)", "False", HOSTILE),
    # -- batches, probe, bill ----------------------------------------------------------------------------------
    "orphan_forgotten": (Q + "batch.py", "if remote is None and not job.remote:", "if not job.remote:", BATCH),
    "created_twice": (Q + "batch.py", "if asked and (found := await self.api.find(job.tag, job.created)):", "if asked and (found := None):", BATCH),
    "batch_dies_with_the_process": (Q + "store.py", " AND id NOT IN (SELECT attempt_id FROM job_attempt)", "", BATCH),
    "batch_at_full_price": (Q + "results.py", "batch=self._batched, at=", "batch=False, at=", BATCH),
    "foreign_ids": (Q + "batch.py", "if line.key not in every or line.key in taken:", "if False:", BATCH),
    "missing_line_is_free": (Q + "batch.py", 'BILLED = frozenset({"completed", "vanished"})', "BILLED = frozenset()", BATCH),
    "lacking_but_asked": (Q + "probe.py", "found.top_logprobs is not None and request.top_logprobs > found.top_logprobs", "False", PROBE),
    "unbooked_probe": (Q + "probe.py", "cost = min(worst, cost_nano(usage, self.price))", "cost = 0", PROBE),
    "prompt_paid_per_sample": (Q + "results.py", "        if not batch.shared:\n", "        if True:\n", SAMPLES),
    "usage_believed": (Q + "usage.py", "if self.answers < ENOUGH:", "if True:", USAGE),
    "drift": (Q + "results.py", "        self._refuse_drift()\n", "", HOSTILE),
    "key_in_messages": ("distill/errors.py", '        text = text.replace(value, "***")\n', "        pass\n", CANARY),
    "key_in_request_id": (OPENAI, 'struck(headers.get("x-request-id", ""))', 'headers.get("x-request-id", "")', CANARY),
}  # fmt: skip


def mutated(folder: Path, file: str, old: str, new: str) -> None:
    """A copy of the packages and the tests in ``folder``, with one change."""
    for name in ("distill", "evals", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "catalog.cache"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    text = (folder / file).read_text("utf-8")
    (folder / file).write_text(text.replace(old, new), "utf-8")


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
        "120",
    ]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run([*command, tests], cwd=folder, env=environment, capture_output=True, text=True, check=False)


def missing() -> list[str]:
    """Names whose line is gone, or there twice: the table is older than the code."""
    return [name for name, (file, old, _, _) in LINES.items() if (ROOT / file).read_text("utf-8").count(old) != 1]


def noticed(name: str) -> bool:
    """Whether a test fails without the line."""
    file, old, new, tests = LINES[name]
    with tempfile.TemporaryDirectory(prefix="alambic-durability-") as folder:
        mutated(Path(folder), file, old, new)
        result = run(Path(folder), tests)
    return result.returncode == 1 and "failed" in result.stdout


def unchanged_passes(tests: str) -> bool:
    """The negative control: the same tests pass on a copy without a change."""
    with tempfile.TemporaryDirectory(prefix="alambic-durability-") as folder:
        mutated(Path(folder), Q + "store.py", "", "")
        return run(Path(folder), tests).returncode == 0


def main(arguments: list[str]) -> int:
    """0 when every removal is noticed."""
    if gone := missing():
        print("these lines are not there, or more than once: " + ", ".join(gone))
        return 1
    if arguments == ["--list"]:
        print("\n".join(LINES))
        return 0
    names = arguments or list(LINES)
    broken = [tests for tests in sorted({LINES[name][3] for name in names}) if not unchanged_passes(tests)]
    if broken:
        print("these fail without any change: " + ", ".join(broken))
        return 1
    unnoticed = []
    for name in names:
        started = time.monotonic()
        found = noticed(name)
        print(f"{name}: {'noticed' if found else 'NOT NOTICED'} ({time.monotonic() - started:.0f} s)", flush=True)
        unnoticed += [] if found else [name]
    print(f"{len(names) - len(unnoticed)} of {len(names)} removals noticed")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
