"""The header of a safetensors file: where each tensor lies, checked before a byte of it is read. No torch."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gama.checkpoints.json_files import parse_table
from gama.checkpoints.stand_ins import check_stand_in
from gama.errors import CheckpointError

ITEM_BYTES: dict[str, int] = {
    **{"F64": 8, "F32": 4, "F16": 2, "BF16": 2},
    **{"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1},
}
"""Bytes of a number of each dtype of safetensors that is known here."""

FLOATING = ("F64", "F32", "F16", "BF16")

_MOST_BYTES = 32 * 2**20  # of a header; that of a 7B model has 100 kB
_MOST_SIDES = 16
_MOST_TENSORS = 200_000
_AGAIN = "download it again"


@dataclass(frozen=True)
class Place:
    """Where a tensor lies.

    Attributes:
        dtype: by the name that safetensors gives it.
        shape: its shape.
        begin, end: bytes of the file.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def count(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)


def read_header(path: Path) -> dict[str, Place]:
    """Name -> place of every tensor of a file; together they fill it from the header to its end.

    Raises:
        CheckpointError: for another kind of file, one that is cut short, and tensors that overlap or leave holes.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        (length,) = struct.unpack("<Q", start) if len(start) == 8 else (0,)
        if not 2 <= length <= min(_MOST_BYTES, size - 8):
            file.seek(0)
            check_stand_in(path, file.read(512))
            raise CheckpointError(f"{path}: not a safetensors file, or cut short", _AGAIN)
        text = file.read(length)
    header = parse_table(text, f"{path}: the header of the safetensors file", "JSON")
    if len(header) > _MOST_TENSORS:
        raise CheckpointError(f"{path}: {len(header):,} tensors, which no model has")
    places = {
        key: _place(entry, 8 + length, f"{path}: {key!r}") for key, entry in header.items() if key != "__metadata__"
    }
    _check_order(places, 8 + length, size, path)
    return places


def _place(entry: Any, start: int, where: str) -> Place:
    if not isinstance(entry, Mapping):
        raise CheckpointError(f"{where} has no dtype, shape and place")
    dtype: Any = entry.get("dtype")
    shape: Any = entry.get("shape")
    offsets: Any = entry.get("data_offsets")
    if not _whole(shape) or not _whole(offsets) or len(offsets) != 2:
        raise CheckpointError(f"{where} has no dtype, shape and place")
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise CheckpointError(f"{where} is of dtype {str(dtype)[:20]!r}", f"known: {', '.join(ITEM_BYTES)}")
    begin, end = offsets
    # a side beside one of 0 has no bytes that bound it
    fits = len(shape) <= _MOST_SIDES and min([*shape, begin]) >= 0 and max([*shape, 0]) < 2**40
    if not fits or end - begin != math.prod(shape) * ITEM_BYTES[dtype]:
        raise CheckpointError(f"{where}: shape {str(shape)[:100]} does not fill the bytes {begin} to {end}"[:500])
    return Place(dtype, tuple(shape), start + begin, start + end)


def _whole(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and abs(value) < 2**63 for value in values)


def _check_order(places: Mapping[str, Place], start: int, size: int, path: Path) -> None:
    """Tensors follow each other without overlap and holes, as the format has it, and end where the file ends."""
    at = start
    for key, place in sorted(places.items(), key=lambda item: (item[1].begin, item[1].end)):
        try:
            key.encode()
        except UnicodeEncodeError:
            raise CheckpointError(f"{path}: {key!r} is no name of a tensor") from None
        if place.end > size:
            raise CheckpointError(f"{path}: {key}: the file is cut short", _AGAIN)
        if place.begin != at:
            what = "overlaps the tensor before it" if place.begin < at else "does not follow the tensor before it"
            raise CheckpointError(f"{path}: {key} {what}: the header is damaged", _AGAIN)
        at = place.end
    if at != size:
        raise CheckpointError(f"{path}: {size - at:,} bytes at its end belong to no tensor", _AGAIN)
