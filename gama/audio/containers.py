"""Whether a file holds what its headers promise, and what of it a decoder gets.

libsndfile clamps most kinds to the bytes that are there, takes the last Ogg page it finds for the end, and guesses the
length of an MP3 without a Xing header from its first frame (then cuts the rest off). FFmpeg plays what it finds. None
of that may pass in silence, so the structure is read here before anything is decoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from gama.audio.formats import FORMATS, Format, recognised
from gama.audio.source import Source, id3_size

if TYPE_CHECKING:
    from gama.audio.mpeg import Mpeg


@dataclass(frozen=True)
class Checked:
    """A clip whose structure is sound.

    Attributes:
        source: the clip without tags in front of it.
        form: its kind.
        file: what libsndfile gets.
        codec: how its samples are coded where that has a name of its own.
        mpeg: the frames of an MP3.
        frames: samples of each channel that the header states besides their bytes.
        unframed: where coded samples lie that are one packet for the decoder.
    """

    source: Source
    form: Format
    file: IO[bytes]
    codec: str = ""
    mpeg: Mpeg | None = None
    unframed: range | None = None
    frames: int | None = None


def checked(source: Source) -> Checked:
    """Recognise a clip and read its structure.

    Raises:
        AudioError: not sound, cut off, broken, 0 Hz or without samples, by its own headers.
    """
    source = _without_id3(source)
    form = recognised(source)
    read = _READERS.get(form.name)
    if read is not None:
        return read(source, form)
    from gama.audio.lengths import check_length

    check_length(source, form.name)
    if form.name == "caf":
        return _caf(source, form)
    source.file.seek(0)
    return Checked(source, form, source.file)


# The parsers are imported where they are needed: a process that reads one clip starts faster.


def _wav(source: Source, form: Format) -> Checked:
    from gama.audio.riff import read_wav

    riff = read_wav(source)
    if riff.mpeg is not None:
        return _mpeg(riff.mpeg, FORMATS["mp3"], riff.codec)
    return Checked(source, form, riff.file, riff.codec, unframed=riff.unframed)


def _aiff(source: Source, form: Format) -> Checked:
    from gama.audio.riff import read_aiff

    riff = read_aiff(source)
    return Checked(source, form, riff.file, riff.codec)


def _caf(source: Source, form: Format) -> Checked:
    from gama.audio.riff import read_caf

    riff = read_caf(source)
    return Checked(source, form, riff.file, riff.codec, frames=riff.frames)


def _flac(source: Source, form: Format) -> Checked:
    from gama.audio.flac import checked_flac

    return Checked(source, form, checked_flac(source))


def _ogg(source: Source, form: Format) -> Checked:
    from gama.audio.ogg import check_ogg, flac_of, holds_flac

    if holds_flac(source):
        return _flac(flac_of(source), FORMATS["flac"])
    check_ogg(source)
    source.file.seek(0)
    return Checked(source, form, source.file)


def _mpeg(source: Source, form: Format, codec: str = "") -> Checked:
    from gama.audio.mpeg import checked_mpeg

    mpeg = checked_mpeg(source)
    return Checked(source, form, mpeg.file(), codec, mpeg)


_READERS = {"wav": _wav, "aiff": _aiff, "flac": _flac, "ogg": _ogg, "mp3": _mpeg}


def _without_id3(source: Source) -> Source:
    """The clip behind ID3v2 tags."""
    position = 0
    for _ in range(16):
        head = source.read_at(position, 10)
        if len(head) < 10 or head[:3] != b"ID3":
            break
        position += id3_size(head)
    return source.part(position) if position else source
