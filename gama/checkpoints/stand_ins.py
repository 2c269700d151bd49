"""Files that stand in for others: a git-lfs pointer, a web page saved under a file's name. No torch.

Both come of downloads that went wrong in a usual way, and what to do is known; without this they are "damaged", or end
in the log of the library that was given them.
"""

from __future__ import annotations

from pathlib import Path

from gama.errors import CheckpointError

_START = 512  # bytes that tell
_LFS = b"version https://git-lfs.github.com/spec/"
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<body", b"<?xml", b"<title", b"<script")


def check_stand_in(path: Path, start: bytes | None = None) -> None:
    """Refuse a git-lfs pointer and a web page.

    Args:
        path: the file.
        start: its first bytes where they have been read already.

    Raises:
        CheckpointError: saying what the file is and what to do.
    """
    if start is None:
        with path.open("rb") as file:
            start = file.read(_START)
    start = start[:_START]
    if start.startswith(_LFS):
        raise CheckpointError(
            f"{path}: a git-lfs pointer, not the file it points to",
            "run 'git lfs pull' in its repository, or download the file itself",
        )
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(_PAGES):
        raise CheckpointError(
            f"{path}: a web page, not the file that was expected",
            "the address asked for a login or shows the file; download the file itself",
        )


def check_stand_ins(folder: Path, suffixes: tuple[str, ...]) -> None:
    """Refuse a folder in which a file of one of these suffixes stands in for another.

    Raises:
        CheckpointError: as :func:`check_stand_in`.
    """
    for file in sorted(folder.iterdir()):
        if file.suffix in suffixes and file.is_file():
            check_stand_in(file)
