"""Where the features of which content lie, in a few bytes each: millions of clips need little memory.

A content's digest is 32 hex characters wherever it is written, and 16 bytes in the arrays here.
"""

from __future__ import annotations

import json
import os
import zlib
from array import array
from collections.abc import Iterable, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, overload

import numpy as np

from gama.atomic import write_errors

KEY = np.dtype("S16")
JOURNAL = "paths.jsonl"
_KINDS = {"F16": np.float16, "I32": np.int32, "U32": np.uint32}

Facts = tuple[str, int, int, str]
"""Path, size, time of change in ns and digest of a file."""


def packed(digests: Iterable[str]) -> np.ndarray:
    """Digests as an array."""
    return np.frombuffer(bytes.fromhex("".join(digests)), KEY)


def named(paths: Iterable[str]) -> np.ndarray:
    """Paths as an array of digests that tell them apart."""
    return np.frombuffer(b"".join(map(_name, paths)), KEY)


class Digests(Sequence[str]):
    """An array of digests, read as text."""

    def __init__(self, keys: np.ndarray) -> None:
        self.keys = keys

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        key: bytes = self.keys[index]
        return key.ljust(KEY.itemsize, b"\0").hex()  # numpy leaves out zeros at the end


def positions(ordered: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Where each key stands in an ordered array; -1 for one that does not."""
    if not len(ordered):
        return np.full(len(keys), -1)
    at = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
    return np.where(ordered[at] == keys, at, -1)


def _last_of_each(keys: np.ndarray) -> np.ndarray:
    """The order that sorts keys, with the last of equal ones alone."""
    order = np.argsort(keys, kind="stable")
    if not len(order):
        return order
    return order[np.append(keys[order[1:]] != keys[order[:-1]], True)]


class Folder:
    """The shards of a folder, mapped when they are first read.

    Attributes:
        keys: digests of all contents, in order; the other columns follow them.
        frames: of each content.
    """

    def __init__(self, path: Path, version: int) -> None:
        self.path = path
        self.files: list[Path] = []
        self._mapped: dict[int, np.ndarray] = {}
        parts: list[tuple[np.ndarray, ...]] = []
        for file in sorted(path.glob("fbank-*.safetensors")):
            with suppress(ValueError, KeyError, OSError):  # no whole shard: its clips are computed again
                parts += self._columns(file, version)
        empty = (np.zeros(0, KEY), *(np.zeros(0, kind) for kind in (np.int32, np.int64, np.int32, np.uint32)))
        keys, *columns = (np.concatenate(column) for column in zip(empty, *parts, strict=True))
        order = _last_of_each(keys)
        self.keys = keys[order]
        self.file, self.begin, self.frames, self.crc32 = (column[order] for column in columns)

    def _columns(self, file: Path, version: int) -> list[tuple[np.ndarray, ...]]:
        header, begin = _header(file)
        if header["__metadata__"].get("front_end") != str(version):
            return []
        values, frames, sums = (_tensor(file, begin, header[name]) for name in ("values", "frames", "crc32"))
        keys = packed(header["__metadata__"]["keys"].split())
        if not len(keys) == len(frames) == len(sums) or int(frames.sum()) != len(values):
            return []
        self.files.append(file)
        begins = np.cumsum(frames, dtype=np.int64) - frames
        return [(keys, np.full(len(keys), len(self.files) - 1, np.int32), begins, np.array(frames), np.array(sums))]

    def find(self, keys: np.ndarray) -> np.ndarray:
        """The place of each content; -1 for one that is not here."""
        return positions(self.keys, keys)

    def values(self, place: int) -> np.ndarray:
        """(T, 128) float16, as they lie on the disk."""
        number = int(self.file[place])
        if number not in self._mapped:
            header, begin = _header(self.files[number])
            self._mapped[number] = _tensor(self.files[number], begin, header["values"])
        first = int(self.begin[place])
        return self._mapped[number][first : first + int(self.frames[place])]

    def read(self, place: int) -> np.ndarray | None:
        """(T, 128) float16; None where the shard is damaged there."""
        values = self.values(place)
        return values if zlib.crc32(values.data) == self.crc32[place] else None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_mapped": {}}  # another process maps for itself


def _header(file: Path) -> tuple[dict[str, Any], int]:
    """The table of a safetensors file, and where its bytes begin."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > file.stat().st_size:
            raise ValueError(f"{file} is cut off")
        header: dict[str, Any] = json.loads(opened.read(length))
    return header, 8 + length


def _tensor(file: Path, begin: int, entry: dict[str, Any]) -> np.ndarray:
    offset = begin + entry["data_offsets"][0]
    return np.memmap(file, dtype=_KINDS[entry["dtype"]], mode="r", offset=offset, shape=tuple(entry["shape"]))


class Journal:
    """Which digest the files of a folder's shards had when they were read."""

    def __init__(self, folder: Path) -> None:
        names, keys, sizes, times = bytearray(), bytearray(), array("q"), array("q")
        with suppress(FileNotFoundError), (folder / JOURNAL).open(encoding="utf-8") as file:
            for line in file:
                with suppress(ValueError):  # the last line of a run that was killed
                    path, size, changed, key = json.loads(line)
                    key = bytes.fromhex(key)
                    names += _name(path)
                    keys += key
                    sizes.append(size)
                    times.append(changed)
        unordered = np.frombuffer(bytes(names), KEY)
        order = _last_of_each(unordered)
        self.names = unordered[order]
        self.keys = np.frombuffer(bytes(keys), KEY)[order]
        self.facts = np.stack([np.array(sizes, np.int64), np.array(times, np.int64)], axis=1)[order]

    def digest(self, path: str, facts: os.stat_result) -> str | None:
        """The digest of a file that has not changed since; None for one that has, or was never read."""
        at = int(positions(self.names, named([path]))[0])
        if at < 0 or tuple(self.facts[at]) != (facts.st_size, facts.st_mtime_ns):
            return None
        return Digests(self.keys)[at]


def remember(folder: Path, done: Iterable[Facts]) -> None:
    """Add files to the journal of a folder."""
    text = "".join(json.dumps(entry) + "\n" for entry in done)
    with write_errors(folder / JOURNAL), (folder / JOURNAL).open("a", encoding="utf-8") as file:
        file.write(text)


def _name(path: str) -> bytes:
    return blake2b(os.fsencode(path), digest_size=KEY.itemsize).digest()
