"""One file from an address onto the disk: resumed after a cut, checked, and whole or absent under its name."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gama.atomic import move, write_errors
from gama.errors import CheckpointError, GamaError
from gama.hub.disk import check_space, made_above
from gama.hub.http import content_length, get
from gama.hub.names import short, shown

ATTEMPTS = 5  # in a row that bring next to nothing
PAUSE = 1.0  # seconds before the second attempt, doubled for each further one
_CHUNK = 2**20
_WORTH = 2**14  # bytes that count as progress: a server that sends one and hangs up would be asked for ever
_ROOM = 64 * 2**20  # bytes after which the room is looked at again, where nobody has told the length
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", re.ASCII)
_VALIDATOR = re.compile(r"[ -~]{1,512}")  # what can be sent back in a header
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


class _Useless(Exception):
    """What arrived can never become the file.

    Attributes:
        error: for the user.
    """

    def __init__(self, error: GamaError) -> None:
        self.error = error


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

    What a broken connection or a killed run leaves behind (``target`` with ``.part``) is continued the next time. Where
    nothing arrived, nothing is left behind.

    Raises:
        CheckpointError: for content other than what was expected; it is deleted.
        Refused: where the server says no.
        GamaError: for an address that may not be asked, too little room, a server that cannot be reached.
    """
    with made_above(target):
        try:
            _fetch(remote, target, advance)
        except BaseException:
            _clear(part_of(target))
            raise


def _fetch(remote: Remote, target: Path, advance: Advance) -> None:
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
        except _Useless as useless:
            _discard(part)
            raise useless.error from None
        except (OSError, http.client.HTTPException, _Cut) as error:
            idle = 0 if _length(part) >= before + _WORTH else idle + 1
            if idle >= ATTEMPTS:
                raise _unreachable(remote, part, error) from error
            time.sleep(PAUSE * 2**idle / 2)
    _check(remote, part, total)
    move(part, target)
    notes_of(part).unlink(missing_ok=True)


def _clear(part: Path) -> None:
    """After a failure: an empty part and notes about none go."""
    if part.exists() and not _length(part):
        part.unlink()
    if not part.exists():
        notes_of(part).unlink(missing_ok=True)


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
        begins, ends, total = _extent(response, have)
        if total is not None and remote.size is not None and total != remote.size:
            raise CheckpointError(
                f"{remote.url}: the server has {total} bytes, {remote.size} were expected", "the file was changed there"
            )
        most = ends if ends is not None else remote.size
        if most is not None:
            check_space(most - begins, part.parent)
        if begins < have:
            advance(-have)
        _store(response, part, begins, ends, remote.size, advance)
    expected = total if total is not None else remote.size
    if expected is not None and _length(part) != expected:
        raise _Cut(f"{_length(part)} of {expected} bytes arrived")
    return _length(part)


def _extent(response: http.client.HTTPResponse, have: int) -> tuple[int, int | None, int | None]:
    """Where the content of this answer begins and ends in the file, and the file's size; None for what is not stated.

    Raises:
        GamaError: for an answer that contradicts itself or the request.
    """
    coding = response.getheader("Content-Encoding") or "identity"
    if coding.lower() != "identity":
        raise GamaError(f"the server sends the file in the coding {shown(coding)}, which nobody asked for")
    length = content_length(response)
    if response.status == 200:
        return 0, length, length
    stated = response.getheader("Content-Range") or ""
    if not have:
        raise GamaError(f"the server sends a part of the file ({shown(stated)}), the whole was asked for")
    found = _RANGE.fullmatch(stated)
    if found is None or int(found[1]) != have:
        raise _Cut(f"the server sent another range: {shown(stated)}")
    ends, total = int(found[2]) + 1, int(found[3])
    if not have < ends <= total or length not in (None, ends - have):
        raise GamaError(f"the server sends the range {shown(stated)} in {length} bytes, which contradict each other")
    return have, ends, total


def _store(
    response: http.client.HTTPResponse, part: Path, begins: int, ends: int | None, size: int | None, advance: Advance
) -> None:
    """Write what arrives behind the part's first ``begins`` bytes; never more than was stated or than fits."""
    with write_errors(part, notes_of(part)):
        _note(part, response)
        stream = part.open("ab" if begins else "wb", buffering=0)
    looked = at = begins
    with stream:
        while ends is None or at < ends:
            piece = response.read1(_CHUNK if ends is None else min(_CHUNK, ends - at))
            if not piece:
                return
            at += len(piece)
            if size is not None and at > size:
                raise _Useless(CheckpointError(f"{part.name.removesuffix('.part')}: more than {size} bytes arrived"))
            if ends is None and size is None and at - looked >= _ROOM:
                _check_room(part.parent)
                looked = at
            with write_errors(part):
                _write(stream.write, piece)
            advance(len(piece))


def _write(write: Callable[[memoryview], int | None], piece: bytes) -> None:
    left = memoryview(piece)
    while left:
        left = left[write(left) or 0 :]


def _check_room(folder: Path) -> None:
    """For a file whose length nobody has told: it ends before the disk is full."""
    try:
        check_space(_ROOM, folder)
    except GamaError as error:
        raise _Useless(error) from error


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    notes_of(part).unlink(missing_ok=True)


def _range(remote: Remote, part: Path, have: int) -> dict[str, str]:
    if not have:
        return {}
    # a known hash tells afterwards whether the halves fit; addresses behind a redirect change their validators
    if remote.digest is not None:
        return {"Range": f"bytes={have}-"}
    validator = _validator(part)
    return {"Range": f"bytes={have}-", "If-Range": validator} if validator else {}


def _beyond(response: http.client.HTTPResponse, part: Path, have: int, advance: Advance) -> int:
    """Everything had arrived already; or the part is longer than the file, and is thrown away."""
    stated = (response.getheader("Content-Range") or "").rpartition("/")[2]
    if stated == str(have):
        return have
    _discard(part)
    advance(-have)
    raise _Cut("more had arrived than there is")


def _check_status(response: http.client.HTTPResponse, remote: Remote) -> None:
    status = response.status
    if status in (200, 206):
        return
    answer = short(f"{status} {response.reason}")
    if status in _BUSY:
        raise _Cut(f"the server answered {answer}")
    raise Refused(f"{remote.url.split('?')[0]}: the server answered {answer}", status)


def _check(remote: Remote, part: Path, total: int) -> None:
    name = part.name.removesuffix(".part")
    try:
        if remote.size is not None and total != remote.size:
            raise CheckpointError(f"{name}: {total} bytes arrived, {remote.size} were expected")
        if remote.digest is not None:
            check_content(part, remote.digest, name)
    except CheckpointError:
        _discard(part)
        raise


def _unreachable(remote: Remote, part: Path, error: Exception) -> GamaError:
    reason = short(" ".join(str(error).split())) or type(error).__name__
    kept = f"; {_length(part)} bytes are kept, run again to continue" if part.exists() else ""
    return GamaError(f"{remote.url.split('?')[0]}: {reason}{kept}", "is this machine connected? try: gama doctor")


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def notes_of(part: Path) -> Path:
    """Where the notes about an incomplete file lie."""
    return part.with_name(f"{part.name}.json")


def _note(part: Path, response: http.client.HTTPResponse) -> None:
    """Remember what tells this version of the file from another."""
    etag = response.getheader("ETag") or ""
    known = etag if etag and not etag.startswith("W/") else response.getheader("Last-Modified") or ""
    notes_of(part).write_text(json.dumps({"validator": known if _VALIDATOR.fullmatch(known) else ""}), encoding="utf-8")


def _validator(part: Path) -> str:
    notes = notes_of(part)
    if not notes.is_file():
        return ""
    try:
        known = json.loads(notes.read_text(encoding="utf-8"))["validator"]
    except (ValueError, KeyError, TypeError):
        return ""  # cut short when the run was killed
    return known if isinstance(known, str) and _VALIDATOR.fullmatch(known) else ""
