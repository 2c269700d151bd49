"""What kind of file it is, by content, and whether it holds what its headers promise.

libsndfile clamps a WAV to the bytes that are there, takes the last Ogg page it finds for the end, and guesses the
length of an MP3 without a Xing header from its first frame (then cuts the rest off). None of that may pass in silence,
so the structure is read here before anything is decoded.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Literal

from gama.audio.flac import checked_flac
from gama.audio.mpeg import checked_mpeg, find_frames
from gama.audio.ogg import check_ogg
from gama.audio.overlay import Overlay
from gama.audio.source import Source

Kind = Literal["wav", "aiff", "flac", "ogg", "mp3", "media"]

_UNKNOWN_SIZES = (0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000)  # what ffmpeg, some recorders and sox write to a pipe
_MAX_CHUNKS = 10_000
_MAX_HEADER = 2**20  # bytes before the samples of a WAV from a pipe

_MEDIA = (  # Matroska and webm, Flash, ASF, MPEG program stream, CAF, WavPack, AMR, AU
    *(b"\x1aE\xdf\xa3", b"FLV", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b"\0\0\1\xba"),
    *(b"caff", b"wvpk", b"#!AMR", b".snd"),
)


def sniff(source: Source) -> Kind:
    """The kind of file by its first bytes, whatever its name; the file stays at its beginning.

    Raises:
        AudioError: none of the kinds known here.
    """
    begin = _after_id3(source)
    head = _read_at(source.file, begin, 512)
    source.file.seek(0)
    kind = _kind(head)
    if kind is None and find_frames(source, begin) is not None:
        kind = "mp3"
    source.file.seek(0)
    if kind is None:
        raise source.error("is not a sound file that is known here", "wav, flac, ogg and mp3 are; m4a and webm by PyAV")
    return kind


def _kind(head: bytes) -> Kind | None:
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE":
        return "wav"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    if head[:4] == b"fLaC":
        return "flac"
    if head[:4] == b"OggS":
        return "ogg" if any(mark in head[:128] for mark in (b"\x01vorbis", b"OpusHead", b"\x7fFLAC")) else "media"
    adts = len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0
    transport = head[:1] == b"\x47" and head[188:189] == b"\x47" and head[376:377] == b"\x47"
    if head[4:8] == b"ftyp" or head.startswith(_MEDIA) or head[:4] + head[8:12] == b"RIFFAVI " or adts or transport:
        return "media"
    return None


def checked(source: Source, kind: Kind) -> IO[bytes]:
    """The file to decode: the source's own, or one whose unknown or guessed length has been filled in.

    Raises:
        AudioError: cut off, broken, 0 Hz or without samples, by its own headers.
    """
    if kind == "wav":
        return _checked_riff(source)
    if kind == "aiff":
        _checked_aiff(source)
    if kind == "ogg":
        check_ogg(source, _after_id3(source))
    if kind == "flac":
        return checked_flac(source, _after_id3(source))
    if kind == "mp3":
        return checked_mpeg(source, _after_id3(source))
    source.file.seek(0)
    return source.file


@dataclass(frozen=True)
class _Chunk:
    name: bytes
    begin: int  # of its content
    size: int  # promised


def _chunks(source: Source, order: Literal["little", "big"]) -> Iterator[_Chunk]:
    """The chunks of a RIFF or FORM file; the caller stops at the one that holds samples."""
    position = 12
    for _ in range(_MAX_CHUNKS):
        header = _read_at(source.file, position, 8)
        if len(header) < 8:
            return
        size = int.from_bytes(header[4:], order)
        yield _Chunk(header[:4], position + 8, size)
        position += 8 + size + size % 2


def _checked_riff(source: Source) -> IO[bytes]:
    order: Literal["little", "big"] = "big" if _read_at(source.file, 0, 4) == b"RIFX" else "little"
    long_size: int | None = None
    has_format = False
    for chunk in _chunks(source, order):
        if chunk.name == b"ds64":
            long_size = int.from_bytes(_read_at(source.file, chunk.begin + 8, 8), "little")
        elif chunk.name == b"fmt ":
            has_format = True
            _check_format(source, _read_at(source.file, chunk.begin, 16), order)
        elif chunk.name == b"data":
            if not has_format:
                break
            size = long_size if long_size is not None and chunk.size == 0xFFFFFFFF else chunk.size
            return _checked_data(source, chunk.begin, size, order)
    raise source.error(f"is cut off or broken: no {'data' if has_format else 'fmt'} chunk before its end")


def _check_format(source: Source, content: bytes, order: Literal["little", "big"]) -> None:
    if len(content) < 16:
        raise source.error("is cut off inside its header")
    channels, rate = int.from_bytes(content[2:4], order), int.from_bytes(content[4:8], order)
    if not rate:
        raise source.error("has a sampling rate of 0 Hz in its header")
    if not channels:
        raise source.error("has 0 channels in its header")


def _checked_data(source: Source, begin: int, size: int, order: Literal["little", "big"]) -> IO[bytes]:
    held = source.size - begin
    if size == 0 and held > 0:
        riff = int.from_bytes(_read_at(source.file, 4, 4), order)
        if _is_unknown(riff) or riff == 0 or riff + 8 <= begin:  # a pipe: sizes were never filled in
            return _streamed(source, begin)
    if size <= held:
        source.file.seek(0)
        return source.file
    if _is_unknown(size):
        return _streamed(source, begin)
    raise source.error(f"is cut off: its header promises {size} bytes of samples, {max(held, 0)} are there")


def _is_unknown(size: int) -> bool:
    return any(0 <= mark - size < 128 or 0 <= size - mark < 128 for mark in _UNKNOWN_SIZES)


def _streamed(source: Source, begin: int) -> IO[bytes]:
    """The same WAV with "up to the end" in its two sizes."""
    if begin > _MAX_HEADER:
        raise source.error(f"has {begin} bytes of header before its samples")
    head = bytearray(_read_at(source.file, 0, begin))
    head[4:8] = head[-4:] = b"\xff\xff\xff\xff"
    return io.BufferedReader(Overlay(bytes(head), source.file, begin, source.size))


def _checked_aiff(source: Source) -> None:
    for chunk in _chunks(source, "big"):
        if chunk.name == b"SSND":
            held = source.size - chunk.begin
            if chunk.size > held:
                raise source.error(f"is cut off: its header promises {chunk.size} bytes of samples, {held} are there")
            return
    raise source.error("is cut off or broken: no SSND chunk before its end")


def _after_id3(source: Source) -> int:
    """Where the content begins behind ID3v2 tags."""
    position = 0
    for _ in range(16):
        head = _read_at(source.file, position, 10)
        if len(head) < 10 or head[:3] != b"ID3":
            break
        size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        position += 10 + size + (10 if head[5] & 0x10 else 0)
    return position


def _read_at(file: IO[bytes], position: int, count: int) -> bytes:
    file.seek(position, os.SEEK_SET)
    return file.read(count)
