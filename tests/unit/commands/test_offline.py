"""Money and permission need no network: every command in a process whose sockets are blocked."""

from __future__ import annotations

import subprocess
import sys

BLOCKED = """
import socket

def blocked(*args, **kwargs):
    raise SystemExit("a socket was opened")

class Blocked(socket.socket):
    __init__ = blocked

socket.socket, socket.create_connection, socket.getaddrinfo = Blocked, blocked, blocked
from distill import catalog, cli

def run(*arguments):
    code = cli.main(list(arguments))
    assert code == 0, (arguments, code)

run("init", "run.yaml", "--teacher", "api")
run("plan", "run.yaml")
run("plan", "run.yaml", "--json")
quote = ["quote", "run.yaml", "--client", "ACME", "--days", "3", "--day-rate", "600", "--volume", "1000"]
run(*quote)
run(*quote, "--lang", "fr")
for table in catalog.TABLES:
    run("catalog", table)
assert cli.main(["plan", "run.yaml", "policy.regions=[CH]"]) == 5  # the gates
assert cli.main(["plan", "run.yaml", "policy.confidential=true"]) == 5
print("all of it")
"""


def test_plan_quote_catalogue_and_gates_work_with_sockets_blocked(tmp_path):
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "ALAMBIC_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("all of it\n")
    assert len(done.stderr.strip().splitlines()) == 2  # one line for each refusal
    assert (tmp_path / "quotes").is_dir()


def test_the_block_bites():
    """Negative control: the same process cannot open a socket."""
    code = BLOCKED.partition("def run")[0] + "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:1')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "a socket was opened" in done.stderr
