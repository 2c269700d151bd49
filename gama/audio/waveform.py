"""What every later stage hears: one channel of float32 samples at 16 kHz, and its windows."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gama.errors import AudioError

SAMPLE_RATE = 16_000  # Hz
MIN_SAMPLES = 400  # 25 ms: one fbank frame
WINDOW_SECONDS = 10.24  # 1024 fbank frames of 10 ms
MIN_TAIL_SECONDS = 1.0
SILENCE_DB = -80.0  # dBFS; a peak below it is about 3 steps of 16 bits
OVER_RANGE_DB = 6.0  # dBFS; lossy codecs and resampling overshoot full scale by less
LARGEST = 2.0**32  # a magnitude that no integer format reaches; beyond 1e16 a spectrum overflows


@dataclass(frozen=True, eq=False)
class Waveform:
    """A clip, or a span of one, ready for the filterbank.

    Attributes:
        samples: (N,) float32 at 16 kHz, full scale is [-1, 1).
        source: where it came from, as given ("-" for stdin).
        original_rate: Hz before resampling.
        channels: channels before the mix.
        start: seconds into the file at which ``samples`` begin.
    """

    samples: NDArray[np.float32] = field(repr=False)
    source: str
    original_rate: int
    channels: int
    start: float = 0.0

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.samples) / SAMPLE_RATE

    @cached_property
    def peak_db(self) -> float:
        """Largest magnitude in dBFS; -inf for digital silence."""
        peak = max(float(self.samples.max(initial=0.0)), -float(self.samples.min(initial=0.0)))
        return _decibels(peak)

    @cached_property
    def rms_db(self) -> float:
        """Root mean square in dBFS; -inf for digital silence."""
        if not len(self.samples):
            return -math.inf
        energy = float(np.einsum("n,n->", self.samples, self.samples, dtype=np.float64))
        return _decibels(math.sqrt(energy / len(self.samples)))

    @property
    def is_silent(self) -> bool:
        """Whether the peak lies below -80 dBFS."""
        return self.peak_db < SILENCE_DB

    @property
    def over_range(self) -> bool:
        """Whether the peak lies more than 6 dB above full scale: float samples that were never scaled to [-1, 1]."""
        return self.peak_db > OVER_RANGE_DB

    @property
    def level_warning(self) -> str:
        """What a user should know of samples that were never scaled to full scale; empty where they were."""
        if not self.over_range:
            return ""
        return f"{self.source}: its samples reach {self.peak_db:.0f} dB above full scale, [-1, 1] was expected"

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the samples' little-endian bytes."""
        return hashlib.sha256(np.ascontiguousarray(self.samples, dtype="<f4").data).hexdigest()


def windows(waveform: Waveform, seconds: float = WINDOW_SECONDS) -> list[Waveform]:
    """Cut a waveform into consecutive windows; every sample is in one.

    A tail shorter than 1 s (or than ``seconds``, if that is less) is covered by a last window that begins earlier, so
    that it lasts 1 s. A clip no longer than ``seconds`` comes back as it is. The windows are views, not copies.

    Raises:
        AudioError: ``seconds`` is not a length of at least 25 ms.
    """
    if not math.isfinite(seconds) or seconds * SAMPLE_RATE < MIN_SAMPLES:
        raise AudioError(f"a window of {seconds} s was asked for, at least {MIN_SAMPLES / SAMPLE_RATE} s was expected")
    size, total = round(seconds * SAMPLE_RATE), len(waveform.samples)
    if total <= size:
        return [waveform]
    starts = list(range(0, total, size))
    starts[-1] = min(starts[-1], total - min(size, int(MIN_TAIL_SECONDS * SAMPLE_RATE)))
    return [
        replace(waveform, samples=waveform.samples[begin : begin + size], start=waveform.start + begin / SAMPLE_RATE)
        for begin in starts
    ]


def _decibels(amplitude: float) -> float:
    return 20.0 * math.log10(amplitude) if amplitude > 0.0 else -math.inf
