"""A file that is put together of parts of another one and of bytes, without a copy."""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate
from typing import IO

Part = bytes | range
"""Bytes, or positions of a file from ``start`` up to ``stop``."""


class Overlay(io.RawIOBase):
    """The parts one after the other; read-only, seekable.

    Closing it leaves ``file`` open.
    """

    def __init__(self, file: IO[bytes], parts: Iterable[Part]) -> None:
        self._file = file
        self._parts = [part for part in parts if len(part)]
        self._ends = list(accumulate(len(part) for part in self._parts))
        self.size = self._ends[-1] if self._ends else 0
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self._position >= self.size:
            return 0
        index = bisect_right(self._ends, self._position)
        part, end = self._parts[index], self._ends[index]
        count = min(len(buffer), end - self._position)
        at = self._position - (end - len(part))
        if isinstance(part, bytes):
            block = part[at : at + count]
        else:
            self._file.seek(part.start + at)
            block = self._file.read(count)
        buffer[: len(block)] = block
        self._position += len(block)
        return len(block)


def joined(file: IO[bytes], parts: Iterable[Part]) -> IO[bytes]:
    """The parts as a buffered file."""
    return io.BufferedReader(Overlay(file, parts))
