"""The frames of an MP3: how many there are, and whether the last one is whole.

libmpg123, which decodes for libsndfile, takes a file's length from a Xing header or guesses it from the first frame,
and plays on over damage with notes on stderr. So the frames are counted first, a missing count is filled in, and only
the frames are handed over: tags around them would be noted on stderr too.
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass
from typing import IO

from gama.audio.overlay import Part, joined
from gama.audio.source import Source, id3_size

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
_MAX_TAGS = 1000
_PREROLL = 20  # frames decoded before a span: those that lend it bits, and twice as many
_DECODER_DELAY = 529  # samples


@dataclass(frozen=True)
class _Frame:
    bits: int  # the 4 header bytes
    size: int  # bytes, header included

    @property
    def version(self) -> int:
        return self.bits >> 19 & 3

    @property
    def rate(self) -> int:
        """Hz."""
        return _RATES[self.version][self.bits >> 10 & 3]

    @property
    def is_mono(self) -> bool:
        return self.bits >> 6 & 3 == 3

    def is_like(self, other: _Frame) -> bool:
        """Whether both can be of one stream."""
        return not (self.bits ^ other.bits) & _SAME_STREAM and self.is_mono == other.is_mono

    @property
    def layer(self) -> int:
        return 4 - (self.bits >> 17 & 3)

    @property
    def samples(self) -> int:
        """Of each channel."""
        return 384 if self.layer == 1 else 576 if self.layer == 3 and self.version != 3 else 1152

    def borrowed(self, head: bytes) -> int:
        """Bytes of the frames before it that a frame of layer III uses."""
        side = head[4:] if self.bits >> 16 & 1 else head[6:]
        return int.from_bytes(side[:2], "big") >> 7 if self.version == 3 else side[0]

    def silent(self, head: bytes, side: int, lent: int) -> bytes:
        """Header and side information of the frame without sound; it hands the bytes lent to it on."""
        checked = head[: 4 if self.bits >> 16 & 1 else 6]
        mark = (min(lent, 511) << 7).to_bytes(2, "big") if self.version == 3 else bytes([min(lent, 255)])
        return (checked + mark).ljust(side, b"\0")

    @property
    def side_bytes(self) -> int:
        """Header and side information of layer III, after which a Xing header lies."""
        return (21 if self.is_mono else 36) if self.version == 3 else (13 if self.is_mono else 21)


def _parse(header: bytes) -> _Frame | None:
    bits = int.from_bytes(header[:4], "big")
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


def find_frames(source: Source) -> int | None:
    """Where the first frame lies that another of the same stream follows, or that is the whole file."""
    block = source.read_at(0, _SEARCH + 4096)
    at = block.find(b"\xff")
    while 0 <= at < _SEARCH:
        frame = _parse(block[at : at + 4])
        if frame is not None:
            after = block[at + frame.size : at + frame.size + 4]
            follows = _parse(after)
            if (follows is not None and follows.is_like(frame)) or (not after and not at):
                return at
        at = block.find(b"\xff", at + 1)
    return None


@dataclass(frozen=True)
class Mpeg:
    """The frames of an MP3, as a file for libmpg123: frames and nothing else, with a right count of them in front.

    They are handed over as MP3 in WAV. libsndfile finds out about a bare MP3 last, and before that it opens a file
    named ``._`` in the current folder and takes it for a resource fork.

    Attributes:
        frames: samples of each channel that they hold; an encoder's delay may be cut from them.
    """

    frames: int
    _source: Source
    _first: _Frame
    _head: Part  # the first frame of the file, with the count; empty where none is needed
    _offsets: array[int]  # of every frame that holds sound, and behind the last of each clip
    _ranges: tuple[range, ...]
    _delay_and_padding: tuple[int, int]

    def file(self) -> IO[bytes]:
        """All of it."""
        return self._joined([self._head, *self._ranges])

    def delay(self, decoded: int) -> int | None:
        """Samples that libmpg123 cuts from the beginning, if it gives ``decoded`` in all; None if that is not clear."""
        cut = self.frames - decoded
        if cut in (0, _DECODER_DELAY):
            return cut
        delay, padding = self._delay_and_padding
        return delay + _DECODER_DELAY if delay + padding == cut else None

    def entered(self, sample: int) -> tuple[IO[bytes], int] | None:
        """A file that begins some frames before ``sample``, and the sample it begins with; None near the beginning.

        libmpg123's own seek gives wrong samples up to ten frames long where frames borrow bits from those before
        them, with lines on stderr. Here the first frames, which borrow what is not there, are made silent.
        """
        first = frame = sample // self._first.samples - _PREROLL
        if frame <= 0:
            return None
        parts: list[Part] = []
        lent = 0
        while self._first.layer == 3 and frame < first + _PREROLL // 2:
            at = self._offsets[frame]
            head = self._source.read_at(at, 8)
            form = _parse(head)
            if form is None or form.borrowed(head) <= lent:
                break
            side = form.side_bytes + (0 if form.bits >> 16 & 1 else 2)
            parts += [form.silent(head, side, lent), range(at + side, at + form.size)]
            lent += form.size - side
            frame += 1
        begin = self._offsets[frame]
        parts += [range(max(part.start, begin), part.stop) for part in self._ranges if part.stop > begin]
        if self._first.layer != 3:
            return self._joined(parts), first * self._first.samples
        count = _counting_frame(self._first, len(self._offsets) - first)
        return self._joined([count, *parts]), first * self._first.samples + _DECODER_DELAY

    def _joined(self, parts: list[Part]) -> IO[bytes]:
        size = min(sum(map(len, parts)), 0xFFFFFFFF - 100)
        channels = 1 if self._first.is_mono else 2
        form = struct.pack("<HHIIHHHHIHHH", 0x55, channels, self._first.rate, 16_000, 1, 0, 12, 1, 2, 417, 1, 0)
        head = b"RIFF" + struct.pack("<I", 50 + size) + b"WAVEfmt " + struct.pack("<I", len(form)) + form
        return joined(self._source.file, [head + b"data" + struct.pack("<I", size), *parts])


def checked_mpeg(source: Source) -> Mpeg:
    """Count the frames. Several MP3s one after the other, tags between them or not, are one.

    Raises:
        AudioError: cut off inside a frame, fewer frames than a Xing header counts, or something else between them.
    """
    first = find_frames(source)
    if first is None:
        raise source.error("is broken: no MPEG frames")
    frame = _parse(source.read_at(first, 4))
    assert frame is not None  # find_frames parsed it
    position, clips, offsets = first, [], array("q")
    while position < source.size:
        clip = _clip(source, position, frame, offsets)
        position = _after_tags(source, clip.end, frame)
        if clip.promised and clip.count < clip.promised - 1:  # some encoders count the frame that holds the header
            promised = f"promises {clip.promised} frames, {clip.count} are there"
            raise source.error(f"is cut off: its header {promised}")
        clips.append(clip)
    whole, count = clips[0], len(offsets)
    ranges = tuple(range(clip.audio, clip.end) for clip in clips)
    head: Part = b""
    gapless = (0, 0)
    if frame.layer == 3 and len(clips) == 1 and whole.promised and count <= whole.promised and whole.bytes_fit:
        head, gapless = range(whole.begin, whole.audio), whole.gapless
    elif frame.layer == 3:
        head = _counting_frame(frame, count)
    return Mpeg(count * frame.samples, source, frame, head, offsets, ranges, gapless)


@dataclass(frozen=True)
class _Clip:
    """Frames that one encoder wrote.

    Attributes:
        begin, audio, end: of the first frame, of the first that holds sound, and behind the last.
        promised: frames by the Xing header; None without one, 0 if it does not count.
        count: frames that are there.
        bytes_fit: whether the header's size is right, if it states one.
        gapless: samples that the encoder put in front and behind.
    """

    begin: int
    audio: int
    end: int
    promised: int | None
    count: int
    bytes_fit: bool
    gapless: tuple[int, int]


def _clip(source: Source, begin: int, stream: _Frame, offsets: array[int]) -> _Clip:
    head = source.read_at(begin, 4096).ljust(4096, b"\0")
    frame = _parse(head[:4])
    if frame is None or not frame.is_like(stream):
        raise source.error("holds several clips of different kinds one after the other", "cut it into one file each")
    promised = _xing_count(head, frame)
    audio = begin + frame.size if promised is not None else begin
    before = len(offsets)
    end = _count(source, audio, frame, offsets)
    bytes_fit = _xing_bytes(head, frame) in (None, end - begin)
    return _Clip(begin, audio, end, promised, len(offsets) - before, bytes_fit, _gapless(head, frame))


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


def _gapless(head: bytes, frame: _Frame) -> tuple[int, int]:
    """Delay and padding by the LAME tag behind a Xing header (Info Tag rev 1)."""
    at = frame.side_bytes
    if head[at : at + 4] not in (b"Xing", b"Info"):
        return 0, 0
    flags = head[at + 7]
    tag = at + 8 + 4 * (flags & 1) + 4 * (flags >> 1 & 1) + 100 * (flags >> 2 & 1) + 4 * (flags >> 3 & 1)
    both = int.from_bytes(head[tag + 21 : tag + 24], "big")
    return both >> 12, both & 0xFFF


def _counting_frame(frame: _Frame, count: int) -> bytes:
    """A silent first frame that says how many follow (flags 1: only the count)."""
    bits = frame.bits & ~0xF200 | 8 << 12 | 1 << 16  # bitrate 8 (long enough), no padding, no checksum
    described = _parse(bits.to_bytes(4, "big"))
    assert described is not None
    header = bits.to_bytes(4, "big").ljust(frame.side_bytes, b"\0")
    return (header + b"Xing" + (1).to_bytes(4, "big") + count.to_bytes(4, "big")).ljust(described.size, b"\0")


def _count(source: Source, begin: int, first: _Frame, offsets: array[int]) -> int:
    """Add where frames lie from ``begin`` on, and return where they end: at the end of the file, a tag or a header."""
    position, block, block_at = begin, b"", begin
    mark, is_first = first.side_bytes, True
    while position < source.size:
        if position + 64 > block_at + len(block):
            block, block_at = source.read_at(position, _READ), position
        at = position - block_at
        frame = _parse(block[at : at + 4])
        if frame is None or not frame.is_like(first):
            break
        if not is_first and block[at + mark : at + mark + 4] in (b"Xing", b"Info"):
            break
        offsets.append(position)
        position += frame.size
        is_first = False
    if position > source.size:
        raise source.error("is cut off inside its last MPEG frame")
    return position


def _after_tags(source: Source, position: int, stream: _Frame) -> int:
    """Where the next clip begins behind tags; the size of the file where none follows.

    Raises:
        AudioError: something that is neither a tag nor a frame.
    """
    for _ in range(_MAX_TAGS):
        if position >= source.size:
            return source.size
        head = source.read_at(position, 32)
        frame = _parse(head[:4])
        if frame is not None and _goes_on(source, position, frame, stream):
            return position
        end = _tag_end(source, position, head)
        if end is None:
            rest = source.read_at(position, _SEARCH)
            padding = len(rest) - len(rest.lstrip(b"\0"))
            if not padding:
                raise source.error(f"is broken: no MPEG frame at byte {position} of {source.size}")
            end = position + padding
        position = end
    raise source.error(f"is broken: no MPEG frame at byte {position} of {source.size}")


def _goes_on(source: Source, position: int, frame: _Frame, stream: _Frame) -> bool:
    """Whether a clip begins there: of the same kind, or of another that has a second frame."""
    if frame.is_like(stream):
        return True
    second = _parse(source.read_at(position + frame.size, 4))
    return second is not None and second.is_like(frame)


def _tag_end(source: Source, position: int, head: bytes) -> int | None:
    """The end of the tag that begins at ``position``; None where none does."""
    if head[:3] == b"ID3":
        return position + id3_size(head)
    if head[:8] == b"APETAGEX":  # its size counts the footer, and a header is 32 bytes more
        has_header = int.from_bytes(head[20:24], "little") & 1 << 29
        return position + int.from_bytes(head[12:16], "little") + (32 if has_header else 0)
    if head[:4] == b"TAG+":
        return position + 227
    if head[:3] == b"TAG":
        return position + 128
    if head[:3] == b"3DI":
        return position + 10
    if head[:11] == b"LYRICSBEGIN":
        block = source.read_at(position, _SEARCH)
        ends = [at + 9 for at in (block.find(b"LYRICS200"), block.find(b"LYRICSEND")) if at >= 0]
        return position + min(ends) if ends else None
    return None
