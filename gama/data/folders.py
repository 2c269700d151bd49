"""The files below a folder under the names that a user sees: links keep their names, linked folders are entered."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from gama.errors import GamaError

_MOST_LINKS = 8  # linked folders within each other

_Folder = tuple[int, int]  # device and inode


def files_below(folder: Path, endings: Collection[str]) -> list[Path]:
    """The files below a folder whose names have one of some endings, sorted.

    A link to a file is a file under the link's name, whatever else points to the same content; one that points nowhere
    is listed as well, so that whoever reads it can report it. A linked folder is entered, but not from within itself.

    Args:
        folder: a folder, or a link to one.
        endings: lower-case, with their dots.

    Raises:
        GamaError: for a folder that cannot be read, or for links without end.
    """
    return sorted(_files(folder, endings, (), 0))


def _files(folder: Path, endings: Collection[str], above: tuple[_Folder, ...], links: int) -> Iterator[Path]:
    try:
        status = folder.stat()
        here = (status.st_dev, status.st_ino)
        if here in above:
            return
        with os.scandir(folder) as opened:
            entries = list(opened)
    except OSError as error:
        raise GamaError(f"{folder}: the folder cannot be read: {error.strerror or error}") from error
    for entry in entries:
        path = folder / entry.name
        if _is_folder(entry):
            deeper = links + entry.is_symlink()
            if deeper > _MOST_LINKS:
                raise GamaError(f"{path}: more than {_MOST_LINKS} linked folders within each other")
            yield from _files(path, endings, (*above, here), deeper)
        elif path.suffix.lower() in endings:
            yield path


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that points to itself
        return False
