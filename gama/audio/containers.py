"""Whether a file holds what its headers promise, and what of it a decoder gets.

libsndfile clamps most kinds to the bytes that are there, takes the last Ogg page it finds for the end, and guesses the
length of an MP3 without a Xing header from its first frame (then cuts the rest off). FFmpeg plays what it finds. None
of that may pass in silence, so the structure is read here before anything is decoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO

from gama.audio.flac import checked_flac
from gama.audio.formats import FORMATS, Format, recognised
from gama.audio.lengths import check_length
from gama.audio.mpeg import Mpeg, checked_mpeg, id3_size
from gama.audio.ogg import check_ogg, flac_of, holds_flac
from gama.audio.riff import read_aiff, read_caf, read_wav
from gama.audio.source import Source


@dataclass(frozen=True)
class Checked:
    """A clip whose structure is sound.

    Attributes:
        source: the clip without tags in front of it.
        form: its kind.
        file: what libsndfile gets.
        codec: how its samples are coded where that has a name of its own.
        mpeg: the frames of an MP3.
        unframed: where coded samples lie that are one packet for the decoder.
    """

    source: Source
    form: Format
    file: IO[bytes]
    codec: str = ""
    mpeg: Mpeg | None = None
    unframed: range | None = None


def checked(source: Source) -> Checked:
    """Recognise a clip and read its structure.

    Raises:
        AudioError: not sound, cut off, broken, 0 Hz or without samples, by its own headers.
    """
    source = _without_id3(source)
    form = recognised(source)
    check_length(source, form.name)
    if form.name == "wav":
        riff = read_wav(source)
        if riff.mpeg is not None:
            return _mpeg(riff.mpeg, riff.codec)
        return Checked(source, form, riff.file, riff.codec, unframed=riff.unframed)
    if form.name in ("aiff", "caf"):
        riff = read_aiff(source) if form.name == "aiff" else read_caf(source)
        return Checked(source, form, riff.file, riff.codec)
    if form.name == "mp3":
        return _mpeg(source)
    if form.name == "ogg" and holds_flac(source):
        native = flac_of(source)
        return Checked(native, FORMATS["flac"], checked_flac(native))
    if form.name == "ogg":
        check_ogg(source)
    if form.name == "flac":
        return Checked(source, form, checked_flac(source))
    source.file.seek(0)
    return Checked(source, form, source.file)


def _mpeg(source: Source, codec: str = "") -> Checked:
    mpeg = checked_mpeg(source)
    return Checked(source, FORMATS["mp3"], mpeg.file(), codec, mpeg)


def _without_id3(source: Source) -> Source:
    """The clip behind ID3v2 tags."""
    position = 0
    for _ in range(16):
        head = source.read_at(position, 10)
        if len(head) < 10 or head[:3] != b"ID3":
            break
        position += id3_size(head)
    return source.part(position) if position else source
