"""The pages of an Ogg file: all there, undamaged, up to the one that says it is the last.

libsndfile skips damaged pages and takes the last page it finds for the end; both would shorten or shift a clip in
silence (RFC 3533, section 6).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from gama.audio.overlay import Part, joined
from gama.audio.source import Source

_HEADER = 27  # bytes, then one per segment
_END_OF_STREAM = 4
_BEGIN_OF_STREAM = 2
_READ = 2**20
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def check_ogg(source: Source) -> None:
    """Walk all pages.

    Raises:
        AudioError: a page is cut, damaged or missing, a stream has no last page, or a second clip is chained on.
    """
    following: dict[bytes, int] = {}  # next page number by stream
    ended = False
    for position, page in _pages(source):
        if _checksum(page) != int.from_bytes(page[22:26], "little"):
            raise source.error(f"is broken: the Ogg page at byte {position} of {source.size} is damaged")
        stream, number, flags = page[14:18], int.from_bytes(page[18:22], "little"), page[5]
        if ended and flags & _BEGIN_OF_STREAM:
            raise source.error("holds several clips one after the other", "cut it into one file each")
        if number != following.get(stream, number):
            raise source.error(f"is broken: Ogg pages are missing before byte {position} of {source.size}")
        following[stream] = (number + 1) % 2**32
        ended = ended or bool(flags & _END_OF_STREAM)
    if not ended:
        raise source.error("is cut off: its last Ogg page is missing")


def holds_flac(source: Source) -> bool:
    """Whether its first stream is FLAC."""
    head = source.read_at(0, _HEADER + 1 + 5)
    return head[28:] == b"\x7fFLAC"


def flac_of(source: Source) -> Source:
    """FLAC in Ogg as a FLAC file (the FLAC-to-Ogg mapping: a packet of headers, then one for each block and frame).

    Raises:
        AudioError: as :func:`check_ogg`.
    """
    check_ogg(source)
    parts: list[Part] = [b"fLaC"]
    skipped = 13  # 0x7F, "FLAC", version, number of headers, and "fLaC"
    stream = source.read_at(14, 4)
    for position, page in _pages(source):
        if page[14:18] == stream:
            parts.append(range(position + _HEADER + page[26] + skipped, position + len(page)))
            skipped = 0
    return Source(joined(source.file, parts), sum(map(len, parts)), source.given)


def _pages(source: Source) -> Iterator[tuple[int, bytes]]:
    """Position and bytes of each page; what follows the last one, a tag say, is left alone."""
    position, block, block_at = 0, b"", 0
    whole = True
    while position < source.size:
        at = position - block_at
        if at + _HEADER + 255 + 255 * 255 > len(block) and block_at + len(block) < source.size:
            block, block_at, at = source.read_at(position, _READ), position, 0
        head = block[at : at + _HEADER]
        if head[:4] != b"OggS":
            whole = b"OggS" not in block[at:]
            break
        segments = head[26] if len(head) == _HEADER else 0
        size = _HEADER + segments + sum(block[at + _HEADER : at + _HEADER + segments])
        if len(head) < _HEADER or at + size > len(block):
            raise source.error("is cut off inside its last Ogg page")
        yield position, block[at : at + size]
        position += size
    if not whole:
        raise source.error(f"is broken: no Ogg page at byte {position} of {source.size}")


def _checksum(page: bytes) -> int:
    """Ogg's CRC-32: zlib's polynomial, but bits in the other order and no inversion."""
    unsigned = (page[:22] + bytes(4) + page[26:]).translate(_MIRRORED)
    mirrored = zlib.crc32(unsigned, 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(mirrored.to_bytes(4, "little").translate(_MIRRORED), "big")
