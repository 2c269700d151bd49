"""What a server says that becomes part of a path: refused here unless it has the one right form.

Hashes and commits name files in the hub's cache, file names go below a folder. A path is made from nothing else that
came over a network: no ETag, no header, no address of a redirect.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from gama.errors import CheckpointError, GamaError
from gama.text import printable

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)
_LONGEST_PART = 240  # bytes; 255 fit, and ".part.json" is put behind
_LONGEST = 1024  # bytes
_SHOWN = 80  # characters of a server's words in a message


def sha256(value: object, where: str) -> str:
    """A SHA-256 in lower-case hexadecimal.

    Raises:
        CheckpointError: for anything else.
    """
    return _hexadecimal(value, _SHA256, "sha256", 64, where)


def git_hash(value: object, where: str) -> str:
    """The SHA-1 of a git blob in lower-case hexadecimal.

    Raises:
        CheckpointError: for anything else.
    """
    return _hexadecimal(value, _SHA1, "git hash", 40, where)


def commit(value: object, where: str) -> str:
    """A commit's id: 40 lower-case hexadecimal digits.

    Raises:
        CheckpointError: for anything else.
    """
    return _hexadecimal(value, _SHA1, "commit", 40, where)


def inner_path(name: object, where: str) -> str:
    """A file's path inside a folder: parts with ``/`` between them.

    Raises:
        GamaError: where it would leave the folder, or is no name that every system takes.
    """
    reason = _why_not(name) if isinstance(name, str) else "is not text"
    if reason:
        raise GamaError(f"{where}: the file name {shown(name)} {reason}")
    return str(name)


def repository(name: str) -> str:
    """A repository's ``owner/name``.

    Raises:
        GamaError: for anything else.
    """
    if not _REPOSITORY.fullmatch(name) or "--" in name or ".." in name or len(name) > 96:
        raise GamaError(
            f"{shown(name)} is no repository of the hub", "owner/name: letters, digits and single . _ - between them"
        )
    return name


def check_apart(paths: Iterable[str], where: str) -> None:
    """Every file has a place of its own.

    Raises:
        GamaError: where a file is named twice, or one is the folder of another.
    """
    seen: set[str] = set()
    folders: set[str] = set()
    for path in paths:
        above = {str(folder) for folder in PurePosixPath(path).parents}
        if path in seen or path in folders or above & seen:
            raise GamaError(f"{where}: two files want the place {shown(path)}", "nothing was fetched")
        seen.add(path)
        folders |= above


def shown(value: object) -> str:
    """What a server said, quoted for a message: escaped and cut short."""
    text = value if isinstance(value, str) else repr(value)
    return printable(repr(text[:_SHOWN])) + ("…" if len(text) > _SHOWN else "")


def short(text: str) -> str:
    """Words of a server within a message: escaped and cut short."""
    return printable(text[:_SHOWN]) + ("…" if len(text) > _SHOWN else "")


def _hexadecimal(value: object, form: re.Pattern[str], what: str, digits: int, where: str) -> str:
    if not isinstance(value, str) or not form.fullmatch(value):
        raise CheckpointError(
            f"{where}: the server tells the {what} {shown(value)}, {digits} hexadecimal digits were expected",
            "nothing was fetched; is HF_ENDPOINT a hub?",
        )
    return value


def _why_not(name: str) -> str:
    parts = name.split("/")
    if not name:
        return "is empty"
    if printable(name) != name:
        return "holds control characters"
    if name.startswith("/") or ".." in parts or "\\" in name or ":" in name:
        return "leaves the folder of the model"
    if any(part in ("", ".") or part.endswith((".", " ")) or _DEVICE.fullmatch(part) for part in parts):
        return "is not one that every system takes"
    sizes = [len(part.encode()) for part in parts]
    return "is too long" if max(sizes) > _LONGEST_PART or sum(sizes) > _LONGEST else ""


__all__ = ["check_apart", "commit", "git_hash", "inner_path", "repository", "sha256", "short", "shown"]
