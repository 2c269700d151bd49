"""A file with another beginning, without a copy of the rest."""

from __future__ import annotations

import io
import os
from typing import IO


class Overlay(io.RawIOBase):
    """``head``, then the bytes of ``file`` from ``begin`` up to ``size``; read-only, seekable.

    Closing it leaves ``file`` open.
    """

    def __init__(self, head: bytes, file: IO[bytes], begin: int, size: int) -> None:
        self._head, self._file, self._begin = head, file, begin
        self._size = len(head) + size - begin
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        wanted = max(0, min(len(buffer), self._size - self._position))
        if self._position < len(self._head):
            block = self._head[self._position : self._position + wanted]
        else:
            self._file.seek(self._begin + self._position - len(self._head))
            block = self._file.read(wanted)
        buffer[: len(block)] = block
        self._position += len(block)
        return len(block)
