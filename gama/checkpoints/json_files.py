"""JSON beside weights, read within bounds: a table, of a sane size and depth. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gama.checkpoints.stand_ins import check_stand_in
from gama.errors import CheckpointError

MOST_BYTES = 16 * 2**20  # an index of shards has some 100 kB, a conversion report some MB
MOST_LEVELS = 64


def read_table(path: Path, what: str = "JSON") -> dict[str, Any]:
    """The JSON object of a file.

    Args:
        path: the file.
        what: what it should be, for the message.

    Raises:
        CheckpointError: for a file that cannot be read, holds no JSON object, or is too large or nested
            too deep.
    """
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise CheckpointError(f"{path}: {size:,} bytes, at most {MOST_BYTES:,} were expected of {what}")
        text = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    check_stand_in(path, text)
    return parse_table(text, str(path), what)


def parse_table(text: bytes, where: str, what: str = "JSON") -> dict[str, Any]:
    """The JSON object of some bytes; ``where`` they lie is for messages.

    Raises:
        CheckpointError: as :func:`read_table`.
    """
    try:
        table = json.loads(text.decode("utf-8"))
        _check_levels([table])
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        if isinstance(error, RecursionError):
            reason = f"nested deeper than {MOST_LEVELS} levels"
        raise CheckpointError(f"{where}: cannot be read as {what}: {reason}") from error
    if not isinstance(table, dict):
        raise CheckpointError(f"{where}: cannot be read as {what}: a {type(table).__name__}, a table was expected")
    return table


def _check_levels(values: list[Any]) -> None:
    for _ in range(MOST_LEVELS + 1):
        values = [inner for value in values if isinstance(value, (dict, list)) for inner in _inside(value)]
        if not values:
            return
    raise RecursionError


def _inside(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value
