"""WAV, AIFF and CAF: their chunks, whether the samples they promise are there, and nothing else for the decoder.

libsndfile refuses a file for a malformed chunk that is no sound (PEAK of another number of channels), and takes the
samples that are there for all of them. It gets the chunks that describe sound, with sizes that are right.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Literal

from gama.audio.overlay import Part, joined
from gama.audio.source import Source

_Order = Literal["little", "big"]
_UNKNOWN_SIZES = (0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000)  # what ffmpeg, some recorders and sox write to a pipe
_MAX_CHUNKS = 10_000
_MAX_HEADER = 2**20  # bytes of chunks that are copied
_WAV_KEPT, _AIFF_KEPT = (b"fmt ", b"fact"), (b"COMM", b"FVER", b"SSND")
_CAF_KEPT = (b"desc", b"kuki", b"pakt", b"chan", b"data")
_MPEG_TAGS, _UNFRAMED_TAGS = (0x0050, 0x0055), (0x00FF, 0x706D, 0xA106)

CODECS = {  # wFormatTag (mmreg.h), as people call it
    **{0x0002: "MS ADPCM", 0x0011: "IMA ADPCM", 0x0031: "GSM 6.10", 0x0038: "NMS ADPCM", 0x0040: "G.721"},
    **{0x0022: "TrueSpeech", 0x0042: "G.723.1", 0x0045: "G.726", 0x0050: "MPEG layer I or II", 0x0055: "MP3"},
    **{0x0061: "Duck DK4", 0x0062: "Duck DK3", 0x0064: "G.726", 0x0065: "G.722", 0x028F: "G.722", 0x00FF: "AAC"},
    **{0x0075: "VoxWare", 0x0130: "Sipro", 0x0160: "WMA", 0x0161: "WMA", 0x0162: "WMA Pro", 0x0163: "WMA Lossless"},
    **{0x0083: "G.729", 0x0200: "Creative ADPCM", 0x0270: "ATRAC3", 0x1600: "AAC", 0x1601: "AAC", 0x1602: "AAC"},
    **{0x1610: "AAC", 0x2000: "AC-3", 0x2001: "DTS", 0x5756: "WavPack", 0x674F: "Vorbis", 0x6750: "Vorbis"},
    **{0x6751: "Vorbis", 0x676F: "Vorbis", 0x6770: "Vorbis", 0x6771: "Vorbis", 0x704F: "Opus", 0x706D: "AAC"},
    **{0xA106: "AAC", 0xA109: "Speex", 0xF1AC: "FLAC", 0x0020: "Yamaha ADPCM", 0x0057: "AMR", 0x0058: "AMR"},
}


@dataclass(frozen=True)
class Riff:
    """What the chunks say.

    Attributes:
        file: for libsndfile.
        codec: how the samples are coded, in a word; empty where they are plain ones.
        mpeg: the samples as a clip of its own, where they are MPEG frames.
        unframed: where the samples lie, if nothing between their packets tells where one ends.
        frames: samples of each channel, where the header states them besides their bytes.
    """

    file: IO[bytes]
    codec: str = ""
    mpeg: Source | None = None
    unframed: range | None = None
    frames: int | None = None


@dataclass(frozen=True)
class _Chunk:
    name: bytes
    begin: int  # of its content
    size: int  # promised

    @property
    def end(self) -> int:
        return self.begin + self.size + self.size % 2


def _chunks(source: Source, order: _Order) -> Iterator[_Chunk]:
    """The chunks of a RIFF or FORM file."""
    position = 12
    for _ in range(_MAX_CHUNKS):
        header = source.read_at(position, 8)
        if len(header) < 8:
            return
        chunk = _Chunk(header[:4], position + 8, int.from_bytes(header[4:], order))
        yield chunk
        position = chunk.end


def read_wav(source: Source) -> Riff:
    """The chunks of RIFF, RIFX, RF64 and BW64.

    Raises:
        AudioError: cut off or broken, 0 Hz or 0 channels.
    """
    order: _Order = "big" if source.read_at(0, 4) == b"RIFX" else "little"
    long_size: int | None = None
    kept: list[_Chunk] = []
    others = False
    for chunk in _chunks(source, order):
        if chunk.name == b"ds64":
            long_size = int.from_bytes(source.read_at(chunk.begin + 8, 8), "little")
        elif chunk.name == b"data" and kept:
            size = long_size if long_size is not None and chunk.size == 0xFFFFFFFF else chunk.size
            tag = _checked_format(source, kept[0], order)
            others = others or source.read_at(0, 4) == b"BW64"
            return _wav(source, order, kept, others, chunk.begin, size, tag)
        elif chunk.name == b"data":
            break
        elif (chunk.name == b"fmt " and not kept) or (kept and chunk.name in _WAV_KEPT[1:]):
            kept.append(chunk)
        else:
            others = True
    raise source.error(f"is cut off or broken: no {'data' if kept else 'fmt'} chunk before its end")


def _checked_format(source: Source, chunk: _Chunk, order: _Order) -> int:
    """The format tag; of an extensible one that in its GUID."""
    content = source.read_at(chunk.begin, min(chunk.size, 40))
    if len(content) < 16:
        raise source.error("is cut off inside its header")
    tag, channels = int.from_bytes(content[:2], order), int.from_bytes(content[2:4], order)
    if not int.from_bytes(content[4:8], order):
        raise source.error("has a sampling rate of 0 Hz in its header")
    if not channels:
        raise source.error("has 0 channels in its header")
    return int.from_bytes(content[24:26], order) if tag == 0xFFFE and len(content) >= 26 else tag


def _wav(source: Source, order: _Order, kept: list[_Chunk], others: bool, begin: int, size: int, tag: int) -> Riff:
    end = _end_of_samples(source, begin, size, order)
    codec = CODECS.get(tag, "" if tag in (1, 3, 6, 7) else f"format 0x{tag:04x}")
    if tag in _MPEG_TAGS:
        return Riff(source.file, codec, mpeg=source.part(begin, end))
    if tag in _UNFRAMED_TAGS:
        return Riff(source.file, codec, unframed=range(begin, end))
    if not others and end == begin + size:
        source.file.seek(0)
        return Riff(source.file, codec)
    if sum(chunk.size for chunk in kept) > _MAX_HEADER:
        raise source.error(f"has {sum(chunk.size for chunk in kept)} bytes of header before its samples")
    parts: list[Part] = []
    for chunk in kept:
        content = source.read_at(chunk.begin, chunk.size)
        parts += [chunk.name + len(content).to_bytes(4, order) + content + bytes(len(content) % 2)]
    size = end - begin
    room = min(size, 0xFFFFFFFF).to_bytes(4, order)
    total = 4 + sum(map(len, parts)) + 8 + size
    if total > 0xFFFFFFFF:
        head = b"RF64\xff\xff\xff\xffWAVEds64" + (28).to_bytes(4, "little")
        head += (total + 36).to_bytes(8, "little") + size.to_bytes(8, "little") + bytes(12)
    else:
        head = (b"RIFX" if order == "big" else b"RIFF") + total.to_bytes(4, order) + b"WAVE"
    return Riff(joined(source.file, [head, *parts, b"data" + room, range(begin, end)]), codec)


def _end_of_samples(source: Source, begin: int, size: int, order: _Order) -> int:
    there = source.size - begin
    riff = int.from_bytes(source.read_at(4, 4), order)
    if size == 0 and there > 0 and (_is_unknown(riff) or riff == 0 or riff + 8 <= begin):
        return source.size  # a pipe: sizes were never filled in
    if size <= there:
        return begin + size
    if _is_unknown(size):
        return source.size
    if riff + 8 <= source.size and size - there <= begin:  # the file is whole, its writer counted header bytes in
        return source.size
    raise source.error(f"is cut off: its header promises {size} bytes of samples, {max(there, 0)} are there")


def _is_unknown(size: int) -> bool:
    return any(0 <= mark - size < 128 or 0 <= size - mark < 128 for mark in _UNKNOWN_SIZES)


def read_aiff(source: Source) -> Riff:
    """The chunks of AIFF and AIFC.

    Raises:
        AudioError: cut off or broken.
    """
    chunks = list(_chunks(source, "big"))
    samples = next((chunk for chunk in chunks if chunk.name == b"SSND"), None)
    if samples is None:
        raise source.error("is cut off or broken: no SSND chunk before its end")
    there = source.size - samples.begin
    if samples.size > there:
        raise source.error(f"is cut off: its header promises {samples.size} bytes of samples, {there} are there")
    common = next((chunk for chunk in chunks if chunk.name == b"COMM"), None)
    if common is None:
        raise source.error("is cut off or broken: no COMM chunk before its end")
    is_coded = source.read_at(8, 4) == b"AIFC" and common.size >= 22
    codec = _name(source.read_at(common.begin + 18, 4)) if is_coded else ""
    if all(chunk.name in _AIFF_KEPT for chunk in chunks):
        source.file.seek(0)
        return Riff(source.file, codec)
    kept = [range(c.begin - 8, min(c.end, source.size)) for c in (common, samples)]
    head = b"FORM" + (4 + sum(map(len, kept))).to_bytes(4, "big") + source.read_at(8, 4)
    return Riff(joined(source.file, [head, *kept]), codec)


def read_caf(source: Source) -> Riff:
    """The chunks of a CAF, whose sizes have been compared with the file's."""
    parts: list[Part] = [range(0, 8)]
    position = 8
    is_plain, frames = True, None
    for _ in range(_MAX_CHUNKS):
        head = source.read_at(position, 12)
        if len(head) < 12:
            break
        size = int.from_bytes(head[4:], "big")
        end = source.size if size >= 1 << 63 else position + 12 + size
        if head[:4] == b"pakt":
            frames = int.from_bytes(source.read_at(position + 20, 8), "big")
        if head[:4] in _CAF_KEPT:
            parts.append(range(position, min(end, source.size)))
        else:
            is_plain = False
        position = end
    coded = source.read_at(28, 4) if source.read_at(8, 4) == b"desc" else b""
    codec = "" if coded == b"lpcm" else _name(coded)
    frames = frames if coded == b"alac" else None
    if is_plain:
        source.file.seek(0)
        return Riff(source.file, codec, frames=frames)
    return Riff(joined(source.file, parts), codec, frames=frames)


def _name(code: bytes) -> str:
    text = code.decode("latin-1").strip()
    return repr(text) if text.isprintable() and text.isascii() else ""
