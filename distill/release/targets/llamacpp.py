"""llama.cpp: the server's command line for the GGUF file, loopback only."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from distill.release.targets import gguf
from distill.release.targets._base import Export, Job, TargetConfig

NEEDS = ("gguf",)
FOLDER = "serve/llamacpp"


class Config(TargetConfig):
    """Server of llama.cpp."""

    kind: str = "llamacpp"
    """`llamacpp`."""
    precision: Literal["", "f16", "q8_0", "q4_k_m"] = ""
    """Which GGUF file it serves. Empty: the only one there is."""
    context: Annotated[int, Field(ge=128)] = 4096
    """Tokens of one conversation, prompt and answer."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8080
    """Where it listens, on 127.0.0.1."""


def export(job: Job, config: Config) -> Export:
    """Write `serve/llamacpp/serve.sh`: an OpenAI-compatible endpoint."""
    weights = gguf.named(job, config.precision)
    folder = job.bundle / FOLDER
    folder.mkdir(parents=True)
    model, port = f"../../gguf/{weights.name}", f'"${{PORT:-{config.port}}}"'
    # --jinja: the template inside the file is used, and not the nearest one llama.cpp knows.
    (folder / "serve.sh").write_text(
        "#!/bin/sh\n"
        "# Start with: sh serve.sh. Needs llama-server of llama.cpp, or: pip install 'llama-cpp-python[server]'\n"
        f"# OpenAI-compatible endpoint on http://127.0.0.1:{config.port}/v1 (or set PORT)\n"
        'cd "$(dirname "$0")" || exit 1\n'
        "if command -v llama-server >/dev/null 2>&1; then\n"
        f'  exec llama-server --model "{model}" --alias "{job.name}" --jinja --ctx-size {config.context} \\\n'
        f'    --temp 0 --host 127.0.0.1 --port {port} "$@"\n'
        "fi\n"
        f'exec "${{PYTHON:-python3}}" -m llama_cpp.server --model "{model}" --model_alias "{job.name}" \\\n'
        f'  --n_ctx {config.context} --host 127.0.0.1 --port {port} "$@"\n',
        "utf-8",
    )
    return Export((f"{FOLDER}/serve.sh",), facts={"folder": FOLDER})
