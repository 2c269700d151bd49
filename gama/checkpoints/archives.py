"""Zip archives as people download them, unpacked within bounds. No torch.

The authors' archives were packed on a Mac: Apple's archiver writes sizes and offsets beyond 4 GiB modulo 2**32 and no
Zip64 records, so ``unzip`` finds overlapping parts and calls them a bomb, and ``zipfile`` refuses them, too. Here the
places are found again and every byte is proved by its checksum; what bounds a bomb is how much may come out.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import struct
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gama.errors import CheckpointError

WRAP = 2**32  # where Apple's archiver starts again from zero
MAX_ENTRIES = 10_000
MAX_RATIO = 100  # weights hardly shrink; 100 times the archive is no archive of weights
MAX_SMALL = 256 * 2**20  # bytes that any archive may unpack to
_MARGIN = 256 * 2**20  # bytes left free on the disk
_CHUNK = 2**20
_STORED, _DEFLATED = 0, 8
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_JUNK = re.compile(r"(^|/)(__MACOSX|\.DS_Store|\._[^/]*)(/|$)")


@dataclass(frozen=True)
class Member:
    """One entry of the central directory; sizes and offset as written there, wrapped or not.

    Attributes:
        name: its path in the archive, as written.
        offset: of the local header, the archive's prefix included.
        size: bytes unpacked.
        exact: whether Zip64 gives the true size and offset.
    """

    name: str
    offset: int
    size: int
    crc: int
    method: int
    flags: int
    mode: int
    exact: bool

    @property
    def is_folder(self) -> bool:
        return self.name.endswith("/")


def is_archive(path: Path) -> bool:
    """Whether a file is a zip archive, and not one that torch.save wrote (a zip archive of its own)."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        magic = file.read(4)
        if magic[:2] != b"PK" and path.suffix.lower() != ".zip":
            return False
        try:
            _, members = _directory(file, path)
        except CheckpointError:
            return path.suffix.lower() == ".zip"
    return not any(re.fullmatch(r"[^/]+/data\.pkl", member.name) for member in members)


@contextmanager
def unpacked(path: Path, within: Path | None = None) -> Iterator[Path]:
    """The archive's files in a temporary folder, which is removed afterwards.

    Args:
        path: the archive.
        within: where the temporary folder goes; the system's place for them where absent.
    """
    folder = Path(tempfile.mkdtemp(prefix=".gama-unpacked-", dir=within))
    try:
        unpack(path, folder)
        yield folder
    finally:
        shutil.rmtree(folder)


def unpack(path: Path, target: Path) -> list[Path]:
    """Unpack an archive into an existing folder; returns the files written.

    Raises:
        CheckpointError: for a damaged, encrypted or cut archive, a path that leaves the target, a link, or more
            coming out than :data:`MAX_RATIO` times the archive or than the disk holds.
    """
    with path.open("rb") as file:
        end, members = _directory(file, path)
        wanted = {m: _target(m, target, path) for m in members if not _JUNK.search(m.name)}
        files = {m: place for m, place in wanted.items() if not m.is_folder}
        _check_names(files, path)
        room = _room(path, target, sum(m.size for m in files))
        starts = sorted({_locate(file, m, path) for m in members})
        for member, place in files.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            start = _locate(file, member, path)
            until = next((s for s in starts if s > start), end)
            room -= _extract(file, member, place, bounds=(start, until, end), room=room, path=path)
    return list(files.values())


# -- the central directory ---------------------------------------------------------------------------------------------


def _directory(file: BinaryIO, path: Path) -> tuple[int, list[Member]]:
    """Where the central directory starts, and its entries."""
    size = file.seek(0, os.SEEK_END)
    tail_start = max(0, size - _END.size - 0xFFFF)
    file.seek(tail_start)
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise CheckpointError(f"{path}: the zip archive is cut short or no archive", "download it again")
    *_, length, offset, _ = _END.unpack_from(tail, at)
    end = tail_start + at
    if at >= 20 and tail[at - 20 : at - 16] == b"PK\x06\x07":
        end, length, offset = _zip64(file, end, path)
    start = end - length
    if start < 0:
        raise CheckpointError(f"{path}: the directory of the zip archive lies outside of it", "download it again")
    shift = start - offset
    if shift % WRAP == 0:
        shift = 0  # not bytes in front of the archive, but an offset that started again from zero
    file.seek(start)
    return start, list(_entries(file.read(length), shift, path))


def _zip64(file: BinaryIO, end: int, path: Path) -> tuple[int, int, int]:
    file.seek(end - 20)
    _, _, told, _ = struct.unpack("<4sIQI", file.read(20))
    for at in (end - 20 - _END64.size, told):  # right in front of its locator, whatever lies before the archive
        if 0 <= at < end:
            file.seek(at)
            record = file.read(_END64.size)
            if record[:4] == b"PK\x06\x06" and len(record) == _END64.size:
                *_, length, offset = _END64.unpack(record)
                return at, length, offset
    raise CheckpointError(f"{path}: the Zip64 directory is not where the archive says", "download it again")


def _entries(directory: bytes, shift: int, path: Path) -> Iterator[Member]:
    at = count = 0
    while at < len(directory):
        if directory[at : at + 4] != b"PK\x01\x02" or at + _ENTRY.size > len(directory):
            raise CheckpointError(f"{path}: the directory of the zip archive is damaged", "download it again")
        count += 1
        if count > MAX_ENTRIES:
            raise CheckpointError(f"{path}: more than {MAX_ENTRIES} entries, which is no archive of weights")
        fields = _ENTRY.unpack_from(directory, at)
        flags, method, crc, packed, size = fields[3], fields[4], fields[7], fields[8], fields[9]
        lengths, attributes, offset = fields[10:13], fields[15], fields[16]
        name_at = at + _ENTRY.size
        raw = directory[name_at : name_at + lengths[0]]
        extra = directory[name_at + lengths[0] : name_at + lengths[0] + lengths[1]]
        size, offset, exact = _true_values(extra, packed, size, offset)
        yield Member(_name(raw), offset + shift, size, crc, method, flags, attributes >> 16, exact)
        at = name_at + sum(lengths)


def _name(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")  # Apple writes UTF-8 without saying so
    except UnicodeDecodeError:
        return raw.decode("cp437")


def _true_values(extra: bytes, packed: int, size: int, offset: int) -> tuple[int, int, bool]:
    """Size and offset from the Zip64 extra field, where there is one."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            values = list(struct.unpack_from(f"<{length // 8}Q", extra[at + 4 : at + 4 + length].ljust(length, b"\0")))
            size = values.pop(0) if size == 0xFFFFFFFF and values else size
            if packed == 0xFFFFFFFF and values:
                values.pop(0)
            offset = values.pop(0) if offset == 0xFFFFFFFF and values else offset
            return size, offset, True
        at += 4 + length
    return size, offset, False


# -- what is allowed ---------------------------------------------------------------------------------------------------


def _target(member: Member, folder: Path, path: Path) -> Path:
    """Where a member goes.

    Raises:
        CheckpointError: where that lies outside the folder, or the member is a link, encrypted or of unknown packing.
    """
    name = member.name.replace("\\", "/")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", name) or "\0" in name:
        raise CheckpointError(f"{path}: the entry {member.name!r} leads out of the archive's folder")
    if not parts:
        raise CheckpointError(f"{path}: an entry without a name")
    if stat.S_IFMT(member.mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise CheckpointError(f"{path}: the entry {member.name!r} is a link or device, and no file")
    if member.flags & 1:
        raise CheckpointError(f"{path}: the entry {member.name!r} is encrypted", "unpack it yourself and give the file")
    if member.method not in (_STORED, _DEFLATED):
        raise CheckpointError(
            f"{path}: the entry {member.name!r} is packed by method {member.method}; stored and deflated are known",
            "unpack it yourself and give the file",
        )
    return folder.joinpath(*parts)


def _check_names(files: dict[Member, Path], path: Path) -> None:
    places = Counter(str(place).casefold() for place in files.values())
    folders = {str(parent).casefold() for place in files.values() for parent in place.parents}
    for place, count in places.items():
        if count > 1 or place in folders:
            raise CheckpointError(f"{path}: two entries are called {Path(place).name!r}")


def _room(path: Path, target: Path, declared: int) -> int:
    """How many bytes may come out of the archive."""
    most = max(MAX_SMALL, MAX_RATIO * path.stat().st_size)
    if declared > most:
        raise CheckpointError(
            f"{path}: would unpack to {declared:,} bytes, more than {MAX_RATIO} times the archive: refused as a bomb"
        )
    free = shutil.disk_usage(target).free - _MARGIN
    if declared > free:
        raise CheckpointError(
            f"{path}: unpacks to {declared:,} bytes, {max(free, 0):,} are free in {target}", "free space or set TMPDIR"
        )
    return min(most, free)


# -- the data ----------------------------------------------------------------------------------------------------------


def _locate(file: BinaryIO, member: Member, path: Path) -> int:
    """The local header: at its offset, or a multiple of 4 GiB further on, where the entry's name stands."""
    end = file.seek(0, os.SEEK_END)
    headers = []
    for offset in range(member.offset, end, end if member.exact else WRAP):
        if offset < 0:
            continue
        file.seek(offset)
        header = file.read(_LOCAL.size)
        if header[:4] == b"PK\x03\x04" and len(header) == _LOCAL.size:
            name = file.read(_LOCAL.unpack(header)[9])
            if _name(name) == member.name:
                return offset
            headers.append(offset)
    if not headers:
        raise CheckpointError(
            f"{path}: the data of {member.name!r} are not where the archive says", "download it again"
        )
    return headers[0]


def _extract(
    file: BinaryIO, member: Member, place: Path, *, bounds: tuple[int, int, int], room: int, path: Path
) -> int:
    """Write one member and prove it; returns its bytes."""
    start, until, end = bounds
    file.seek(start)
    *_, name_length, extra_length = _LOCAL.unpack(file.read(_LOCAL.size))
    data = start + _LOCAL.size + name_length + extra_length
    file.seek(data)
    stored = member.method == _STORED
    pieces = _copied(file, _stored_size(member, data, until)) if stored else _inflated(file, end - data, member, path)
    crc = written = 0
    with place.open("xb") as out:
        for piece in pieces:
            written += len(piece)
            if written > room:
                raise CheckpointError(
                    f"{path}: {member.name!r} unpacks to more than the archive may hold: refused as a bomb",
                    f"at most {MAX_RATIO} times the archive, and what the disk has free",
                )
            crc = zlib.crc32(piece, crc)
            out.write(piece)
    length = written if member.exact else written % WRAP
    if length != member.size or crc != member.crc:
        raise CheckpointError(f"{path}: {member.name!r} is damaged: its checksum does not fit", "download it again")
    return written


def _stored_size(member: Member, data: int, until: int) -> int:
    """The true size of a member stored as it is: as many times 4 GiB more as fit before the next one."""
    if member.exact or data + member.size > until:
        return member.size
    return member.size + (until - data - member.size) // WRAP * WRAP


def _copied(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size > 0:
        piece = file.read(min(_CHUNK, size))
        if not piece:
            return
        size -= len(piece)
        yield piece


def _inflated(file: BinaryIO, most: int, member: Member, path: Path) -> Iterator[bytes]:
    """Unpack to the end that the stream itself marks; the directory's packed size may be wrapped or wrong."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    waiting = b""
    while not stream.eof:
        if not waiting:
            waiting = file.read(min(_CHUNK, most))
            most -= len(waiting)
        try:
            piece = stream.decompress(waiting, _CHUNK)
        except zlib.error as error:
            raise CheckpointError(f"{path}: {member.name!r} is damaged: {error}", "download it again") from error
        if not waiting and not piece and not stream.eof:
            raise CheckpointError(f"{path}: {member.name!r} is cut short", "download it again")
        yield piece
        waiting = stream.unconsumed_tail
