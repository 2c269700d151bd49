"""m4a, aac, webm, mp4, video and whatever else FFmpeg decodes, through PyAV, which the extra ``[media]`` installs."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gama.audio.containers import Checked
from gama.audio.formats import unknown
from gama.audio.guarded import GuardedFile
from gama.errors import AudioError, MissingPackageError
from gama.text import printable

if TYPE_CHECKING:
    from gama.audio.decoding import Decoder

_SEEK_BEYOND = 600.0  # seconds: nearer spans are decoded up to, as webm times are rounded to 1 ms
_PREROLL = 0.5  # seconds decoded before a span, so that the codec has settled
_SLACK = 0.25  # seconds: a container's duration counts encoder delay and padding
_TRUSTED = (  # containers that state their duration; others guess from the bitrate
    *("mp4", "matroska", "webm", "asf", "flv", "wv", "tta", "ape", "tak", "mpc8", "nut", "mxf", "gxf", "wtv"),
    *("rm", "oma", "qcp", "osq", "shn", "dsf", "smjpeg", "ast", "alp", "argo_asf", "apm", "sox", "vqf"),
)
_MAX_UNFRAMED = 2**24  # bytes that are decoded at once, to some 20 minutes
_PLANES = 8  # AV_NUM_DATA_POINTERS: fewer end in a null pointer
_SEEKABLE = ("mp4", "matroska", "webm")  # with an index and times to enter by


class MissingDecoderError(AudioError, MissingPackageError):
    """A clip that only PyAV can decode, without PyAV."""


def has_pyav() -> bool:
    """Whether PyAV is installed."""
    try:
        return importlib.util.find_spec("av") is not None
    except ValueError:  # a module that is blocked has no specification
        return False


@contextmanager
def open_media(clip: Checked) -> Iterator[Decoder]:
    """Open the first audio track of a container.

    FFmpeg is told which demuxers it may use and gets bytes, no name: it can open no other file and no socket, whatever
    the clip says.

    Raises:
        MissingDecoderError: PyAV is not installed.
        AudioError: no audio track, or broken.
    """
    source = clip.source
    try:
        import av
    except ImportError as missing:
        what = f"holds {clip.codec}, which" if clip.codec else "is of a kind (m4a, aac, webm, mp4, video …) that"
        message = f"{printable(source.given)}: {what} needs PyAV, which is not installed"
        raise MissingDecoderError(message, "pip install 'gama-audio[media]'") from missing
    av.logging.set_level(None)  # its lines on stderr would stand beside ours
    source.file.seek(0)
    file = GuardedFile(source, source.file)
    only = {"format_whitelist": clip.form.demuxer, "protocol_whitelist": "none"}
    try:
        container = av.open(file, mode="r", options=only, metadata_errors="replace")
    except Exception as failed:
        file.check()
        if clip.form.name == "unknown":
            raise unknown(source) from failed
        raise source.error(f"cannot be decoded: {_reason(failed)}") from failed
    with container:
        yield MediaDecoder(clip, file, container)


class MediaDecoder:
    """Decoding by PyAV; see ``gama.audio.decoding.Decoder``."""

    def __init__(self, clip: Checked, file: GuardedFile, container: Any) -> None:
        source = clip.source
        if not container.streams.audio:
            video = "only video" if container.streams.video else "nothing to hear"
            raise source.error(f"holds {video}, a sound track was expected")
        self._source, self._file, self._container = source, file, container
        self._stream = container.streams.audio[0]
        self._unframed = clip.unframed
        self._frames = self._decoded()
        self._next = next(self._frames, None)
        if self._next is None:
            raise source.error("holds no samples")
        first = self._next
        self.rate, self.channels = int(first.sample_rate), int(first.layout.nb_channels)
        self._origin = first.time
        self.frames = self._promised()
        self.slack = round(_SLACK * self.rate)

    def _promised(self) -> int | None:
        if not self._is_one_of(_TRUSTED):
            return None
        if self._stream.duration is not None:
            seconds = float(self._stream.duration * self._stream.time_base)
            return round(seconds * self.rate)
        if self._container.duration is not None and not self._container.streams.video:
            return round(float(self._container.duration) / 1_000_000 * self.rate)
        return None

    def _is_one_of(self, containers: tuple[str, ...]) -> bool:
        return not set(self._container.format.name.split(",")).isdisjoint(containers)

    def _packets(self) -> Iterator[Any]:
        if self._unframed is None:
            yield from self._container.demux(self._stream)
            return
        import av

        if len(self._unframed) > _MAX_UNFRAMED:
            raise self._source.error(f"holds {len(self._unframed)} bytes in one packet", "convert it to wav or flac")
        yield av.Packet(self._source.read_at(self._unframed.start, len(self._unframed)))

    def _decoded(self) -> Iterator[Any]:
        packets = self._packets()
        at = 0.0
        while True:
            try:
                packet = next(packets, None)
                frames = [] if packet is None else self._frames_of(packet)
                damaged = packet is not None and packet.is_corrupt
            except Exception as failed:  # PyAV's own errors and whatever a damaged header makes it do
                self._file.check()
                raise self._source.error(f"is broken or cut off near {at:.2f} s: {_reason(failed)}") from failed
            self._file.check()
            if packet is None:
                return
            for frame in frames:
                if frame.is_corrupt:
                    damaged = True
                    continue
                at += frame.samples / max(1, frame.sample_rate)
                yield frame
            if damaged:
                raise self._source.error(f"is broken or cut off near {at:.2f} s")

    def _frames_of(self, packet: Any) -> list[Any]:
        try:
            return list(self._stream.codec_context.decode(packet))
        except ValueError:
            if packet.size:
                raise
            return []  # a packet that only carries a changed header, which PyAV takes for the end

    def seek(self, frame: int) -> int:
        target = frame / self.rate - _PREROLL
        if target <= _SEEK_BEYOND or self._origin is None or not self._is_one_of(_SEEKABLE):
            return 0
        try:
            self._container.seek(int((self._origin + target) * 1_000_000))
        except Exception:  # a container without an index is read up to the span instead
            self._file.check()
            return 0
        self._frames = self._decoded()
        self._next = next(self._frames, None)
        reached = None if self._next is None else self._next.time
        if reached is None or reached > self._origin + frame / self.rate:
            raise self._source.error(f"cannot be entered at {target:.2f} s", "convert it to wav or flac")
        return round(float(reached - self._origin) * self.rate)

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """A stream whose rate changes is resampled to the first one.

        PyAV looks for the end of eight and more planes behind them, so those are asked for packed, in one plane.

        Raises:
            AudioError: broken, or the number of channels changes.
        """
        import av

        frame, rate, form, layout, fit, position = self._next, 0, "", None, None, 0
        while frame is not None:
            if frame.sample_rate != rate or frame.format.name != form or frame.layout != layout:
                yield from self._converted(fit, None)
                rate, form, layout = frame.sample_rate, frame.format.name, frame.layout
                if layout.nb_channels != self.channels:
                    change = f"from {self.channels} to {layout.nb_channels} at {position / self.rate:.2f} s"
                    raise self._source.error(f"changes its number of channels {change}", "cut it into one file each")
                fit = av.AudioResampler(format="fltp" if self.channels < _PLANES else "flt", rate=self.rate)
            for block in self._converted(fit, frame):
                position += len(block)
                yield block
            frame = next(self._frames, None)
        yield from self._converted(fit, None)

    def _converted(self, fit: Any, frame: Any) -> Iterator[NDArray[np.float32]]:
        """What the resampler gives for a frame, or at the end for None, as (N, C)."""
        if fit is None:
            return
        try:
            arrays = [part.to_ndarray() for part in fit.resample(frame) if part is not None]
        except Exception as failed:
            raise self._source.error(f"is broken: {_reason(failed)}") from failed
        for array in arrays:
            yield array.T if self.channels < _PLANES else array.reshape(-1, self.channels)


def _reason(failed: Exception) -> str:
    return printable(str(getattr(failed, "strerror", None) or failed)) or type(failed).__name__
