"""llama.cpp: the server's command line for the GGUF file, loopback only."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from distill.release.targets._base import Export, Job, TargetConfig

NEEDS = ("gguf",)
FOLDER = "serve/llamacpp"


class Config(TargetConfig):
    """Server of llama.cpp."""

    kind: str = "llamacpp"
    """`llamacpp`."""
    context: Annotated[int, Field(ge=128)] = 4096
    """Tokens of one conversation, prompt and answer."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8080
    """Where it listens, on 127.0.0.1."""


def export(job: Job, config: Config) -> Export:
    """Write `serve/llamacpp/serve.sh`: an OpenAI-compatible endpoint."""
    (weights,) = sorted((job.bundle / "gguf").glob("*.gguf"))
    folder = job.bundle / FOLDER
    folder.mkdir(parents=True)
    # --jinja: the template inside the file is used, and not the nearest one llama.cpp knows.
    (folder / "serve.sh").write_text(
        "#!/bin/sh\n"
        "# Start with: sh serve.sh. Needs llama-server of llama.cpp.\n"
        f"# OpenAI-compatible endpoint on http://127.0.0.1:{config.port}/v1\n"
        'cd "$(dirname "$0")" || exit 1\n'
        f'exec llama-server --model "../../gguf/{weights.name}" --alias "{job.name}" --jinja \\\n'
        f'  --ctx-size {config.context} --temp 0 --host 127.0.0.1 --port {config.port} "$@"\n',
        "utf-8",
    )
    return Export((f"{FOLDER}/serve.sh",), facts={"folder": FOLDER})
