"""One file from an address onto the disk: resumed after a cut, checked, and whole or absent under its name."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gama.errors import CheckpointError, GamaError
from gama.hub.disk import check_space
from gama.hub.http import get

ATTEMPTS = 5  # in a row that bring nothing
PAUSE = 1.0  # seconds before the second attempt, doubled for each further one
_CHUNK = 2**20
_BUSY = (408, 425, 429, 500, 502, 503, 504)

Advance = Callable[[int], None]
"""Takes how many more bytes have arrived."""


@dataclass(frozen=True)
class Digest:
    """What a file's content has to be: its SHA-256, or the SHA-1 git gives it (small files of a hub)."""

    kind: Literal["sha256", "git"]
    value: str


@dataclass(frozen=True)
class Remote:
    """A file at an address.

    Attributes:
        url: where it is.
        size: bytes; None where it is not known.
        digest: None where nobody has told it: then it cannot be checked.
        secret: headers for the first host alone.
    """

    url: str
    size: int | None = None
    digest: Digest | None = None
    secret: Mapping[str, str] = field(default_factory=dict)


class Refused(GamaError):
    """The server wants to know who asks (401, 403), or does not have the file (404, 410).

    Attributes:
        status: the HTTP status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class _Cut(Exception):
    """The connection ended early; what arrived is kept."""


def part_of(target: Path) -> Path:
    """Where a file lies while it is incomplete."""
    return target.with_name(f"{target.name}.part")


def missing_bytes(remote: Remote, target: Path) -> int:
    """Bytes that have still to come, as far as the size is known."""
    if target.exists() or remote.size is None:
        return 0
    part = part_of(target)
    return max(0, remote.size - (part.stat().st_size if part.exists() else 0))


def fetch(remote: Remote, target: Path, *, advance: Advance = lambda _: None) -> None:
    """Bring a file to ``target``; nothing lies there before it is whole and checked.

    What a broken connection or a killed run leaves behind (``target`` with ``.part``) is continued the next time.

    Raises:
        CheckpointError: for content other than what was expected; it is deleted.
        Refused: where the server says no.
        GamaError: for an address that may not be asked, too little room, a server that cannot be reached.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(target)
    if part.exists() and remote.digest is None and not _validator(part):
        part.unlink()  # nothing could tell whether its other half belongs to it
    advance(_length(part))
    idle = 0
    while True:
        before = _length(part)
        try:
            total = _receive(remote, part, advance)
            break
        except (OSError, http.client.HTTPException, _Cut) as error:
            idle = 0 if _length(part) > before else idle + 1
            if idle >= ATTEMPTS or isinstance(error, OSError) and error.filename is not None:
                raise _unreachable(remote, part, error) from error
            time.sleep(PAUSE * 2**idle / 2)
    _check(remote, part, total)
    os.replace(part, target)
    _notes(part).unlink(missing_ok=True)


def digest_of(file: Path, kind: Literal["sha256", "git"]) -> str:
    """The SHA-256 of a file, or its SHA-1 as a git blob, in hexadecimal."""
    with file.open("rb") as stream:
        if kind == "sha256":
            return hashlib.file_digest(stream, "sha256").hexdigest()
        digest = hashlib.sha1(f"blob {file.stat().st_size}\0".encode(), usedforsecurity=False)
        while piece := stream.read(_CHUNK):
            digest.update(piece)
        return digest.hexdigest()


def check_content(file: Path, digest: Digest, name: str) -> None:
    """Compare a file with what it has to be.

    Raises:
        CheckpointError: where it is something else.
    """
    found = digest_of(file, digest.kind)
    if found != digest.value:
        raise CheckpointError(
            f"{name}: its {digest.kind} hash is {found}, {digest.value} was expected",
            "fetch it again; if that happens twice, the file at that address was changed",
        )


def _receive(remote: Remote, part: Path, advance: Advance) -> int:
    """One request: what is missing is added to the part. Returns the file's whole size."""
    have = _length(part)
    with get(remote.url, _range(remote, part, have), secret=remote.secret) as response:
        if response.status == 416 and have:
            return _beyond(response, part, have, advance)
        _check_status(response, remote)
        begins = have if response.status == 206 else 0
        if begins and not (response.getheader("Content-Range") or "").startswith(f"bytes {have}-"):
            raise _Cut("the server sent another range")
        total = _total(response, begins)
        if total is not None and remote.size is not None and total != remote.size:
            raise CheckpointError(
                f"{remote.url}: the server has {total} bytes, {remote.size} were expected", "the file was changed there"
            )
        if total is not None:
            check_space(total - begins, part.parent)
        if begins < have:
            advance(-have)
        _note(part, response)
        with part.open("ab" if begins else "wb") as stream:
            while piece := response.read(_CHUNK):
                stream.write(piece)
                advance(len(piece))
    if total is not None and _length(part) != total:
        raise _Cut(f"{_length(part)} of {total} bytes arrived")
    return _length(part)


def _range(remote: Remote, part: Path, have: int) -> dict[str, str]:
    if not have:
        return {}
    asked = {"Range": f"bytes={have}-"}
    # a known hash tells afterwards whether the halves fit; addresses behind a redirect change their validators
    if remote.digest is None:
        asked["If-Range"] = _validator(part)
    return asked


def _beyond(response: http.client.HTTPResponse, part: Path, have: int, advance: Advance) -> int:
    """Everything had arrived already; or the part is longer than the file, and is thrown away."""
    stated = (response.getheader("Content-Range") or "").rpartition("/")[2]
    if stated == str(have):
        return have
    part.unlink()
    advance(-have)
    raise _Cut("more had arrived than there is")


def _check_status(response: http.client.HTTPResponse, remote: Remote) -> None:
    status = response.status
    if status in (200, 206):
        return
    if status in _BUSY:
        raise _Cut(f"the server answered {status} {response.reason}")
    where = remote.url.split("?")[0]
    raise Refused(f"{where}: the server answered {status} {response.reason}", status)


def _total(response: http.client.HTTPResponse, begins: int) -> int | None:
    length = response.getheader("Content-Length")
    return begins + int(length) if length is not None and length.isdecimal() else None


def _check(remote: Remote, part: Path, total: int) -> None:
    name = part.name.removesuffix(".part")
    try:
        if remote.size is not None and total != remote.size:
            raise CheckpointError(f"{name}: {total} bytes arrived, {remote.size} were expected")
        if remote.digest is not None:
            check_content(part, remote.digest, name)
    except CheckpointError:
        part.unlink()
        raise


def _unreachable(remote: Remote, part: Path, error: Exception) -> GamaError:
    if isinstance(error, OSError) and error.filename is not None:
        return GamaError(f"{error.filename}: {error.strerror}")
    reason = " ".join(str(error).split()) or type(error).__name__
    kept = f"; {_length(part)} bytes are kept, run again to continue" if part.exists() else ""
    return GamaError(f"{remote.url.split('?')[0]}: {reason}{kept}", "is this machine connected? try: gama doctor")


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _notes(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _note(part: Path, response: http.client.HTTPResponse) -> None:
    """Remember what tells this version of the file from another."""
    etag = response.getheader("ETag") or ""
    known = etag if etag and not etag.startswith("W/") else response.getheader("Last-Modified") or ""
    _notes(part).write_text(json.dumps({"validator": known}), encoding="utf-8")


def _validator(part: Path) -> str:
    notes = _notes(part)
    if not notes.is_file():
        return ""
    try:
        return str(json.loads(notes.read_text(encoding="utf-8"))["validator"])
    except (ValueError, KeyError, TypeError):
        return ""  # cut short when the run was killed
