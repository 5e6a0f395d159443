"""Safetensors files read and written one tensor at a time: memory stays at one tensor, whatever the model's size."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
# The library orders tensors by falling alignment of the type, then by name; the same order gives the same file.
ORDER = ("I64", "F64", "F32", "I32", "BF16", "F16", "I16", "I8", "U8", "BOOL")
MAX_HEADER = 100_000_000
COPY_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where one tensor lies on disk."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    """Byte offset in the file."""

    @property
    def size(self) -> int:
        """Bytes."""
        return BYTES[self.dtype] * math.prod(self.shape)


def read_index(folder: Path) -> dict[str, Tensor]:
    """Name -> tensor of every safetensors file of a model folder. IntegrityError when a header does not hold."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise IntegrityError("no safetensors file", where=str(folder))
    return {tensor.name: tensor for file in files for tensor in _read_header(file)}


def _read_header(path: Path) -> Iterator[Tensor]:
    total = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(MAX_HEADER, total - 8):
            raise IntegrityError("the safetensors header has an impossible length", where=str(path))
        try:
            header: dict[str, Any] = json.loads(file.read(length))
            header.pop("__metadata__", None)
            entries = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
            end = 0
            for name, entry in entries:
                tensor = Tensor(name, entry["dtype"], tuple(entry["shape"]), path, 8 + length + end)
                if entry["data_offsets"] != [end, end + tensor.size]:
                    raise ValueError(name)
                end += tensor.size
                yield tensor
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityError(f"the safetensors header is damaged: {str(error)[:80]}", where=str(path)) from None
    if end != total - 8 - length:
        raise IntegrityError("the safetensors file has bytes that no tensor owns", where=str(path))


def load(tensor: Tensor) -> Any:
    """The tensor as a torch tensor of its own memory."""
    import torch

    types = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32"}
    types |= {"I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool"}
    data = bytearray(tensor.size)
    with tensor.file.open("rb") as file:
        file.seek(tensor.start)
        if file.readinto(data) != tensor.size:
            raise IntegrityError(f"{tensor.name} is cut short", where=str(tensor.file))
    return torch.frombuffer(data, dtype=getattr(torch, types[tensor.dtype])).reshape(tensor.shape)


def shard(tensors: Sequence[Tensor], limit: int) -> list[list[Tensor]]:
    """Tensors in file order, split so that no file is larger than ``limit`` bytes unless one tensor is."""
    shards: list[list[Tensor]] = [[]]
    filled = 0
    for tensor in tensors:
        if shards[-1] and filled + tensor.size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(tensor)
        filled += tensor.size
    return [sorted(part, key=lambda t: (ORDER.index(t.dtype), t.name)) for part in shards]


def write_model(
    folder: Path,
    tensors: Sequence[Tensor],
    limit: int,
    change: Callable[[Tensor], Any | None],
    done: Callable[[int], None],
) -> list[str]:
    """Write `model.safetensors`, or numbered files and their index when larger than ``limit`` bytes.

    ``change`` gives the new torch tensor (same type and shape), or None to copy the bytes; ``done`` is told the
    bytes written. Returns the file names.
    """
    parts = shard(sorted(tensors, key=lambda t: t.name), limit)
    if len(parts) == 1:
        _write_file(folder / "model.safetensors", parts[0], change, done)
        return ["model.safetensors"]
    names = [f"model-{number:05d}-of-{len(parts):05d}.safetensors" for number in range(1, len(parts) + 1)]
    for name, part in zip(names, parts, strict=True):
        _write_file(folder / name, part, change, done)
    placed = {t.name: name for name, part in zip(names, parts, strict=True) for t in part}
    index = {"metadata": {"total_size": sum(t.size for t in tensors)}, "weight_map": dict(sorted(placed.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")
    return [*names, "model.safetensors.index.json"]


def _write_file(
    path: Path, tensors: Sequence[Tensor], change: Callable[[Tensor], Any | None], done: Callable[[int], None]
) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [end, end + tensor.size],
        }
        end += tensor.size
    head = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    head += b" " * (-len(head) % 8)
    with path.open("xb") as out:
        out.write(len(head).to_bytes(8, "little") + head)
        for tensor in tensors:
            new = change(tensor)
            if new is None:
                _copy(tensor, out)
            else:
                import torch

                out.write(new.contiguous().view(torch.uint8).numpy().data)
            done(tensor.size)


def _copy(tensor: Tensor, out: Any) -> None:
    left = tensor.size
    with tensor.file.open("rb") as file:
        file.seek(tensor.start)
        while left:
            data = file.read(min(COPY_BYTES, left))
            if not data:
                raise IntegrityError(f"{tensor.name} is cut short", where=str(tensor.file))
            out.write(data)
            left -= len(data)
