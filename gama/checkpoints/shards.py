"""Weights into sharded safetensors files, block by block: what is written never stands in memory whole."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gama.checkpoints.reading import DTYPES
from gama.errors import CheckpointError

BLOCK = 32 * 2**20  # bytes of a block in memory
SHARD = 4 * 10**9  # bytes of a shard
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Entry:
    """A tensor to write.

    Attributes:
        name: its key.
        shape: its shape.
        dtype: what it is written as.
        blocks: makes its rows, in order, in any dtype.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    blocks: Callable[[], Iterator[Tensor]]

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def rows(tensor: Tensor) -> Iterator[Tensor]:
    """The tensor in blocks of rows, each at most :data:`BLOCK` bytes as float32 (or one row)."""
    if tensor.ndim == 0:
        yield tensor
        return
    step = max(1, BLOCK // max(1, 4 * math.prod(tensor.shape[1:])))
    yield from tensor.split(step)


def sha256(path: Path, advance: Callable[[int], None] = lambda _: None) -> str:
    """The hash of a file; ``advance`` is told of bytes read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            advance(len(block))
    return digest.hexdigest()


def write(
    folder: Path, entries: Sequence[Entry], *, stem: str = "model", advance: Callable[[int], None] = lambda _: None
) -> dict[str, str]:
    """Write entries as ``STEM.safetensors``, or as shards with an index where they exceed :data:`SHARD` bytes.

    Args:
        folder: an existing folder.
        entries: in the order of the files.
        stem: how the files begin.
        advance: told of bytes written.

    Returns:
        File name -> sha256.

    Raises:
        CheckpointError: for a number that does not fit the dtype it is to be written as.
    """
    groups = list(_grouped(entries))
    names = [f"{stem}-{i:05}-of-{len(groups):05}.safetensors" for i in range(1, len(groups) + 1)]
    if len(groups) == 1:
        names = [f"{stem}.safetensors"]
    hashes = {name: _write_file(folder / name, group, advance) for name, group in zip(names, groups, strict=True)}
    if len(groups) > 1:
        index = {
            "metadata": {"total_size": sum(entry.size for entry in entries)},
            "weight_map": {entry.name: name for name, group in zip(names, groups, strict=True) for entry in group},
        }
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return hashes


def _grouped(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    group: list[Entry] = []
    size = 0
    for entry in entries:
        if group and size + entry.size > SHARD:
            yield group
            group, size = [], 0
        group.append(entry)
        size += entry.size
    yield group


def _write_file(path: Path, entries: Sequence[Entry], advance: Callable[[int], None]) -> str:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for entry in entries:
        place = [offset, offset + entry.size]
        header[entry.name] = {"dtype": _NAMES[entry.dtype], "shape": list(entry.shape), "data_offsets": place}
        offset += entry.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with path.open("xb") as file:
        for block in (struct.pack("<Q", len(text)), text):
            file.write(block)
            digest.update(block)
        for entry in entries:
            before = file.tell()
            for rows_of in entry.blocks():
                data = _bytes(rows_of, entry)
                file.write(data)
                digest.update(data)
                advance(len(data))
            if file.tell() - before != entry.size:
                raise CheckpointError(f"{entry.name}: its rows do not make up the shape {entry.shape}")
    return digest.hexdigest()


def _bytes(block: Tensor, entry: Entry) -> memoryview:
    cast = block.detach().to(entry.dtype).contiguous()
    if entry.dtype == torch.float16 and block.dtype != torch.float16 and not bool(cast.isfinite().all()):
        raise CheckpointError(f"{entry.name} holds numbers that float16 cannot hold", "--dtype bf16")
    return cast.view(-1).view(torch.uint8).numpy().data
