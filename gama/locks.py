"""One writer at a time: a lock on a file or folder that dies with the process that holds it. No numpy.

The lock is the kernel's, on a small file ``.NAME.lock`` beside the target (or ``.lock`` in a folder), which says who
holds it. A process that was killed leaves that file behind, but not the lock: the next one takes it.
"""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gama.atomic import final_path, is_special, output_error
from gama.errors import LockedError
from gama.text import printable

_GLANCE = 0.05  # seconds between two tries
_PATIENCE = 2.0  # seconds until whoever waits is told of it
_HELD = {errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK, errno.EDEADLK}
_NONE = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL}  # Lustre, NFS without lockd

LOCK = ".lock"
"""Name of the lock file in a folder that is filled."""

logger = logging.getLogger(__name__)


@contextmanager
def locked(path: Path, what: str, *, inside: bool = False, wait: float = 0.0) -> Iterator[None]:
    """Let nobody else write a file or folder meanwhile; whoever writes it must ask for the same lock.

    The lock belongs to the process, its threads and its forks; another ``locked`` of the same target is refused in the
    same process, too. A device or FIFO is not locked. On a file system without locks a warning is logged and the work
    goes on: a lock that outlives its process would keep a job from being resumed on another machine.

    Args:
        path: the file or folder to write; it need not exist.
        what: what it is, for the error: ``the answers``, ``the run``.
        inside: keep the lock file in the folder ``path``, which exists: for folders that are filled, not replaced.
        wait: seconds to wait for another process.

    Raises:
        LockedError: naming the process that holds it.
        OutputError: where the lock file cannot be made.
    """
    if is_special(path):
        yield
        return
    final = final_path(path)
    file = final / LOCK if inside else final.with_name(f".{final.name}.lock")
    handle = _acquire(file, path, what, time.monotonic() + wait)
    try:
        _write_holder(handle, what)
        yield
    finally:
        _release(handle, file)


def _acquire(file: Path, path: Path, what: str, until: float) -> int:
    """The open lock file, locked."""
    told = time.monotonic() + _PATIENCE
    while True:
        try:
            handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        except PermissionError as error:
            handle = _open_of_another_user(file, path, error)
        except OSError as error:
            raise output_error(path, error) from error
        if not _try_lock(handle, path):
            os.close(handle)
            now = time.monotonic()
            if now >= until:
                raise _refused(file, path, what)
            if now >= told:
                logger.warning("waiting: %s", _refused(file, path, what).message)
                told = math.inf
            time.sleep(_GLANCE)
        elif _is_at(handle, file):
            return handle
        else:  # the one before has removed the file between our two calls
            os.close(handle)


def _open_of_another_user(file: Path, path: Path, refused: OSError) -> int:
    """A lock file that another user has made; it can be locked where it can be read."""
    try:
        return os.open(file, os.O_RDONLY)
    except OSError:
        raise output_error(path, refused) from refused


def _try_lock(handle: int, path: Path) -> bool:
    try:
        _lock(handle)
    except OSError as error:
        if error.errno in _HELD:
            return False
        if error.errno not in _NONE:
            raise output_error(path, error) from error
        logger.warning("%s: this file system has no locks; let one command at a time write there", path)
    return True


def _is_at(handle: int, file: Path) -> bool:
    """Whether an open lock file is still the one that others find under its name."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(file))
    except FileNotFoundError:
        return False


def _release(handle: int, file: Path) -> None:
    if os.name == "posix":
        with suppress(OSError):  # what is left of the name holds no lock
            file.unlink()
        _unlock(handle)  # a forked child has the file open, too
        os.close(handle)
        return
    _unlock(handle)
    os.close(handle)
    with suppress(OSError):  # an open file cannot be removed there: another process has it already
        file.unlink()


def _write_holder(handle: int, what: str) -> None:
    """Say in the lock file who holds it; where that cannot be written, it is held all the same."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    holder = {"pid": os.getpid(), "host": _host(), "since": now, "what": what}
    with suppress(OSError):
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, json.dumps(holder).encode())


def _refused(file: Path, path: Path, what: str) -> LockedError:
    holder: Any = None
    with suppress(OSError, ValueError):
        holder = json.loads(file.read_bytes()[:4096])
    shown = printable(str(path))
    if not isinstance(holder, dict) or not isinstance(holder.get("pid"), int):
        return LockedError(f"{shown}: another process is writing {what}", "wait until it ends, or give another path")
    pid, host, since = holder["pid"], printable(str(holder.get("host"))), printable(str(holder.get("since")))
    if host != _host():
        where, hint = f"process {pid} on {host}", "wait until it ends, or stop it there"
    elif pid == os.getpid():
        where, hint = "this process", "wait until that is done"
    else:
        where, hint = f"process {pid} on {host}", f"wait until it ends, or stop it: kill {pid}"
    return LockedError(f"{shown}: {where} has been writing {what} since {since}", hint)


def _host() -> str:
    import socket

    return socket.gethostname()


if sys.platform == "win32":
    import msvcrt

    _BYTE = 2**30  # locked bytes cannot be read: one far behind what the file says

    def _lock(handle: int) -> None:
        os.lseek(handle, _BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(handle, 0, os.SEEK_SET)

    def _unlock(handle: int) -> None:
        os.lseek(handle, _BYTE, os.SEEK_SET)
        with suppress(OSError):
            msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(handle: int) -> None:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)


__all__ = ["LOCK", "locked"]
