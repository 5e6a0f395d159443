"""vLLM: a Docker Compose file and the serve command for the merged weights, loopback only."""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import Field

from distill.release.targets._base import Export, Job, TargetConfig

NEEDS = ("merged",)
FOLDER = "serve/vllm"


class Config(TargetConfig):
    """Server of vLLM."""

    kind: str = "vllm"
    """`vllm`."""
    image: Annotated[str, Field(pattern=r"^[a-z0-9][A-Za-z0-9._/:@-]*$")] = "vllm/vllm-openai:v0.18.0"
    """Container image; pin it by digest for production."""
    context: Annotated[int, Field(ge=128)] = 4096
    """Tokens of one conversation, prompt and answer."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """Where it listens, on 127.0.0.1."""


def export(job: Job, config: Config) -> Export:
    """Write `serve/vllm/compose.yaml` and `serve.sh`: an OpenAI-compatible endpoint."""
    folder = job.bundle / FOLDER
    folder.mkdir(parents=True)
    flags = ["--served-model-name", job.name, "--max-model-len", str(config.context), "--enable-prefix-caching"]
    service = {
        "image": config.image,
        "command": ["--model", "/weights", *flags],
        "ports": [f"127.0.0.1:{config.port}:8000"],
        "volumes": ["../../weights:/weights:ro"],
        "environment": {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
        "ipc": "host",
        "restart": "unless-stopped",
        "deploy": {
            "resources": {"reservations": {"devices": [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]}}
        },
    }
    # JSON is YAML: no quoting rule can be got wrong.
    text = json.dumps({"services": {"student": service}}, indent=2) + "\n"
    (folder / "compose.yaml").write_text(text, "utf-8")
    (folder / "serve.sh").write_text(
        "#!/bin/sh\n"
        "# Start with: sh serve.sh. Needs vLLM and a GPU.\n"
        f"# OpenAI-compatible endpoint on http://127.0.0.1:{config.port}/v1 (or set PORT)\n"
        'cd "$(dirname "$0")" || exit 1\n'
        "export HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1\n"
        f'exec vllm serve ../../weights {" ".join(flags)} --host 127.0.0.1 --port "${{PORT:-{config.port}}}" "$@"\n',
        "utf-8",
    )
    return Export((f"{FOLDER}/compose.yaml", f"{FOLDER}/serve.sh"), facts={"folder": FOLDER})
