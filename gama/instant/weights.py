"""The weights that the instant graphs share with the checkpoint beside them, told apart by their header. No torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from gama.checkpoints.safetensors_header import FLOATING, read_header
from gama.errors import CheckpointError

WEIGHTS = "model.safetensors"

_MOST = 100 * 2**20  # bytes of a header, as the package safetensors allows


def header_hash(path: Path) -> str:
    """SHA-256 of a safetensors file's header and size: names, shapes and offsets, without reading the weights.

    The graphs point into the file by offset, so another layout would be read as noise.

    Raises:
        CheckpointError: where there is no such file, or it is no safetensors file.
    """
    if not path.is_file():
        raise CheckpointError(f"no file {path}: the weights of the instant graphs are missing")
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(_MOST, size):
            raise CheckpointError(f"{path}: not a safetensors file, or cut short", "download it again")
        header = file.read(length)
    return hashlib.sha256(header + size.to_bytes(8, "little")).hexdigest()


def weight_without_number(path: Path) -> str | None:
    """The first weight of a safetensors file that holds NaN or infinity; None where all are numbers.

    Raises:
        CheckpointError: for a file that is none.
    """
    kinds = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
    with path.open("rb") as file:
        for name, place in read_header(path).items():
            if place.dtype not in FLOATING:
                continue
            file.seek(place.begin)
            data = file.read(place.end - place.begin)
            if place.dtype == "BF16":  # the upper half of a float32
                values = (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
            else:
                values = np.frombuffer(data, kinds[place.dtype])
            if not np.isfinite(values).all():
                return name
    return None
