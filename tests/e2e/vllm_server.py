"""A real vLLM server for the tests, on the interpreter that VLLM_PYTHON names."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from distill import models

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "smollm2-135m-instruct"
READY_S = 600


@contextlib.contextmanager
def serving(log: Path, *flags: str, **env: str) -> Iterator[str]:
    """Serve SmolLM2-135M-Instruct in float32; the address up to `/v1`. Skips the test without VLLM_PYTHON."""
    if not (python := os.environ.get("VLLM_PYTHON")):
        pytest.skip("VLLM_PYTHON does not name an environment with vLLM")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [str(Path(python).with_name("vllm")), "serve", str(models.resolve(NAME, Path()).path)]
    words += ["--served-model-name", NAME, "--dtype", "float32", "--max-model-len", "512", "--enforce-eager"]
    words += ["--max-num-seqs", "8", "--host", "127.0.0.1", "--port", str(port), *flags]
    offline = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    path = f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"
    with log.open("w") as out:
        process = subprocess.Popen(words, stdout=out, stderr=out, env=os.environ | offline | env | {"PATH": path})
    try:
        until = time.monotonic() + READY_S
        while True:
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < until, log.read_text()[-3000:]
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except OSError:
                time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(60)
