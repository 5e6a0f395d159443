"""How long `distill --help` and `distill plan --help` take, beside a bare interpreter, in one run.

    python scripts/bench/startup.py

Prints CPU and wall milliseconds, median and minimum of 15 fresh processes each, and the ratio to bare Python.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time

ROUNDS = 15
COMMANDS = {
    "python -c pass (floor)": ["-c", "pass"],
    "python -c 'import argparse'": ["-c", "import argparse"],
    "distill --help": ["-m", "distill", "--help"],
    "distill plan --help": ["-m", "distill", "plan", "--help"],
    "python -c 'import pydantic'": ["-c", "import pydantic"],
}


def once(arguments: list[str]) -> tuple[float, float]:
    """(wall ms, CPU ms) of one fresh process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall * 1e3, (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3


def main() -> None:
    """Measure in turn, so that drift hits every command alike."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, arguments in COMMANDS.items():
            taken[name].append(once(arguments))
    floor = statistics.median(wall for wall, _ in taken["python -c pass (floor)"])
    print(f"{'command':<30} {'wall ms':>8} {'min':>6} {'CPU ms':>7} {'x floor':>8}")
    for name, times in taken.items():
        wall, cpu = statistics.median(t[0] for t in times), statistics.median(t[1] for t in times)
        print(f"{name:<30} {wall:8.0f} {min(t[0] for t in times):6.0f} {cpu:7.0f} {wall / floor:8.2f}")


if __name__ == "__main__":
    main()
