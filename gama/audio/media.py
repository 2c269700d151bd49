"""m4a, aac, webm, mp4 and other containers through PyAV, which the extra ``[media]`` installs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gama.audio.source import Source
from gama.errors import AudioError, MissingPackageError
from gama.text import printable

if TYPE_CHECKING:
    from gama.audio.decoding import Decoder

_SEEK_BEYOND = 600.0  # seconds: nearer spans are decoded up to, as webm times are rounded to 1 ms
_PREROLL = 0.5  # seconds decoded before a span, so that the codec has settled
_SLACK = 0.25  # seconds: a container's duration counts encoder delay and padding
_TRUSTED = ("mp4", "matroska", "webm")  # containers that store times; others guess from the bitrate


class MissingDecoderError(AudioError, MissingPackageError):
    """A clip that only PyAV can decode, without PyAV."""


@contextmanager
def open_media(source: Source) -> Iterator[Decoder]:
    """Open the first audio track of a container.

    Raises:
        MissingDecoderError: PyAV is not installed.
        AudioError: no audio track, or broken.
    """
    try:
        import av
    except ImportError as missing:
        shown = printable(source.given)
        message = f"{shown}: is of a kind (m4a, aac, webm, mp4, video …) that needs PyAV, which is not installed"
        raise MissingDecoderError(message, "pip install 'gama-audio[media]'") from missing
    av.logging.set_level(None)  # its lines on stderr would stand beside ours
    source.file.seek(0)
    try:
        container = av.open(source.file, mode="r")
    except (av.FFmpegError, ValueError, UnicodeError) as failed:
        raise source.error(f"cannot be decoded: {_reason(failed)}") from failed
    with container:
        yield MediaDecoder(source, container)


class MediaDecoder:
    """Decoding by PyAV; see ``gama.audio.decoding.Decoder``."""

    def __init__(self, source: Source, container: Any) -> None:
        if not container.streams.audio:
            video = "only video" if container.streams.video else "nothing to hear"
            raise source.error(f"holds {video}, a sound track was expected")
        self._source, self._container, self._stream = source, container, container.streams.audio[0]
        self._frames = self._decoded()
        self._next = next(self._frames, None)
        if self._next is None:
            raise source.error("holds no samples")
        first = self._next
        self.rate, self.channels = int(first.sample_rate), len(first.layout.channels)
        self._layout = first.layout
        self._origin = first.time
        self.frames = self._promised()
        self.slack = round(_SLACK * self.rate)

    def _promised(self) -> int | None:
        if not self._keeps_time():
            return None
        if self._stream.duration is not None:
            seconds = float(self._stream.duration * self._stream.time_base)
            return round(seconds * self.rate)
        if self._container.duration is not None and not self._container.streams.video:
            return round(float(self._container.duration) / 1_000_000 * self.rate)
        return None

    def _keeps_time(self) -> bool:
        return any(name in self._container.format.name for name in _TRUSTED)

    def _decoded(self) -> Iterator[Any]:
        import av

        try:
            yield from self._container.decode(self._stream)
        except (av.FFmpegError, ValueError) as failed:
            raise self._source.error(f"is broken or cut off: {_reason(failed)}") from failed

    def seek(self, frame: int) -> int:
        import av

        target = frame / self.rate - _PREROLL
        if target <= _SEEK_BEYOND or self._origin is None or not self._keeps_time():
            return 0
        try:
            self._container.seek(int((self._origin + target) * 1_000_000))
        except av.FFmpegError:  # a container without an index is read up to the span instead
            return 0
        self._frames = self._decoded()
        self._next = next(self._frames, None)
        reached = None if self._next is None else self._next.time
        if reached is None or reached > self._origin + frame / self.rate:
            raise self._source.error(f"cannot be entered at {target:.2f} s", "convert it to wav or flac")
        return round(float(reached - self._origin) * self.rate)

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        import av

        planar = av.AudioResampler(format="fltp", layout=self._layout, rate=self.rate)
        frame = self._next
        while True:
            try:
                converted = planar.resample(frame)
            except (av.FFmpegError, ValueError) as failed:
                raise self._source.error(f"is broken: {_reason(failed)}") from failed
            for part in converted:
                yield part.to_ndarray().astype(np.float32, copy=False).T
            if frame is None:
                return
            frame = next(self._frames, None)


def _reason(failed: Exception) -> str:
    return printable(str(getattr(failed, "strerror", None) or failed))
