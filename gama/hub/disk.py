"""Where gama keeps what it fetches, the room there is, and how sizes are written."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gama.atomic import make_folder
from gama.errors import GamaError
from gama.locks import locked

_SPARE = 64 * 2**20  # bytes left free on a disk, for everybody else


def cache_home() -> Path:
    """The folder of what can be fetched again: ``$GAMA_HOME``, else ``gama`` in ``XDG_CACHE_HOME`` or ~/.cache."""
    given = os.environ.get("GAMA_HOME")
    if given:
        return Path(given).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "gama"


def models_folder() -> Path:
    """Where models from plain addresses lie, one folder each."""
    return cache_home() / "models"


def human(size: int | None) -> str:
    """A number of bytes for people: ``13.5 GB``; ``unknown`` for None."""
    if size is None:
        return "unknown"
    number = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.5:
            return f"{number:.0f} B" if unit == "B" else f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def free_space(folder: Path) -> int:
    """Bytes free on the disk that ``folder`` is, or will be, on."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def check_space(needed: int, folder: Path) -> None:
    """Refuse what would not fit on the disk.

    Raises:
        GamaError: it names what is needed and what is free.
    """
    free = free_space(folder)
    if needed and needed + _SPARE > free:
        raise GamaError(
            f"{folder}: {human(needed)} are needed, {human(free)} are free on that disk",
            "make room (gama models list shows what lies here), or give another place: --to DIR",
        )


@contextmanager
def sole_writer(place: Path) -> Iterator[None]:
    """Let another process finish what it fetches into a folder; the folders above are made, and go where nothing came.

    Raises:
        OutputError: where nothing can be written there.
    """
    with made_above(place), locked(place, "this model", wait=math.inf):
        yield


@contextmanager
def made_above(place: Path) -> Iterator[None]:
    """Make the folders above a file or folder; those that were made for nothing are removed after an error.

    Raises:
        OutputError: where they cannot be made.
    """
    absent = [folder for folder in place.parents if not folder.exists()]
    make_folder(place.parent)
    try:
        yield
    except BaseException:
        for folder in absent:
            if not folder.is_dir() or any(folder.iterdir()):
                break
            folder.rmdir()
        raise
