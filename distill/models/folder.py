"""A folder of weights on this disk: what is refused before any library opens it, and its hash."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from typing import TYPE_CHECKING, Any

from distill.artifacts import sha256_file, write_json
from distill.errors import DataError, IntegrityError, Refused
from distill.records import canonical_json

if TYPE_CHECKING:
    from pathlib import Path

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".joblib")
MAX_HEADER_BYTES = 100_000_000
MAX_CONFIG_BYTES = 10_000_000
BITS = {
    **{"F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16},
    **{"I16": 16, "U16": 16, "I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4},
}


def check_folder(folder: Path) -> list[Path]:
    """The safetensors files of a model folder, each with a sound header.

    Raises DataError (not a model folder), Refused (pickled weights only), IntegrityError (damaged file).
    """
    if not folder.is_dir():
        raise DataError("no such folder", where=str(folder), next="name a folder with config.json and *.safetensors")
    files = sorted(folder.glob("*.safetensors"))
    pickles = sorted(f.name for f in folder.iterdir() if f.suffix.lower() in PICKLES)
    if not files and pickles:
        raise Refused(
            f"only pickled weights here ({', '.join(pickles[:3])}); opening one can run any code",
            where=str(folder),
            next="use the safetensors version of this model",
        )
    if not files:
        raise DataError("no *.safetensors here", where=str(folder), next="name a folder with config.json and weights")
    for file in files:
        check_header(file)
    return files


def check_header(file: Path) -> None:
    """Read a safetensors header: sizes fit, names are unique, tensors lie end to end. Raises IntegrityError."""
    try:
        size = file.stat().st_size
        with file.open("rb") as handle:
            length = struct.unpack("<Q", handle.read(8))[0]
            if length > min(size - 8, MAX_HEADER_BYTES):
                raise ValueError(f"the header wants {length:,} bytes, the file has {size:,}")
            header = json.loads(handle.read(length), object_pairs_hook=_unique)
        if not isinstance(header, dict):
            raise ValueError("the header is not a table")
        header.pop("__metadata__", None)
        end = 0
        for name, (start, stop) in sorted(((n, _span(n, t)) for n, t in header.items()), key=lambda item: item[1]):
            if start != end:
                raise ValueError(f"{name} does not begin where the tensor before it ends")
            end = stop
        if end != size - 8 - length:
            raise ValueError(f"holds {size - 8 - length:,} bytes of tensors where its header says {end:,}")
    except OSError as error:
        raise DataError(f"cannot read: {error.strerror}", where=str(file)) from None
    except (ValueError, struct.error, RecursionError) as error:
        raise IntegrityError(
            f"not a sound safetensors file: {str(error)[:200]}", where=str(file), next="fetch this model again"
        ) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name occurs twice")
    return table


def _span(name: str, tensor: Any) -> tuple[int, int]:
    """(first byte, byte after the last) of a header entry whose type, shape and length agree."""
    if not isinstance(tensor, dict) or tensor.get("dtype") not in BITS:
        raise ValueError(f"{name} has no known type")
    shape, offsets = _sizes(tensor.get("shape")), _sizes(tensor.get("data_offsets"))
    if shape is None or offsets is None:
        raise ValueError(f"{name} has no sound shape")
    if len(offsets) != 2 or (offsets[1] - offsets[0]) * 8 != math.prod(shape) * BITS[tensor["dtype"]]:
        raise ValueError(f"{name} has another length than its shape says")
    return offsets[0], offsets[1]


def _sizes(value: Any) -> list[int] | None:
    sound = isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value)
    return list(value) if sound else None


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object of a model folder. Raises DataError."""
    try:
        if file.stat().st_size > MAX_CONFIG_BYTES:
            raise DataError(f"larger than {MAX_CONFIG_BYTES:,} bytes", where=str(file))
        value = json.loads(file.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read: {error.strerror}", where=str(file)) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON: {str(error)[:120]}", where=str(file)) from None
    if not isinstance(value, dict):
        raise DataError("not a JSON object", where=str(file))
    return value


UNSAFE_KEYS = ("auto_map", "custom_pipelines", "attn_implementation", "experts_implementation", "trust_remote_code")


def safe_config(value: Any) -> Any:
    """``config.json`` without the keys that make a library fetch or run something: private ones and ``auto_map``."""
    if isinstance(value, dict):
        return {k: safe_config(v) for k, v in value.items() if not k.startswith("_") and k not in UNSAFE_KEYS}
    return [safe_config(item) for item in value] if isinstance(value, list) else value


def weights_sha256(folder: Path, memory: Path) -> str:
    """SHA-256 of the weights: of the one file, or over the sorted (name, hash) pairs of several.

    ``memory`` is a folder that remembers the hash of a file whose size and times are unchanged.
    """
    note = memory / f"{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:24]}.json"
    try:
        known = json.loads(note.read_bytes()) if note.exists() else {}
    except (OSError, ValueError):
        known = {}
    fresh: dict[str, list[Any]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        stat = file.stat()
        mark = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        old = known.get(file.name)
        fresh[file.name] = [*mark, old[-1] if old and old[:-1] == mark else sha256_file(file)]
    if fresh != known:
        write_json(note, fresh)
    hashes = [[name, entry[-1]] for name, entry in fresh.items()]
    return str(hashes[0][1]) if len(hashes) == 1 else hashlib.sha256(canonical_json(hashes)).hexdigest()
