"""Files that are written whole or not at all: a temporary file in the same folder, renamed at the end. No numpy.

This is the one module that renames. What a command writes under a name that its user gave is checked by
:func:`check_output` before anything is loaded or computed.

- A symbolic link stays; the file behind it is replaced, and keeps its permissions.
- What is no regular file (a device, a FIFO, ``/dev/stdout``) is written to and never replaced.
- An OSError becomes an :class:`~gama.errors.OutputError` that names the file, and no temporary file is left.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from gama.errors import OutputError
from gama.text import printable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

_NAME = 120  # bytes of a file's name that its temporary name repeats; names may have 255
_LINKS = 40  # symbolic links in a row, as Linux follows them
_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")
_STANDARD = {"/dev/stdout": 1, "/dev/stderr": 2}
_TEMPORARY = re.compile(r"\..*\.\d+-[0-9a-f]{8}\.tmp")
_RUST_ERROR = re.compile(r"\(os error (\d+)\)")  # safetensors and tokenizers tell an OSError in words

_DISK, _PATH = "free some space, or give a path on another disk", "give another path"
_REASONS: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("no space is left on the disk", _DISK),
    getattr(errno, "EDQUOT", -1): ("the disk quota is used up", _DISK),
    errno.EFBIG: ("it is larger than a file may be here", "see ulimit -f, or give a path on another disk"),
    errno.EROFS: ("the file system is read-only", _PATH),
    errno.EACCES: ("permission denied", "give another path, or change the permissions"),
    errno.EPERM: ("permission denied", "give another path, or change the permissions"),
    errno.ENAMETOOLONG: ("the name is too long", "give a shorter name"),
    errno.ENOENT: ("its folder does not exist", "make the folder, or give another path"),
    errno.ENOTDIR: ("a file stands where a folder was expected", _PATH),
    errno.EISDIR: ("it is a folder, a file was expected", "give the name of a file"),
    errno.ELOOP: ("its symbolic links go in a circle", _PATH),
    errno.EBUSY: ("it is in use or a mount point, and cannot be replaced", _PATH),
    errno.EBADF: ("it is closed", _PATH),
    errno.ENXIO: ("nothing reads it", _PATH),
}

_WRITING = {errno.ENOSPC, getattr(errno, "EDQUOT", -1), errno.EFBIG, errno.EROFS, errno.EIO, errno.EBADF, errno.ENXIO}


# -- errors ------------------------------------------------------------------------------------------------------------


def output_error(path: Path | str, error: OSError) -> OutputError:
    """The error that names a file (or ``standard output``) that cannot be written, and says what to do."""
    why = error.strerror or str(error) or type(error).__name__
    reason, hint = _REASONS.get(error.errno or 0, (why[:1].lower() + why[1:], _PATH))
    return OutputError(f"{printable(str(path))}: cannot be written: {reason}", hint)


@contextmanager
def write_errors(path: Path | str, *own: Path) -> Iterator[None]:
    """Turn the OSError of a write into an :class:`OutputError` that names ``path``.

    A closed pipe stays a BrokenPipeError; an OSError about another file than ``path``, ``own`` and what lies below them
    stays as it is, and so does one without a file that reading or a lack of memory has, too.
    """
    names = tuple(os.fspath(name) for name in (path, *own))
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if not _is_ours(error, names):
            raise
        raise output_error(path, error) from error
    except Exception as error:
        code = _RUST_ERROR.search(str(error))
        if code is None or int(code[1]) not in _WRITING:
            raise
        number = int(code[1])
        raise output_error(path, OSError(number, os.strerror(number))) from error


def _is_ours(error: OSError, names: Iterable[str]) -> bool:
    """Whether an error is about one of the files, or names none and is of a kind that writing has."""
    if error.filename is None:
        return error.errno in _WRITING
    file = os.fsdecode(error.filename)
    return any(file == name or file.startswith(name + os.sep) for name in names)


# -- where a file really lies ------------------------------------------------------------------------------------------


def final_path(path: Path) -> Path:
    """The file behind the symbolic links of a path; the path itself where it is none.

    Raises:
        OutputError: for links in a circle, and for what no path can be.
    """
    found = path
    if "\0" in os.fspath(path):
        raise OutputError(f"{printable(str(path))}: is no path: it holds a null character", _PATH)
    try:
        for _ in range(_LINKS):
            if not found.is_symlink() or _descriptor(found) is not None:
                return found
            found = found.parent / os.readlink(found)
    except OSError as error:
        raise output_error(path, error) from error
    raise output_error(path, OSError(errno.ELOOP, ""))


def _descriptor(path: Path) -> int | None:
    """The number of an open file of this process that a path like ``/dev/stdout`` stands for."""
    text = os.path.abspath(path)
    found = _DESCRIPTOR.fullmatch(text)
    return int(found[1]) if found else _STANDARD.get(text)


def is_special(path: Path) -> bool:
    """Whether a path is written to in place of being replaced: a device, a FIFO, an open file of this process."""
    final = final_path(path)
    if _descriptor(final) is not None:
        return True
    try:
        mode = final.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


# -- checks before the work --------------------------------------------------------------------------------------------


def check_output(
    path: Path, inputs: Iterable[Path | str] = (), *, make_folder: bool = False, regular: bool = False
) -> None:
    """Refuse a file that cannot or must not be written, before any work is done. Nothing is changed.

    Args:
        path: the file to write.
        inputs: what the command reads; the output may be none of them, by no name, link or hard link.
        make_folder: whether the folders above will be made where they do not exist.
        regular: refuse a device or FIFO: other files will lie beside it, or it is read again.

    Raises:
        OutputError: for an input, a folder, a file or folder without permission to write.
    """
    final = final_path(path)
    shown = printable(str(path))
    _check_inputs(path, inputs)
    if is_special(final):
        if regular:
            raise OutputError(f"{shown}: is a device, a regular file was expected", "give the name of a file")
        _check_special(path, final)
        return
    try:
        mode = final.stat().st_mode
    except FileNotFoundError:
        mode = None
    except OSError as error:
        raise output_error(path, error) from error
    if mode is not None and stat.S_ISDIR(mode):
        raise OutputError(f"{shown}: is a folder, a file was expected", "give the name of a file")
    if mode is not None and not os.access(final, os.W_OK):
        raise OutputError(f"{shown}: exists and may not be written", "give another file, or change its permissions")
    _check_folder(final.parent, shown, make=make_folder)


def check_output_folder(path: Path, inputs: Iterable[Path | str] = ()) -> None:
    """Refuse a folder that cannot or must not be written into, before any work is done. Nothing is changed.

    Args:
        path: the folder; it need not exist.
        inputs: what the command reads; the folder may be none of them.

    Raises:
        OutputError: for an input, something that is no folder, and a folder without permission to write.
    """
    _check_inputs(path, inputs)
    final = final_path(path)
    if os.path.lexists(final) and not final.is_dir():
        raise OutputError(f"{printable(str(path))}: is a file, a folder was expected", "give another folder")
    _check_folder(final, printable(str(path)), make=True)


def _check_inputs(path: Path, inputs: Iterable[Path | str]) -> None:
    for given in inputs:
        try:
            same = os.path.samefile(path, given)
        except (OSError, ValueError):  # one of them does not exist
            same = False
        if same and not is_special(path):  # a terminal may be both
            name = "" if str(given) == str(path) else f" ({printable(str(given))})"
            raise OutputError(
                f"{printable(str(path))}: is an input of this command{name}, and would be overwritten",
                "give another file to write",
            )


def _check_special(path: Path, final: Path) -> None:
    number = _descriptor(final)
    if number is not None:
        with write_errors(path):
            os.fstat(number)
        return
    mode = final.stat().st_mode
    if stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
        kind = "a block device" if stat.S_ISBLK(mode) else "a socket"
        raise OutputError(f"{printable(str(path))}: is {kind}, a file was expected", "give another path")
    if not os.access(final, os.W_OK):
        raise output_error(path, OSError(errno.EACCES, ""))


def _check_folder(folder: Path, shown: str, *, make: bool) -> None:
    """Refuse a folder in which nothing can be written; with ``make``, the nearest one above that exists counts."""
    folder = folder.absolute()
    while make and not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    if not folder.exists():
        raise OutputError(
            f"{shown}: the folder {printable(str(folder))} does not exist", "make it, or give another path"
        )
    if not folder.is_dir():
        raise OutputError(f"{shown}: {printable(str(folder))} is not a folder", "give another path")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(
            f"{shown}: the folder {printable(str(folder))} may not be written",
            "give another path, or change the permissions",
        )


# -- writing -----------------------------------------------------------------------------------------------------------


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A temporary file for libraries that write by name; at the end it takes the name of ``path``.

    It lies in the folder of ``path``; for a device or a FIFO, to which it is copied, in the system's folder of
    temporary files. It is empty at first. After an exception it is removed, and ``path`` is as it was.

    Args:
        path: the file to write.
        durable: wait until the content is on the disk before renaming, so that a power cut leaves no empty file.

    Raises:
        OutputError: where it cannot be written.
    """
    final = final_path(path)
    special = is_special(final)
    partial = _temporary(final, _scratch() if special else final.parent)
    with write_errors(path, final, partial):
        try:
            mode = _create(partial)
            yield partial
            if special:
                with partial.open("rb") as source, _opened_special(final) as target:
                    while block := source.read(2**20):
                        target.write(block)
                return
            _set_permissions(partial, final, mode)
            if durable:
                _to_disk(partial)
            os.replace(partial, final)
            if durable and os.name == "posix":  # elsewhere folders do not open
                _to_disk(final.parent)
        finally:
            with suppress(FileNotFoundError):
                partial.unlink()


@contextmanager
def open_binary(path: Path, *, durable: bool = False) -> Iterator[BinaryIO]:
    """A file to write bytes to, which takes the name of ``path`` at the end; see :func:`replacing`.

    Raises:
        OutputError: where it cannot be written.
    """
    final = final_path(path)
    if is_special(final):
        with write_errors(path, final), _opened_special(final) as file:
            yield file
        return
    with replacing(path, durable=durable) as partial, partial.open("wb") as file:
        yield file
        file.flush()


@contextmanager
def open_text(path: Path, *, errors: str = "strict", durable: bool = False) -> Iterator[TextIO]:
    """A file to write UTF-8 to, with ``\\n`` as it is, which takes the name of ``path`` at the end.

    Args:
        path, durable: see :func:`replacing`.
        errors: for lone surrogates, see :func:`open`.

    Raises:
        OutputError: where it cannot be written.
    """
    with open_binary(path, durable=durable) as binary:
        text = TextIOWrapper(binary, encoding="utf-8", errors=errors, newline="")
        try:
            yield text
            text.flush()
        finally:
            with suppress(OSError, ValueError):  # an error of the file is on its way already
                text.detach()


def write_bytes(path: Path, content: Buffer, *, durable: bool = False) -> None:
    """Write a file whole, or leave what is there. Raises as :func:`replacing` does."""
    with open_binary(path, durable=durable) as file:
        file.write(content)


def write_text(path: Path, text: str, *, errors: str = "strict", durable: bool = False) -> None:
    """Write UTF-8 whole, or leave what is there. Raises as :func:`replacing` does."""
    write_bytes(path, text.encode("utf-8", errors), durable=durable)


def write_json(path: Path, value: Any, *, indent: int | None = None, durable: bool = False) -> None:
    """Write JSON that ends with a line end; non-ASCII text as it is. Raises as :func:`replacing` does."""
    import json

    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n", durable=durable)


def move(source: Path, target: Path) -> None:
    """Rename a finished file or folder; a file, or an empty folder, of that name is replaced.

    Raises:
        OutputError: where it cannot be done.
    """
    with write_errors(target, source):
        os.replace(source, target)


def temporary_files(folder: Path) -> list[Path]:
    """What killed processes have left in a folder, and what others are writing there."""
    return [path for path in folder.glob(".*.tmp") if _TEMPORARY.fullmatch(path.name) and path.is_file()]


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they do not exist.

    Raises:
        OutputError: where it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise OutputError(
            f"{printable(str(folder))}: is a file, a folder was expected", "give another folder"
        ) from None
    except OSError as error:
        raise output_error(folder, error) from error


def _temporary(final: Path, folder: Path) -> Path:
    """A name in a folder that nothing has; :func:`temporary_files` finds it again."""
    name = os.fsdecode(os.fsencode(final.name)[:_NAME])
    return folder / f".{name}.{os.getpid()}-{os.urandom(4).hex()}.tmp"


def _scratch() -> Path:
    import tempfile

    return Path(tempfile.gettempdir())


def _create(partial: Path) -> int:
    """Make an empty file; its permissions are those of a new file here."""
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        return stat.S_IMODE(os.fstat(handle).st_mode)
    finally:
        os.close(handle)


def _set_permissions(partial: Path, final: Path, mode: int) -> None:
    """Those of the file that is replaced, or of a new file: some libraries write for the owner alone."""
    made = partial.stat()
    with suppress(FileNotFoundError):
        there = final.stat()
        mode = stat.S_IMODE(there.st_mode)
        if hasattr(os, "chown") and (there.st_uid, there.st_gid) != (made.st_uid, made.st_gid):
            with suppress(PermissionError):  # who may not give a file away owns the new one
                os.chown(partial, there.st_uid, there.st_gid)
    if stat.S_IMODE(partial.stat().st_mode) != mode:
        partial.chmod(mode)


def _opened_special(final: Path) -> BinaryIO:
    """A device or FIFO to write to; an open file of this process goes on where it is, and stays open."""
    number = _descriptor(final)
    if number is None:
        return open(os.open(final, os.O_WRONLY), "wb")
    if number == 1 and sys.stdout is not None:
        sys.stdout.flush()
    return open(os.dup(number), "wb")


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


__all__ = [
    "check_output",
    "check_output_folder",
    "final_path",
    "is_special",
    "make_folder",
    "move",
    "open_binary",
    "open_text",
    "output_error",
    "replacing",
    "temporary_files",
    "write_bytes",
    "write_errors",
    "write_json",
    "write_text",
]
