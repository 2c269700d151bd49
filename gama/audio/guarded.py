"""A file as libsndfile and FFmpeg are given it: what fails inside their callbacks is raised after the call.

An exception cannot pass through C: cffi prints and drops it, PyAV prints and drops a second one. The same holds for
Ctrl-C while a callback runs.
"""

from __future__ import annotations

import os
from typing import IO

from gama.audio.source import Source


class GuardedFile:
    """Reads and seeks of a file, without its name, from which FFmpeg would guess a format and other files."""

    def __init__(self, source: Source, file: IO[bytes]) -> None:
        self._source, self._file = source, file
        self._failure: BaseException | None = None

    def check(self) -> None:
        """Raise what failed since the last call.

        Raises:
            AudioError: a read failed.
        """
        failure, self._failure = self._failure, None
        if isinstance(failure, Exception):
            raise self._source.error(f"cannot be read: {_reason(failure)}") from failure
        if failure is not None:
            raise failure

    def read(self, count: int) -> bytes:
        try:
            return b"" if self._failure else self._file.read(count)
        except BaseException as failure:  # raised by check()
            self._failure = failure
            return b""

    def readinto(self, buffer: memoryview) -> int:
        try:
            return 0 if self._failure else self._file.readinto(buffer)  # type: ignore[attr-defined]
        except BaseException as failure:  # raised by check()
            self._failure = failure
            return 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """The new position; -1, and no move, for a place that no file has: damaged files ask for such."""
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return -1
        except BaseException as failure:  # raised by check()
            self._failure = failure
            return -1

    def tell(self) -> int:
        return self._file.tell()


def _reason(failure: Exception) -> str:
    return getattr(failure, "strerror", None) or str(failure) or type(failure).__name__
