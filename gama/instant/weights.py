"""The weights that the instant graphs share with the checkpoint beside them, told apart by their header. No torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

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
            raise CheckpointError(f"{path}: no safetensors file")
        header = file.read(length)
    return hashlib.sha256(header + size.to_bytes(8, "little")).hexdigest()
