"""``load``: anything that holds sound becomes a ``Waveform``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from gama import interrupts
from gama.audio.arrays import Array, is_array
from gama.audio.decoding import ArrayDecoder, Block, Decoder, open_decoder
from gama.audio.resampling import Resampler, Samples, check_rate
from gama.audio.source import named_error, open_source
from gama.audio.waveform import LARGEST, MIN_SAMPLES, SAMPLE_RATE, Waveform
from gama.errors import AudioError

Channel = Literal["mix"] | int

MAX_CHANNELS = 64
_LIMIT_HINT = "pick a span with --from and --to, or allow more with --max-duration"


@dataclass(frozen=True)
class _Span:
    """What was asked for, in seconds."""

    start: float | None
    end: float | None
    max_duration: float


def load(
    source: str | Path | bytes | BinaryIO | Array,
    *,
    channel: Channel = "mix",
    start: float | None = None,
    end: float | None = None,
    max_duration: float = 1800.0,
    sampling_rate: int | None = None,
    name: str | None = None,
) -> Waveform:
    """Decode a clip, or the span of it from ``start`` to ``end`` seconds, to one channel at 16 kHz.

    Args:
        source: a path, ``"-"`` for stdin, the bytes of a file, an open binary file, or samples (N,) or (C, N): an
            array, a tensor or a list, of floats in [-1, 1] or of integers (see :func:`gama.audio.samples_of`).
        channel: "mix" for the mean of all channels, or the index of one (0 is what the original GAMA hears).
        start: seconds; the span is what ``[start, end)`` of the whole waveform would be.
        end: seconds; beyond the clip means up to its end.
        max_duration: seconds; a longer clip (or span) is refused, before it fills the memory.
        sampling_rate: Hz of an array; files know theirs.
        name: what messages and ``Waveform.source`` call it.

    Raises:
        AudioError: no such file, not sound, broken, cut off, empty, shorter than 25 ms, longer than ``max_duration``,
            samples that are NaN, infinite or beyond any scale, no such channel or span.
        MissingPackageError: a container that needs PyAV (it is an AudioError as well).
    """
    if math.isnan(max_duration) or max_duration <= 0:
        raise AudioError(f"a longest duration of {max_duration} s was given, more than 0 was expected")
    span = _Span(start, end, max_duration)
    if is_array(source):
        given = "array" if name is None else name
        return _Reading(given, ArrayDecoder(given, source, sampling_rate), channel, span).waveform()
    if sampling_rate is not None:
        raise AudioError(f"sampling_rate={sampling_rate} was given for a file", "only an array needs it")
    with interrupts.checked(), open_source(source, name) as opened, open_decoder(opened) as decoder:
        return _Reading(opened.given, decoder, channel, span).waveform()


class _Reading:
    """One pass over a decoder: skip, mix, resample, collect; every refusal on the way."""

    def __init__(self, given: str, decoder: Decoder, channel: Channel, span: _Span) -> None:
        self.given, self.decoder, self.channel, self.span = given, decoder, channel, span
        try:
            self.rate = check_rate(decoder.rate)
        except AudioError as refused:
            raise self._error(refused.message) from refused
        self._check_channel()
        self._check_times()
        self.resampler = Resampler(self.rate)
        self.limit = math.ceil(min(span.max_duration * SAMPLE_RATE, 2**62))
        self.first = round((span.start or 0.0) * SAMPLE_RATE)
        self.end = None if span.end is None or math.isinf(span.end) else round(span.end * SAMPLE_RATE)
        self.total = None if decoder.frames is None else self._resampled(decoder.frames)
        if self.total is not None:
            self._check_length(self.total)

    def waveform(self) -> Waveform:
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found and refused below
            samples = self._collected()
        if not len(samples) and self.first:
            raise self._no_span()
        self._check_samples(samples)
        return Waveform(samples, self.given, self.rate, self.decoder.channels, self.first / SAMPLE_RATE)

    def _error(self, message: str, hint: str | None = None) -> AudioError:
        return named_error(self.given, message, hint)

    def _resampled(self, frames: int) -> int:
        return -(-frames * self.resampler.new // self.resampler.orig)

    def _check_channel(self) -> None:
        channels = self.decoder.channels
        if channels > MAX_CHANNELS:
            raise self._error(f"has {channels} channels, at most {MAX_CHANNELS} were expected")
        if self.channel == "mix":
            return
        if isinstance(self.channel, bool) or not isinstance(self.channel, (int, np.integer)):
            raise AudioError(f"channel {self.channel!r} was asked for, 'mix' or an index was expected")
        if not 0 <= self.channel < channels:
            has = "1 channel, index 0" if channels == 1 else f"{channels} channels, 0 to {channels - 1}"
            raise self._error(f"channel {self.channel} was asked for, it has {has}")

    def _check_times(self) -> None:
        start, end = self.span.start, self.span.end
        for what, seconds in (("start", start), ("end", end)):
            if seconds is not None and not seconds >= 0:
                raise self._error(f"the {what} of a span was {seconds} s, {self._lasts()}")
        begin = start or 0.0
        if math.isinf(begin) or (end is not None and end <= begin):
            raise self._error(f"a span from {begin} s to {end} s was asked for, {self._lasts()}")

    def _check_length(self, total: int) -> None:
        if self.first and self.first >= total:
            raise self._no_span()
        length = (total if self.end is None else min(self.end, total)) - self.first
        if length > self.limit:
            raise self._too_long(f"lasts {_clock(length / SAMPLE_RATE)}, the limit is")

    def _lasts(self) -> str:
        if self.decoder.frames is None:
            return "times within the clip were expected"
        return f"the clip lasts {self.decoder.frames / self.rate:.2f} s"

    def _no_span(self) -> AudioError:
        return self._error(f"a span from {self.span.start} s was asked for, {self._lasts()}")

    def _too_long(self, lasts: str) -> AudioError:
        what = "" if self.span.start is None and self.span.end is None else "its span "
        return self._error(f"{what}{lasts} {_clock(self.span.max_duration)}", _LIMIT_HINT)

    def _collected(self) -> Samples:
        """The samples of the span: begun on the grid of the whole clip, so that they are a slice of it."""
        orig, new, half_width = self.resampler.orig, self.resampler.new, self.resampler.half_width
        units = max(0, self.first * orig // new - half_width) // orig
        stop = None  # input sample after which nothing reaches the span
        if self.end is not None and (self.total is None or self.end < self.total):
            stop = -(-self.end * orig // new) + half_width + 1
        wanted = None if self.end is None else self.end - self.first
        expected = SAMPLE_RATE if self.total is None else min(self.total - self.first, wanted or self.total)
        kept = _Kept(skip=self.first - units * new, expected=expected)
        position = units * orig
        for block in self._mono_blocks(position, stop):
            position += len(block)
            kept.add(self.resampler.push(block))
            self._check_limit(kept, wanted)
        self._check_complete(position, stop)
        kept.add(self.resampler.finish())
        self._check_limit(kept, wanted)
        return kept.samples(wanted)

    def _check_limit(self, kept: _Kept, wanted: int | None) -> None:
        """Headers may lie or be silent about the length."""
        if (kept.filled if wanted is None else min(kept.filled, wanted)) > self.limit:
            raise self._too_long("lasts longer than")

    def _mono_blocks(self, begin: int, stop: int | None) -> Iterator[Samples]:
        position = self.decoder.seek(begin)
        for block in self.decoder.blocks():
            interrupts.check()  # libsndfile and ffmpeg read through callbacks, which cannot pass Ctrl-C on
            skipped = min(max(0, begin - position), len(block))
            wanted = block[skipped : None if stop is None else max(skipped, stop - position)]
            if len(wanted):
                yield self._mixed(wanted, position + skipped)
            position += len(block)
            if stop is not None and position >= stop:
                return

    def _mixed(self, block: Block, position: int) -> Samples:
        if block.shape[1] == 1 or self.channel != "mix":
            mono = block[:, 0 if self.channel == "mix" else int(self.channel)]
        else:
            mono = block @ np.full(block.shape[1], 1 / block.shape[1], dtype=np.float32)
        finite = np.isfinite(mono)
        if not finite.all():
            at = int(np.argmin(finite))
            what = "NaN" if np.isnan(block[at]).any() else "an infinite value"
            raise self._error(f"holds {what} at {(position + at) / self.rate:.3f} s, numbers were expected")
        return mono

    def _check_complete(self, position: int, stop: int | None) -> None:
        promised = self.decoder.frames
        if promised is None:
            return
        expected = promised if stop is None else min(stop, promised)
        if position < expected - self.decoder.slack:
            there = f"{promised / self.rate:.2f} s, its sound ends after {position / self.rate:.2f} s"
            raise self._error(f"is cut off or broken: its header promises {there}")

    def _check_samples(self, samples: Samples) -> None:
        count = len(samples)
        if not count:
            raise self._error("holds no samples")
        if count < MIN_SAMPLES:
            lasts = f"{count * 1000 / SAMPLE_RATE:.2f} ms ({count} sample{'s'[: count - 1]} at 16 kHz)"
            raise self._error(f"lasts {lasts}, at least 25 ms was expected")
        peak = max(float(samples.max()), -float(samples.min()))  # NaN where a value was too large to resample
        if not peak <= LARGEST:
            at = int(np.argmax(~(np.abs(samples) <= LARGEST))) / SAMPLE_RATE + self.first / SAMPLE_RATE
            raise self._error(f"holds values too large for sound at {at:.3f} s, samples in [-1, 1] were expected")


class _Kept:
    """The samples at 16 kHz so far, in one array that grows."""

    def __init__(self, skip: int, expected: int) -> None:
        self._skip, self.filled = skip, 0
        self._room = np.empty(expected, dtype=np.float32)

    def add(self, samples: Samples) -> None:
        skipped = min(self._skip, len(samples))
        self._skip -= skipped
        samples = samples[skipped:]
        needed = self.filled + len(samples)
        if needed > len(self._room):
            self._room.resize(max(needed, len(self._room) * 3 // 2), refcheck=False)
        self._room[self.filled : needed] = samples
        self.filled = needed

    def samples(self, wanted: int | None) -> Samples:
        self._room.resize(self.filled if wanted is None else min(wanted, self.filled), refcheck=False)
        return self._room


def _clock(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.2f} s"
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60} min {rest % 60} s" if hours else f"{rest // 60} min {rest % 60} s"
