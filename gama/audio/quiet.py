"""Keeps what libmpg123 writes about damaged frames from standing beside an answer.

It writes to file descriptor 2 itself, whatever libsndfile asks of it. While it decodes a block, some milliseconds, the
descriptor leads to a temporary file; what others wrote there meanwhile, from another thread say, is written out after.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

_MARKS = (b"[src/libmpg123/", b"Note: ", b"Warning: ")
_lock = threading.Lock()
_depth = 0
_kept: IO[bytes] | None = None
_stderr = -1


@contextmanager
def without_mpg123(wanted: bool) -> Iterator[None]:
    """Drop lines of libmpg123 on stderr, if ``wanted``; threads may do so at the same time."""
    if not wanted:
        yield
        return
    _begin()
    try:
        yield
    finally:
        _end()


def _begin() -> None:
    global _depth, _kept, _stderr
    with _lock:
        _depth += 1
        if _depth > 1:
            return
        try:
            _stderr = os.dup(2)
        except OSError:  # there is none
            _stderr = -1
            return
        _kept = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (_end closes it)
        os.dup2(_kept.fileno(), 2)


def _end() -> None:
    global _depth, _kept, _stderr
    with _lock:
        _depth -= 1
        if _depth or _stderr < 0:
            return
        os.dup2(_stderr, 2)
        os.close(_stderr)
        _stderr = -1
        assert _kept is not None
        with _kept as kept:
            kept.seek(0)
            lines = kept.read().splitlines(keepends=True)
        _kept = None
    others = b"".join(line for line in lines if not line.startswith(_MARKS))
    if others:
        os.write(2, others)
