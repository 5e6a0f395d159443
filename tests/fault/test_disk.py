"""A full or failing disk: no further call is paid for, what was paid for is kept, the same command goes on."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from distill.errors import DiskProblem
from distill.query.ask import ask_all
from distill.query.store import Store
from tests.fault.asking import QUICK, provider_of, requests_of
from tests.fault.hostile import HostileTeacher
from tests.unit.query.prices import PRICE

TEXTS = [f"question {n} " + "x" * 2000 for n in range(300)]
ROOT = Path(__file__).parents[2]


def ask(url, store):
    return ask_all(
        provider_of(url), requests_of(TEXTS), store, title="test", price=PRICE, max_cost_eur=10.0, policy=QUICK
    )


def test_a_full_store_stops_before_more_is_paid_and_the_same_command_goes_on(tmp_path):
    with HostileTeacher(latency_s=0.02) as server:
        with Store(tmp_path / "run.db") as store:
            store._writer.execute("PRAGMA max_page_count = 40")
            store._ballast.drop()  # without it: the hard case, answers in flight cannot be kept
            with pytest.raises(DiskProblem) as caught:
                ask(server.url, store)
        assert caught.value.exit_code == 74
        sent = server.sends()
        assert sent < 300
        with Store(tmp_path / "run.db") as store:
            totals = store.totals()
            assert store.audit() == []
            assert sent - totals.answers <= 2 * 16, "only what was in flight or being written"
            assert totals.uncertain >= sent - totals.answers
            assert totals.balance.committed >= server.bill(PRICE)
            ask(server.url, store)
            assert store.totals().answers == 300


SMALL_DISK = """
import sys
sys.path.insert(0, sys.argv[3])
from pathlib import Path
from distill.errors import DiskProblem
from tests.fault import test_disk
from distill.query.store import Store
from random import Random
test_disk.TEXTS[:] = [f"question {n} " + "".join(Random(n).choices("abcdefgh", k=20000)) for n in range(1500)]
try:
    with Store(Path(sys.argv[2]) / "run.db") as store:
        test_disk.ask(sys.argv[1], store)
except DiskProblem as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_on_a_disk_that_is_full_every_answer_that_was_paid_for_is_kept(tmp_path):
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("cannot mount a small disk here")
    script = f"""
      mount -t tmpfs -o size=8m none {tmp_path} &&
      {sys.executable} -c "$1" "$2" {tmp_path} {ROOT}; code=$?
      cp {tmp_path}/run.db* "$3"; exit $code"""
    kept = tmp_path.with_name(tmp_path.name + "-kept")
    kept.mkdir()
    with HostileTeacher(latency_s=0.02) as server:
        done = subprocess.run(
            ["unshare", "-rm", "bash", "-c", script, "-", SMALL_DISK, server.url, str(kept)],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 74, done.stderr[-2000:]
        assert "free the disk" in done.stdout
        sent, bill = server.sends(), server.bill(PRICE)
    assert 0 < sent < 1500
    with Store(kept / "run.db") as store:
        totals = store.totals()
        assert store.audit() == []
    assert totals.answers == sent, "nothing that was paid for is lost"
    assert totals.balance.spent == bill
