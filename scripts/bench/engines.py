"""One teacher and one student through three engines: transformers, llama.cpp's server, a vLLM server; one report.

    python scripts/bench/engines.py RUN.yaml --llama PYTHON --teacher-gguf FILE --vllm PYTHON [--limit 200] [--out DIR]

RUN.yaml is a run whose student is trained and whose eval section names the items. Teacher, untouched student and
student answer the same items through each engine with the same weights: the student is merged once, and written as
GGUF by the product; the teacher's GGUF is the file its weights come from. Each reads its own prompt, the untouched
student the teacher's. Servers run one at a time on loopback.

Figures: `distill compare` over all nine files of answers, and item by item how many answers the engines share.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

sys.path[0] = str(Path(__file__).resolve().parents[2])  # beside this file lies an evals.py that would hide the package

from distill import config as configuration  # noqa: E402
from distill import models  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

WHO = ("teacher", "untouched", "student")
LOADING_S = 600


def distill(*arguments: str) -> None:
    """Run the command; end with its words when it fails."""
    done = subprocess.run([sys.executable, "-m", "distill", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"distill {' '.join(arguments)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


def merged(run, folder: Path, out: Path) -> Path:
    """The student as a folder of its own: base and adapter in one."""
    base = models.resolve(run.student.model, run.resolve(".")).path
    facts = json.loads((folder / "student" / "student.json").read_text("utf-8"))
    if not facts["adapter"]:
        return folder / "student"
    if not (out / "config.json").is_file():
        model, tokenizer = models.load_causal_lm(base, "float32", folder / "student" / "adapter")
        model.merge_and_unload().save_pretrained(out)
        tokenizer.save_pretrained(out)
    return out


def as_gguf(folder: Path, path: Path) -> Path:
    """The folder's weights as a GGUF file in F16."""
    from distill.release import gguf_writer
    from distill.release.targets._base import Job

    if not path.is_file():
        gguf_writer.write(Job(folder, folder, None, path.parent, path.stem, path.stem), path, "f16")
    return path


def suite(run, prompts, limit: int, path: Path) -> Path:
    """The run's items with one prompt for all, as a suite."""
    task = run.eval.tasks[0].model_dump(mode="json", exclude_none=True)
    task |= {
        "path": str(run.resolve(task["path"])),
        "limit": limit,
        "examples": [example.model_dump() for example in prompts.examples],
    }
    values = {
        "system": prompts.system,
        "template": prompts.template,
        "choices": list(run.prompts.choices),
        "max_new_tokens": run.generate.max_new_tokens,
        "seed": run.seed,
        "tasks": [task],
    }
    path.write_text(json.dumps(values, ensure_ascii=False))
    return path


@contextlib.contextmanager
def server(command: list[str], log: Path) -> Iterator[str]:
    """A server on a free port, until the block ends; the address up to /v1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    with log.open("wb") as output:
        child = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            env={**os.environ, **quiet, "PYTHONPATH": ""},
            stdout=output,
            stderr=output,
        )
        try:
            until = time.monotonic() + LOADING_S
            while True:
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=2).close()
                    break
                if child.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"the server did not start:\n{log.read_text(errors='replace')[-2000:]}")
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(30)
            child.kill()
            child.wait()


def ask_here(weights: dict[str, Path], suites: dict[str, Path], out: Path) -> dict[str, Path]:
    """The transformers engine: who -> its file of answers."""
    made = {
        who: settings(out, who, {"kind": "transformers", "model": f"path:{path}", "dtype": "float32"})
        for who, path in weights.items()
    }
    found = {}
    for prompt in ("teacher", "student"):  # two prompts; the untouched student counts with the teacher's
        folder = out / f"transformers-{prompt}"
        pair = [f"{who}={made[who]}" for who in (prompt, "untouched")]
        distill("compare", *pair, "--suite", str(suites[prompt]), "--out", str(folder))
        found |= {who: folder / f"{who}.parquet" for who in (prompt, "untouched") if who not in found}
    return found


def ask_served(
    engine: str, who: str, command: list[str], suite_path: Path, here: Path, out: Path
) -> tuple[Path, float | None]:
    """(the file of answers of a model behind a server, seconds with its start); an earlier file is kept."""
    name = f"{who}-{engine}"
    path = out / name / f"{name}.parquet"
    if path.is_file():
        return path, None
    started = time.monotonic()
    with server(command, out / f"{name}.log") as address:
        concurrency = 1 if engine == "llama.cpp" else 16
        slow = {"concurrency": concurrency, "timeout_s": LOADING_S}  # two cores, and sixteen wait for one another
        mine = settings(out, name, {"kind": "openai", "model": who, "base_url": address, **slow})
        pair = [f"{name}={mine}", f"{who}-transformers={here}"]
        distill("compare", *pair, "--suite", str(suite_path), "--out", str(path.parent))
    return path, time.monotonic() - started


def main() -> None:
    """Ask everyone through every engine, compare, print how far the engines agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--llama", metavar="PYTHON", help="interpreter with llama-cpp-python[server]")
    parser.add_argument("--teacher-gguf", type=Path, metavar="FILE")
    parser.add_argument("--vllm", metavar="PYTHON", help="interpreter with vLLM")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--without", action="append", default=[], metavar="WHO-ENGINE", help="such as teacher-vllm")
    parser.add_argument("--out", type=Path, default=Path("engines"))
    args = parser.parse_args()
    if args.run is None:
        print("left out: it needs a finished run and environments with the engines; see --help")
        return
    run, out = configuration.load(args.run), args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    base = run.resolve(".")
    weights = {
        "teacher": models.resolve(run.teacher.model, base).path,
        "untouched": models.resolve(run.student.model, base).path,
        "student": merged(run, Path("runs") / run.name, out / "merged"),
    }
    prompts = {who: run.student_prompts() if who == "student" else run.prompts for who in WHO}
    suites = {who: suite(run, prompts[who], args.limit, out / f"suite-{who}.yaml") for who in WHO}
    here = ask_here(weights, suites, out)
    files = {("transformers", who): here[who] for who in WHO}
    for engine, interpreter in (("llama.cpp", args.llama), ("vllm", args.vllm)):
        for who in WHO if interpreter else ():
            if f"{who}-{engine}" in args.without:
                continue
            command = served(engine, interpreter, who, weights[who], out, args.teacher_gguf)
            files[engine, who], seconds = ask_served(engine, who, command, suites[who], here[who], out)
            print(f"{who} through {engine}: " + ("kept" if seconds is None else f"{seconds:.0f} s with its start"))
    everyone = [f"{who}-{engine}={path}" for (engine, who), path in files.items()]
    roles = ["--reference", "teacher-transformers", "--candidate", "student-transformers"]
    distill("compare", *everyone, *roles, "--out", str(out / "report"))
    show(files, out / "report" / "report.json")


def settings(out: Path, name: str, values: dict) -> Path:
    """A provider's settings as a file."""
    path = out / f"{name}.yaml"
    path.write_text(json.dumps(values))
    return path


def served(engine: str, interpreter: str, who: str, weights: Path, out: Path, teacher: Path | None) -> list[str]:
    """The command that serves a model."""
    if engine == "vllm":
        return [
            interpreter, "-m", "vllm.entrypoints.openai.api_server", "--model", str(weights),
            "--served-model-name", who, "--dtype", "float32", "--max-model-len", "2048",
            "--max-num-seqs", "16", "--enforce-eager",
        ]  # fmt: skip
    path = teacher if who == "teacher" and teacher else as_gguf(weights, out / f"{who}.gguf")
    cores = str(len(os.sched_getaffinity(0)))
    return [
        interpreter, "-m", "llama_cpp.server", "--model", str(path), "--model_alias", who, "--n_ctx", "2048",
        "--n_threads", cores, "--n_threads_batch", cores,
    ]  # fmt: skip


def show(files: dict, report: Path) -> None:
    """Accuracy with intervals, then the share of items on which each pair of engines gives the same answer."""
    from evals import samples

    facts = json.loads(report.read_text("utf-8"))
    for arm in facts["arms"]:
        a = arm["accuracy"]
        print(f"{arm['name']:26} {100 * a['value']:5.1f} % [{100 * a['low']:.1f}, {100 * a['high']:.1f}]  n {arm['n']}")
    print(facts["verdict"]["headline"])
    answers = {key: {s.id: s.predicted for s in samples.read(path)} for key, path in files.items()}
    engines = list(dict.fromkeys(engine for engine, _ in files))
    for who in WHO:
        for number, first in enumerate(engines):
            for second in engines[number + 1 :]:
                if (first, who) not in answers or (second, who) not in answers:
                    continue
                one, two = answers[first, who], answers[second, who]
                same = sum(one[key] == two[key] for key in one)
                print(f"{who:10} {first:12} and {second:10} the same answer to {same} of {len(one)}")
    print(f"report: {report.with_suffix('.html')}")


if __name__ == "__main__":
    main()
