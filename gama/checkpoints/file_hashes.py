"""``gama_files.json``: size and sha256 of every file of a model folder, written once when the folder is.

Names and shapes of weights cannot tell two projectors that were swapped, another epsilon or a flipped bit; a hash can.
Loading compares what costs little: all sizes, and the hashes of configuration and tokenizer. ``gama inspect --verify``
compares everything. Folders without the file load as they did. No torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from gama.atomic import write_text
from gama.checkpoints.json_files import read_table
from gama.errors import CheckpointError

FILE = "gama_files.json"

_VERSION = 1
_QUICK = (".json", ".model", ".txt", ".jinja")  # read anyway while a model is loaded
_QUICK_BYTES = 32 * 2**20
_BLOCK = 2**20
_LEFT_OUT = (FILE, "base.json", "README.md")  # changed by hand: where a base lies, what people read

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Recorded:
    """What a file was when its folder was written."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Verified:
    """What comparing a folder with its record gave.

    Attributes:
        files: that are as they were.
        unlisted: that lie in the folder and are in no record.
    """

    files: tuple[str, ...]
    unlisted: tuple[str, ...]


def record(folder: Path, known: Mapping[str, str] | None = None, *, only: tuple[str, ...] = ()) -> None:
    """Write the record of a folder's files, those of folders in it included.

    Args:
        folder: a model folder, before it takes its name.
        known: file name -> sha256, of files that were hashed while they were written.
        only: files to record anew; the others stay as they are recorded. All of them where empty.
    """
    if only and not (folder / FILE).is_file():
        return
    known = known or {}
    names = only or _files(folder)
    rows = {name: {"bytes": r.size, "sha256": r.sha256} for name, r in _read(folder).items()} if only else {}
    for name in names:
        file = folder / name
        rows[name] = {"bytes": file.stat().st_size, "sha256": known.get(name) or _sha256(file)}
    text = json.dumps({"version": _VERSION, "files": dict(sorted(rows.items()))}, indent=1) + "\n"
    write_text(folder / FILE, text)


def check_files(folder: Path) -> None:
    """Compare what costs little: the size of every recorded file, the contents of configuration and tokenizer.

    Raises:
        CheckpointError: naming the file that was changed, or is missing.
    """
    for name, was in _read(folder).items():
        _check_size(folder, name, was)
        if name.endswith(_QUICK) and was.size <= _QUICK_BYTES:
            _check_hash(folder, name, was)


def verify(folder: Path, advance: Advance = lambda _: None) -> Verified:
    """Compare every recorded file with its hash.

    Args:
        folder: of a model.
        advance: told of bytes read.

    Raises:
        CheckpointError: naming the first file that was changed, or is missing; or where there is no record.
    """
    if not (folder / FILE).is_file():
        raise CheckpointError(
            f"{folder}: has no {FILE} to compare its files with",
            "folders that gama writes have one; that of a download is what its source says",
        )
    recorded = _read(folder)
    for name, was in recorded.items():
        _check_size(folder, name, was)
        _check_hash(folder, name, was, advance)
    return Verified(tuple(recorded), tuple(name for name in _files(folder) if name not in recorded))


def _files(folder: Path) -> list[str]:
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in paths if path.name not in _LEFT_OUT and not path.name.startswith("."))


def _read(folder: Path) -> dict[str, Recorded]:
    """File name -> what it was; empty for a folder without a record."""
    file = folder / FILE
    if not file.is_file():
        return {}
    rows = read_table(file).get("files")
    if not isinstance(rows, dict):
        raise CheckpointError(f"{file}: names no files", "download it again, or delete it")
    return {name: _recorded(name, row, file) for name, row in rows.items()}


def _recorded(name: str, row: Any, file: Path) -> Recorded:
    size, sha256 = (row.get("bytes"), row.get("sha256")) if isinstance(row, dict) else (None, None)
    if type(size) is not int or not isinstance(sha256, str) or not _is_inside(name):
        raise CheckpointError(f"{file}: {name!r} has no size and hash", "download it again, or delete it")
    return Recorded(size, sha256)


def _is_inside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and ".." not in parts and not name.startswith("/") and "\\" not in name and "\0" not in name


def _check_size(folder: Path, name: str, was: Recorded) -> None:
    file = folder / name
    if not file.is_file():
        raise CheckpointError(f"{folder}: {name} is missing, which {FILE} names", "download it again")
    if (size := file.stat().st_size) != was.size:
        raise CheckpointError(f"{file}: {size:,} bytes, {was.size:,} were written", _changed(folder))


def _check_hash(folder: Path, name: str, was: Recorded, advance: Advance = lambda _: None) -> None:
    if (found := _sha256(folder / name, advance)) != was.sha256:
        raise CheckpointError(
            f"{folder / name}: was changed since it was written: "
            f"sha256 {was.sha256[:12]}… was expected, {found[:12]}… found",
            _changed(folder),
        )


def _changed(folder: Path) -> str:
    return f"download it again; where the change is meant, delete {folder / FILE}"


def _sha256(file: Path, advance: Advance = lambda _: None) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK):
            digest.update(block)
            advance(len(block))
    return digest.hexdigest()
