"""What was given as a clip becomes a seekable binary file with a name to show."""

from __future__ import annotations

import os
import re
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, BinaryIO

from gama.audio.overlay import joined
from gama.errors import AudioError
from gama.text import printable

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|(https?|ftp|s3|gs|hf|file):/", re.ASCII)
_JOINED_URL = re.compile(r"/(https?|ftp|s3|gs|hf):/", re.ASCII)  # Path("folder") / "https://host/clip.wav"
_ONE_SLASH = re.compile(":/(?!/)")
_FILE_URL = re.compile(r"file:/", re.IGNORECASE)
_URL_HINT = "download it first, then give the file"
_IN_MEMORY = 64 * 2**20  # bytes of a pipe held before they go to a temporary file
_MAX_PIPED = 4 * 2**30  # bytes taken from a pipe


def named_error(given: str, message: str, hint: str | None = None) -> AudioError:
    """An error that names the clip as given, its control characters escaped."""
    return AudioError(f"{printable(given)}: {message}", hint)


@dataclass(frozen=True)
class Source:
    """An open clip.

    Attributes:
        file: seekable, at its beginning.
        size: bytes.
        given: the name as given, for ``Waveform.source``.
    """

    file: IO[bytes]
    size: int
    given: str

    def error(self, message: str, hint: str | None = None) -> AudioError:
        """An error that names the clip."""
        return named_error(self.given, message, hint)

    def read_at(self, position: int, count: int) -> bytes:
        """Up to ``count`` bytes from ``position`` on."""
        self.file.seek(position)
        return self.file.read(count)

    def part(self, begin: int, end: int | None = None) -> Source:
        """The bytes from ``begin`` up to ``end`` as a clip of the same name."""
        end = self.size if end is None else min(end, self.size)
        return Source(joined(self.file, [range(begin, end)]), max(0, end - begin), self.given)


@contextmanager
def open_source(source: str | Path | bytes | BinaryIO, name: str | None = None) -> Iterator[Source]:
    """Open a path, ``"-"`` (stdin), bytes or a binary file; what cannot seek is spooled.

    Raises:
        AudioError: missing, empty, a directory, a device, a URL, unreadable, or not bytes.
    """
    given = name if name is not None else _name_of(source)
    with _open(source, given) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        opened = Source(file, size, given)
        if not size:
            raise opened.error("is empty (0 bytes)")
        yield opened


def _name_of(source: str | Path | bytes | BinaryIO) -> str:
    if isinstance(source, (str, Path)):
        return str(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "bytes"
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "file object"


def _open(source: str | Path | bytes | BinaryIO, given: str) -> IO[bytes]:
    if isinstance(source, (bytes, bytearray, memoryview)):
        return BytesIO(source)
    if isinstance(source, str) and source == "-":
        return _spool(_stdin(given), given)
    if isinstance(source, (str, Path)):
        return _open_path(str(source), given)
    if not hasattr(source, "read"):
        expected = "a path, bytes, a binary file or an array was expected"
        raise named_error(given, f"a {type(source).__name__} was given, {expected}")
    return _spool(source, given)


def _open_path(path: str, given: str) -> IO[bytes]:
    if not path:
        raise AudioError("an empty file name was given, the path of a sound file was expected")
    if _FILE_URL.match(path):
        path = _path_of_url(path, given)
    elif is_url(path):
        given = _ONE_SLASH.sub("://", given, count=1)  # as pathlib leaves it
        raise named_error(given, "is a URL, the path of a file was expected", _URL_HINT)
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise named_error(given, "is a directory, a sound file was expected")
        if not stat.S_ISREG(mode):
            raise named_error(given, "is not a regular file", "pipe its bytes in and give - as the clip")
        return open(path, "rb")
    except AudioError:  # which is a ValueError
        raise
    except FileNotFoundError as missing:
        if _JOINED_URL.search(path):
            raise named_error(given, "is a URL behind a folder, a file was expected", _URL_HINT) from missing
        raise named_error(given, "no such file") from missing
    except PermissionError as denied:
        raise named_error(given, "no permission to read it") from denied
    except OSError as failed:
        raise named_error(given, f"cannot be opened: {failed.strerror or failed}") from failed
    except ValueError as unusable:  # a NUL byte, or characters the file system cannot encode
        raise named_error(given, "is not a name that a file can have") from unusable


def is_url(text: str) -> bool:
    """Whether it names something on another machine, or a file by ``file:``; one slash may be lost on the way."""
    return _URL.match(text) is not None


def _path_of_url(url: str, given: str) -> str:
    """The path in ``file:///folder/a%20clip.wav``; pathlib makes ``file:/folder`` of it, which is read as well."""
    from urllib.parse import unquote

    rest = url[len("file:") :]
    if rest.startswith("//"):
        host, _, path = rest[2:].partition("/")
        rest = f"/{path}"
        if host.lower() not in ("", "localhost"):
            hint = "copy it to this machine and give its path"
            raise named_error(given, f"names a file on the machine {printable(host)}", hint)
    return unquote(rest, errors="surrogateescape")


def _stdin(given: str) -> BinaryIO:
    if sys.stdin is None or sys.stdin.closed:
        raise named_error(given, "there is no standard input")
    if sys.stdin.isatty():
        raise named_error(given, "standard input is a terminal", "pipe a sound file in")
    return sys.stdin.buffer


def _spool(stream: BinaryIO, given: str) -> IO[bytes]:
    """Copy a stream to memory, or beyond 64 MiB to a temporary file."""
    spooled: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 (the caller closes it)
    try:
        while block := stream.read(2**20):
            if not isinstance(block, bytes):
                raise named_error(given, f"gives {type(block).__name__}, bytes were expected", "open it in mode 'rb'")
            if spooled.tell() + len(block) > _MAX_PIPED:
                raise named_error(given, f"more than {_MAX_PIPED // 2**30} GiB came in", "give a file instead")
            spooled.write(block)
    except AudioError:
        spooled.close()
        raise
    except (OSError, ValueError) as failed:
        spooled.close()
        raise named_error(given, f"cannot be read: {failed}") from failed
    return spooled


def id3_size(head: bytes) -> int:
    """Bytes of an ID3v2 tag, by its first ten."""
    size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    return 10 + size + (10 if head[5] & 0x10 else 0)
