"""A model hub: one snapshot of safetensors, JSON and tokenizer files, its commit recorded."""

from __future__ import annotations

import os
import re
import shutil
import threading
from typing import TYPE_CHECKING, Any

from distill.artifacts import DISK_ERRORS, disk_problem, new_folder, write_json
from distill.errors import ConfigError, EnvironmentProblem, MissingDependency, Refused
from distill.models.folder import check_folder, read_json, safe_config
from distill.progress import say

if TYPE_CHECKING:
    from pathlib import Path

REACH_S = 3.0
FORM = re.compile(r"hub:(?P<id>[\w.-]+/[\w.-]+)@(?P<revision>[\w.-]+)")
WANTED = ["*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "chat_template*"]
WANTED += ["tokenizer*", "vocab.*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "LICENSE*"]
UNWANTED = ["*.py", "*.bin", "*.pt", "*.pkl", "*/*"]


def parse(source: str) -> tuple[str, str]:
    """(id, revision) of ``hub:ID@REVISION``. Raises ConfigError."""
    match = FORM.fullmatch(source)
    if match is None:
        raise ConfigError(f"cannot read {source!r}", next="hub:OWNER/NAME@REVISION; a commit pins it, `main` does not")
    return match["id"], match["revision"]


def fetch(source: str, entry: Path, licence: str | None) -> None:
    """Make ``entry`` from the hub. A download that was killed goes on where it stopped.

    Raises EnvironmentProblem when the hub cannot be reached within 3 seconds or does not have the model.
    """
    name, revision = parse(source)
    info = reach(name, revision)
    if not any(file.rfilename.endswith(".safetensors") for file in info.siblings or ()):
        raise Refused("no safetensors weights there; other formats can run code", where=f"hub:{name}@{revision}")
    commit = str(info.sha)
    if revision != commit:
        say(f"{source} is not pinned: taking commit {commit}")
    work = entry.parent.parent / "work" / f"{entry.name}-{commit[:12]}"
    download(name, commit, work, allow_patterns=WANTED, ignore_patterns=UNWANTED)
    check_folder(work)
    stated = getattr(info.card_data, "license", None) if info.card_data else None
    with new_folder(entry) as folder:
        for file in work.iterdir():
            if file.is_file():
                file.rename(folder / file.name)
        write_json(folder / "config.json", safe_config(read_json(folder / "config.json")))
        write_json(folder / "source.json", {"source": source, "revision": commit, "licence": licence or _text(stated)})
    shutil.rmtree(work, ignore_errors=True)


def download(name: str, commit: str, work: Path, kind: str = "model", **patterns: Any) -> None:
    """The files of a commit that match ``patterns``, in ``work``; goes on where an earlier call was killed.

    Raises DiskProblem, EnvironmentProblem (not reachable).
    """
    from huggingface_hub import snapshot_download

    endpoint = os.environ.get("HF_ENDPOINT")
    try:
        snapshot_download(name, repo_type=kind, revision=commit, local_dir=work, endpoint=endpoint, **patterns)
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise disk_problem(error, work) from error
        raise unreachable(name, error) from error
    except Exception as error:
        raise unreachable(name, error) from error


def _text(licence: Any) -> str | None:
    return licence if isinstance(licence, str) and licence else None


def reach(name: str, revision: str, kind: str = "model") -> Any:
    """What the hub says about the model (or ``dataset``), or EnvironmentProblem within REACH_S seconds."""
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise MissingDependency("huggingface_hub", "what lies on a hub", "hub") from None
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise EnvironmentProblem("HF_HUB_OFFLINE is set", where=f"hub:{name}", next="unset it, or name a local path")
    answer: list[Any] = []

    def ask() -> None:
        try:
            hub = HfApi(os.environ.get("HF_ENDPOINT"))
            answer.append(hub.repo_info(name, revision=revision, repo_type=kind, timeout=REACH_S))
        except Exception as error:
            answer.append(error)

    # In a thread of its own: looking up a host name has no timeout.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(REACH_S)
    if not answer:
        raise unreachable(name, TimeoutError(f"no answer within {REACH_S:g} s"))
    if isinstance(answer[0], Exception):
        raise unreachable(name, answer[0]) from answer[0]
    return answer[0]


def unreachable(name: str, error: Exception) -> EnvironmentProblem:
    """The one line for a hub that does not give what is asked of it."""
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    return EnvironmentProblem(
        f"the model hub does not give {name}: {reason}",
        next="check the network, the name and your access, or use a local source",
    )
