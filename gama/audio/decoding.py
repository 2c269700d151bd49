"""Blocks of samples from an open clip, by libsndfile (wav, aiff, flac, ogg, mp3) or PyAV (all else)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from gama.audio.containers import Kind, checked, sniff
from gama.audio.resampling import check_rate
from gama.audio.source import Source, named_error

Block = NDArray[np.float32]

_BLOCK_VALUES = 131_072  # float32 values of all channels that a block holds
_ENDLESS = 2**62  # libsndfile's frame count where a header leaves it open
_OGG_PAGE = 2**18  # frames: 255 packets of 1024, which fill a page, are fewer
_MP3_SLACK = 2 * 1152  # frames: whether the encoder's delay is counted and cut differs
_INTEGERS = {  # zero and full scale, as libsndfile has them
    np.dtype(np.uint8): (128, 2**7),
    np.dtype(np.int16): (0, 2**15),
    np.dtype(np.int32): (0, 2**31),
}


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


class SoundFileDecoder:
    """Decoding by libsndfile."""

    def __init__(self, source: Source, file: IO[bytes], kind: Kind) -> None:
        self._source, self._file, self._kind = source, file, kind
        self._sound = self._opened()
        self.rate, self.channels = self._sound.samplerate, self._sound.channels
        self.frames = self._sound.frames if self._sound.frames < _ENDLESS else None
        self.slack = _MP3_SLACK if kind == "mp3" else 0

    def _opened(self) -> soundfile.SoundFile:
        self._file.seek(0)
        try:
            return soundfile.SoundFile(self._file)
        except (soundfile.LibsndfileError, ValueError, TypeError) as failed:
            raise self._source.error(f"cannot be decoded: {_reason(failed)}") from failed

    def close(self) -> None:
        self._sound.close()

    def seek(self, frame: int) -> int:
        if self._kind == "ogg":  # inside the last Vorbis page libsndfile lands some 50 samples off
            frame = min(frame, self._sound.frames - _OGG_PAGE)
        if frame <= 0:
            return 0
        try:
            return int(self._sound.seek(frame))
        except soundfile.LibsndfileError:  # a stream without a usable index is read up to the span instead
            self.close()
            self._sound = self._opened()
            return 0

    def blocks(self) -> Iterator[Block]:
        block = np.empty((max(1, _BLOCK_VALUES // self.channels), self.channels), dtype=np.float32)
        decoded = 0
        # libFLAC takes what follows the last frame, a tag say, for a lost sync: nothing is asked of it after the end.
        begin = self._sound.tell()
        left = self._sound.frames - begin
        while left > decoded:
            try:
                part = self._sound.read(min(len(block), left - decoded), out=block)
            except soundfile.LibsndfileError as failed:
                raise self._source.error(f"is broken or cut off near {(begin + decoded) / self.rate:.2f} s") from failed
            if not len(part):
                return
            decoded += len(part)
            yield part


class ArrayDecoder:
    """An array (N,) or (C, N) in the place of a file."""

    slack = 0

    def __init__(self, given: str, samples: NDArray[np.generic], sampling_rate: int | None) -> None:
        if sampling_rate is None:
            raise named_error(given, "an array was given without its rate", "pass sampling_rate=16000, say")
        if samples.ndim not in (1, 2):
            raise named_error(given, f"an array of shape {samples.shape} was given, (N,) or (C, N) was expected")
        if samples.dtype.kind != "f" and samples.dtype not in _INTEGERS:
            expected = "float, int16, int32 or uint8 was expected"
            raise named_error(given, f"an array of {samples.dtype} was given, {expected}")
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
        offset, scale = _INTEGERS.get(self._samples.dtype, (0, 1))
        for begin in range(self._position, self.frames, size):
            block = self._samples[:, begin : begin + size].T.astype(np.float32)
            yield block if scale == 1 else (block - np.float32(offset)) / np.float32(scale)


def _reason(failed: Exception) -> str:
    text = failed.error_string if isinstance(failed, soundfile.LibsndfileError) else str(failed)
    return text.removeprefix("Error : ").rstrip(". ") or "unknown error"


@contextmanager
def open_decoder(source: Source) -> Iterator[Decoder]:
    """Recognise, check and open a clip.

    Raises:
        AudioError: not sound, broken, cut off, or in need of a package that is missing.
    """
    kind = sniff(source)
    if kind == "media":
        from gama.audio.media import open_media

        with open_media(source) as media:
            yield media
        return
    decoder = SoundFileDecoder(source, checked(source, kind), kind)
    try:
        yield decoder
    finally:
        decoder.close()
