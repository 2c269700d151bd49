"""Blocks of samples from an open clip, by libsndfile or, what it cannot read, by PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from gama.audio.arrays import Array, samples_of
from gama.audio.containers import Checked, checked
from gama.audio.formats import unknown
from gama.audio.guarded import GuardedFile
from gama.audio.quiet import without_mpg123
from gama.audio.resampling import check_rate
from gama.audio.source import Source, named_error
from gama.errors import AudioError

if TYPE_CHECKING:
    from gama.audio.mpeg import Mpeg

Block = NDArray[np.float32]

_BLOCK_VALUES = 131_072  # float32 values of all channels that a block holds
_ENDLESS = 2**62  # libsndfile's frame count where a header leaves it open
_OGG_PAGE = 2**18  # frames: 255 packets of 1024, which fill a page, are fewer
_MP3_SLACK = 2 * 1152  # frames: whether the encoder's delay is counted and cut differs


class Decoder(Protocol):
    """A clip being decoded.

    Attributes:
        rate: Hz.
        channels: how many.
        frames: samples of each channel, None if no header tells.
        slack: by how many frames a whole clip may miss ``frames``.
    """

    rate: int
    channels: int
    frames: int | None
    slack: int

    def seek(self, frame: int) -> int:
        """Go to ``frame`` or to a place before it, and return the frame that comes next."""

    def blocks(self) -> Iterator[Block]:
        """(N, C) float32, full scale [-1, 1); a block is valid until the next is asked for."""


class _SoundFile(soundfile.SoundFile):
    """Without soundfile's seek after each block, which codecs that go forward only (GSM 6.10, G.721) refuse."""

    def seekable(self) -> bool:
        return False


class SoundFileDecoder:
    """Decoding by libsndfile."""

    def __init__(self, clip: Checked) -> None:
        self._clip = clip
        self._source, self._kind, self._mpeg = clip.source, clip.form.name, clip.mpeg
        self._open(clip.file)
        self.rate, self.channels = self._sound.samplerate, self._sound.channels
        self.slack = _MP3_SLACK if self._kind == "mp3" else 0
        self.frames = self._frames()
        self._position = 0

    def _open(self, file: IO[bytes]) -> None:
        file.seek(0)
        self._file = GuardedFile(self._source, file)
        try:
            with without_mpg123(self._kind == "mp3"):
                self._sound = _SoundFile(self._file)
        except (soundfile.LibsndfileError, ValueError, TypeError) as failed:
            self._file.check()
            raise _Unopened(_reason(failed)) from failed

    def _frames(self) -> int | None:
        frames: int = self._sound.frames
        if self._mpeg is not None and not 0 <= self._mpeg.frames - frames <= self.slack:
            return self._mpeg.frames  # of layer I or II, which have no header that counts, libmpg123 guesses
        if self._clip.frames is not None and 0 <= frames < self._clip.frames < _ENDLESS:
            return self._clip.frames  # part of the packet table is missing
        return frames if 0 <= frames < _ENDLESS else None

    def close(self) -> None:
        self._sound.close()

    def seek(self, frame: int) -> int:
        if self._mpeg is not None:
            return self._entered(self._mpeg, frame)
        if self._kind == "ogg":  # inside the last Vorbis page libsndfile lands some 50 samples off
            frame = min(frame, self._sound.frames - _OGG_PAGE)
        if frame <= 0:
            return 0
        try:
            self._position = int(self._sound.seek(frame))
        except soundfile.LibsndfileError:  # a codec that goes forward only is read up to the span instead
            self._file.check()
            self.close()
            self._open(self._clip.file)
            self._position = 0
        return self._position

    def _entered(self, mpeg: Mpeg, frame: int) -> int:
        delay = mpeg.delay(self._sound.frames)
        found = None if delay is None else mpeg.entered(frame + delay)
        if found is not None and delay is not None:
            self.close()
            self._open(found[0])
            self._position = found[1] - delay
        return self._position

    def blocks(self) -> Iterator[Block]:
        block = np.empty((max(1, _BLOCK_VALUES // self.channels), self.channels), dtype=np.float32)
        # libFLAC takes what follows the last frame, a tag say, for a lost sync: nothing is asked of it after the end.
        while self.frames is None or self._position < self.frames:
            asked = len(block) if self.frames is None else min(len(block), self.frames - self._position)
            part = self._read(block[:asked])
            if not len(part):
                return
            self._position += len(part)
            yield part

    def _read(self, out: Block) -> Block:
        if self._kind == "flac":
            out.fill(np.nan)  # so that what was decoded before an error can be counted
        try:
            with without_mpg123(self._kind == "mp3"):
                part: Block = self._sound.read(out=out)
        except soundfile.LibsndfileError as failed:
            self._file.check()
            decoded = int(np.isfinite(out[:, 0]).sum()) if self._kind == "flac" else 0
            at = (self._position + decoded) / self.rate
            lasts = "" if self.frames is None else f", its header promises {self.frames / self.rate:.2f} s"
            raise self._source.error(f"is broken or cut off near {at:.2f} s{lasts}") from failed
        self._file.check()
        return part


class _Unopened(Exception):
    """libsndfile does not open a file: its reason."""


class ArrayDecoder:
    """An array (N,) or (C, N) in the place of a file."""

    slack = 0

    def __init__(self, given: str, array: Array, sampling_rate: int | None) -> None:
        if sampling_rate is None:
            raise named_error(given, "an array was given without its rate", "pass sampling_rate=16000, say")
        samples = samples_of(array, given)
        if samples.ndim not in (1, 2):
            raise named_error(given, f"an array of shape {samples.shape} was given, (N,) or (C, N) was expected")
        self._samples = samples if samples.ndim == 2 else samples[None]
        self.rate = check_rate(sampling_rate)
        self.channels, self.frames = self._samples.shape
        if not self.channels:
            raise named_error(given, "holds no samples")
        self._position = 0

    def seek(self, frame: int) -> int:
        self._position = frame
        return frame

    def blocks(self) -> Iterator[Block]:
        size = max(1, _BLOCK_VALUES // self.channels)
        for begin in range(self._position, self.frames, size):
            yield self._samples[:, begin : begin + size].T


def _reason(failed: Exception) -> str:
    text = failed.error_string if isinstance(failed, soundfile.LibsndfileError) else str(failed)
    return text.removeprefix("Error : ").rstrip(". ") or "unknown error"


@contextmanager
def open_decoder(source: Source) -> Iterator[Decoder]:
    """Recognise, check and open a clip.

    Raises:
        AudioError: not sound, broken, cut off, unreadable, or in need of a package that is missing.
    """
    try:
        with _opened(checked(source)) as decoder:
            yield decoder
    except AudioError:
        raise
    except OSError as failed:
        raise source.error(f"cannot be read: {failed.strerror or failed}") from failed
    except MemoryError as failed:
        raise source.error("needs more memory than there is") from failed
    except Exception as failed:  # a damaged file may end in any exception of a library; the cause goes with it
        raise source.error(f"cannot be decoded: {type(failed).__name__} {failed}".rstrip()) from failed


@contextmanager
def _opened(clip: Checked) -> Iterator[Decoder]:
    reason: Exception | None = None
    if clip.form.libsndfile:
        try:
            decoder = SoundFileDecoder(clip)
        except _Unopened as failed:
            reason = failed
        else:
            try:
                yield decoder
            finally:
                decoder.close()
            return
    if not clip.form.demuxer:
        raise clip.source.error(f"cannot be decoded: {reason}") from reason
    from gama.audio.media import has_pyav, open_media

    if clip.form.name == "unknown" and not has_pyav():
        raise unknown(clip.source)
    if reason is not None and not clip.codec and not has_pyav():
        raise clip.source.error(f"cannot be decoded: {reason}") from reason
    with open_media(clip) as media:
        yield media
