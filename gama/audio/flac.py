"""A FLAC from a pipe: its header leaves the length open, its last frame tells.

libsndfile reads such a file up to an error at its end. The last frame carries its own number and a checksum, so the
length can be filled in, and a cut noticed (RFC 9639, sections 8.2 and 9).
"""

from __future__ import annotations

from typing import IO

from gama.audio.overlay import joined
from gama.audio.source import Source

_STREAMINFO_END = 42  # "fLaC", a block header of 4 bytes, 34 bytes
_LONGEST_HEADER = 17  # bytes of a frame header, and one
_CANDIDATES = 3  # places near the end that look like a frame; one in 2**23 does by chance
_TAIL = 2**19  # bytes in which the last frame must begin


def checked_flac(source: Source) -> IO[bytes]:
    """The file to decode, with the number of samples filled in if its header leaves it open.

    Raises:
        AudioError: cut off inside the header, or the last frame is not whole.
    """
    head = source.read_at(0, _STREAMINFO_END)
    if len(head) < _STREAMINFO_END or head[4] & 0x7F:
        raise source.error("is cut off or broken: no FLAC stream information")
    field = int.from_bytes(head[18:26], "big")  # rate 20 bits, channels 3, sample size 5, number of samples 36
    if field & (2**36 - 1):
        source.file.seek(0)
        return source.file
    field |= _length(source, block_size=int.from_bytes(head[8:10], "big"))
    head = head[:18] + field.to_bytes(8, "big") + head[26:]
    return joined(source.file, [head, range(_STREAMINFO_END, source.size)])


def _length(source: Source, block_size: int) -> int:
    """Samples of each channel up to the end of the last frame; ``block_size`` that of all frames but the last."""
    tail = source.read_at(max(_STREAMINFO_END, source.size - _TAIL), _TAIL)
    at, candidates = tail.rfind(b"\xff"), 0
    while at >= 0 and candidates < _CANDIDATES:
        marked = tail[at + 1 : at + 2] in (b"\xf8", b"\xf9")
        parsed = _parse(tail[at : at + _LONGEST_HEADER]) if marked else None
        candidates += parsed is not None
        if parsed is not None and _checksum(tail[at:], 16, 0x8005) == 0:
            number, size = parsed
            return (number if tail[at + 1] & 1 else number * block_size) + size
        at = tail.rfind(b"\xff", 0, at)
    raise source.error("is cut off or broken: its last FLAC frame is not whole")


def _parse(frame: bytes) -> tuple[int, int] | None:
    """Number (of the frame, or of its first sample) and samples of a frame, if its header's checksum is right."""
    if len(frame) < _LONGEST_HEADER:
        return None
    coded_length = max(1, 8 - (frame[4] ^ 0xFF).bit_length())  # leading ones, as in UTF-8
    if coded_length == 8 or not frame[2] >> 4:
        return None
    number = frame[4] & (0x7F if coded_length == 1 else 0x7F >> coded_length)
    for byte in frame[5 : 4 + coded_length]:
        number = number << 6 | byte & 0x3F
    size_code, rate_code, at = frame[2] >> 4, frame[2] & 15, 4 + coded_length
    extra = {6: 1, 7: 2}.get(size_code, 0)
    size = int.from_bytes(frame[at : at + extra], "big") + 1 if extra else _block_size(size_code)
    header = frame[: at + extra + {12: 1, 13: 2, 14: 2}.get(rate_code, 0) + 1]
    return None if _checksum(header, 8, 0x07) else (number, size)


def _block_size(code: int) -> int:
    return 192 if code == 1 else 576 << code - 2 if code < 6 else 256 << code - 8


def _checksum(content: bytes, bits: int, polynomial: int) -> int:
    """Remainder of a CRC; 0 if the content ends in its own checksum."""
    top, mask, remainder = 1 << bits - 1, (1 << bits) - 1, 0
    for byte in content:
        remainder ^= byte << bits - 8
        for _ in range(8):
            remainder = (remainder << 1 ^ polynomial if remainder & top else remainder << 1) & mask
    return remainder
