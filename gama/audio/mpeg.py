"""The frames of an MP3: how many there are, and whether the last one is whole.

libmpg123, which decodes for libsndfile, takes a file's length from a Xing header or guesses it from the first frame,
and plays on over damage with notes on stderr. So the frames are counted first, a missing count is filled in, and only
the frames are handed over: tags around them would be noted on stderr too.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import IO

from gama.audio.overlay import Overlay
from gama.audio.source import Source

_V1 = {  # kbit/s by layer (ISO/IEC 11172-3 table 2.4.2.3)
    1: (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    2: (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
}
_LOW_I = (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256)
_LOW_II_III = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_V2 = {1: _LOW_I, 2: _LOW_II_III, 3: _LOW_II_III}  # MPEG 2 and 2.5 (ISO/IEC 13818-3 table 2)
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}  # Hz by version bits
_SAME_STREAM = 0xFFFE0C00  # sync, version, layer and rate stay the same through a stream
_SEARCH = 65_536  # bytes in which the first frame must begin
_READ = 2**20
_TAIL_MARKS = (b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"ID3", b"3DI")


@dataclass(frozen=True)
class _Frame:
    bits: int  # the 4 header bytes
    size: int  # bytes, header included

    @property
    def version(self) -> int:
        return self.bits >> 19 & 3

    @property
    def side_bytes(self) -> int:
        """Header and side information of layer III, after which a Xing header lies."""
        mono = self.bits >> 6 & 3 == 3
        return (21 if mono else 36) if self.version == 3 else (13 if mono else 21)


def _parse(header: bytes) -> _Frame | None:
    bits = int.from_bytes(header, "big")
    version, layer = bits >> 19 & 3, 4 - (bits >> 17 & 3)
    rate_index, bitrate_index = bits >> 10 & 3, bits >> 12 & 15
    if len(header) < 4 or bits >> 21 != 0x7FF or version == 1 or layer == 4 or rate_index == 3:
        return None
    if bitrate_index in (0, 15):  # free format, which hardly exists, or invalid
        return None
    bitrate = 1000 * (_V1 if version == 3 else _V2)[layer][bitrate_index]
    rate, padding = _RATES[version][rate_index], bits >> 9 & 1
    if layer == 1:
        return _Frame(bits, 4 * (12 * bitrate // rate + padding))
    bytes_per_second = 72 if layer == 3 and version != 3 else 144
    return _Frame(bits, bytes_per_second * bitrate // rate + padding)


def find_frames(source: Source, begin: int) -> int | None:
    """Where the first frame lies that another of the same stream follows, or that ends the file."""
    source.file.seek(begin)
    block = source.file.read(_SEARCH + 4096)
    at = block.find(b"\xff")
    while 0 <= at < _SEARCH:
        frame = _parse(block[at : at + 4])
        if frame is not None:
            after = block[at + frame.size : at + frame.size + 4]
            follows = _parse(after)
            if (follows is not None and not (follows.bits ^ frame.bits) & _SAME_STREAM) or (not after and not at):
                return begin + at
        at = block.find(b"\xff", at + 1)
    return None


def checked_mpeg(source: Source, begin: int) -> IO[bytes]:
    """The frames as a file, with a right frame count in front.

    Raises:
        AudioError: cut off inside a frame, fewer frames than its Xing header counts, or something else between them.
    """
    first = find_frames(source, begin)
    if first is None:
        raise source.error("is broken: no MPEG frames")
    source.file.seek(first)
    head = source.file.read(4096)
    frame = _parse(head[:4])
    assert frame is not None  # find_frames parsed it
    promised = _xing_count(head, frame)
    audio = first + frame.size if promised is not None else first
    counted, end = _count(source, audio, frame)
    if promised and counted < promised - 1:  # some encoders count the frame that holds the header
        raise source.error(f"is cut off: its header promises {promised} frames, {counted} are there")
    is_layer_three = frame.bits >> 17 & 3 == 1
    if not is_layer_three or (promised and counted <= promised and _xing_bytes(head, frame) in (None, end - first)):
        return io.BufferedReader(Overlay(b"", source.file, first, end))
    return io.BufferedReader(Overlay(_xing_frame(frame, counted), source.file, audio, end))


def _xing_count(head: bytes, frame: _Frame) -> int | None:
    """Frames by the Xing, Info or VBRI header in the first frame; 0 if it has the header but no count."""
    at = frame.side_bytes
    if head[at : at + 4] in (b"Xing", b"Info"):
        return int.from_bytes(head[at + 8 : at + 12], "big") if head[at + 7] & 1 else 0
    if head[36:40] == b"VBRI":
        return int.from_bytes(head[50:54], "big")
    return None


def _xing_bytes(head: bytes, frame: _Frame) -> int | None:
    """Bytes of all frames by a Xing or Info header."""
    at = frame.side_bytes
    if head[at : at + 4] not in (b"Xing", b"Info") or not head[at + 7] & 2:
        return None
    field = at + 8 + 4 * (head[at + 7] & 1)
    return int.from_bytes(head[field : field + 4], "big")


def _xing_frame(frame: _Frame, count: int) -> bytes:
    """A silent first frame that says how many follow (flags 1: only the count)."""
    bits = frame.bits & ~0xF200 | 8 << 12 | 1 << 16  # bitrate 8 (long enough), no padding, no checksum
    described = _parse(bits.to_bytes(4, "big"))
    assert described is not None
    header = bits.to_bytes(4, "big").ljust(frame.side_bytes, b"\0")
    return (header + b"Xing" + (1).to_bytes(4, "big") + count.to_bytes(4, "big")).ljust(described.size, b"\0")


def _count(source: Source, begin: int, first: _Frame) -> tuple[int, int]:
    """Frames from ``begin`` on, and where they end: at the end of the file or at the tags behind them."""
    position, count, block, block_at = begin, 0, b"", begin
    while position < source.size:
        if position + 4 > block_at + len(block):
            source.file.seek(position)
            block, block_at = source.file.read(_READ), position
        header = block[position - block_at : position - block_at + 4]
        frame = _parse(header)
        if frame is None or (frame.bits ^ first.bits) & _SAME_STREAM:
            _check_tail(source, position)
            break
        position += frame.size
        count += 1
    if position > source.size:
        raise source.error("is cut off inside its last MPEG frame")
    return count, position


def _check_tail(source: Source, position: int) -> None:
    source.file.seek(position)
    tail = source.file.read(65_536)
    if not tail.startswith(_TAIL_MARKS) and tail.strip(b"\0"):
        raise source.error(f"is broken: no MPEG frame at byte {position} of {source.size}")
