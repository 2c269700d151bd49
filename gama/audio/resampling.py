"""Resampling as torchaudio does it by default, in numpy, block by block.

The filter is that of ``torchaudio.functional.resample``: a sinc in a Hann window, ``lowpass_filter_width=6``,
``rolloff=0.99``. There it is one dense matrix of (new, 2 * width + orig) taps, nearly all zero, which for 44101 Hz
would need 3 GB. Here neighbouring outputs share a small matrix that holds the taps they need and no others.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from gama.audio.waveform import SAMPLE_RATE
from gama.errors import AudioError

Samples = NDArray[np.float32]

MIN_RATE = 1_000  # Hz
MAX_RATE = 768_000  # Hz
ZERO_CROSSINGS = 6  # torchaudio's lowpass_filter_width
ROLLOFF = 0.99
_MIN_GROUP = 16  # outputs that share a tap matrix, at least
_CHUNK = 65_536  # input samples filtered at once, about


def check_rate(rate: float, what: str = "sampling rate") -> int:
    """The rate as an int, if it is one from 1 kHz to 768 kHz.

    Raises:
        AudioError: it is not.
    """
    if isinstance(rate, bool) or not math.isfinite(rate) or rate != int(rate):
        raise AudioError(f"{what} {rate} is not a whole number of Hz")
    if not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError(f"{what} {int(rate)} Hz is outside {MIN_RATE} Hz to {MAX_RATE} Hz")
    return int(rate)


class Resampler:
    """A stream of one channel: ``push`` blocks of any size, then ``finish``.

    Filtering happens at fixed places of the stream, so the result does not depend on how it was cut into blocks.
    Between calls it holds at most one chunk (65536 samples, or one second for a rate that shares no factor with the new
    one) and the taps (a few kB; 90 MB for the worst rate, 767999 Hz).
    """

    def __init__(self, orig_rate: int, new_rate: int = SAMPLE_RATE) -> None:
        orig_rate, new_rate = check_rate(orig_rate), check_rate(new_rate)
        common = math.gcd(orig_rate, new_rate)
        self.orig, self.new = orig_rate // common, new_rate // common
        self.cutoff = ROLLOFF * min(1.0, self.new / self.orig)  # zero crossings of the sinc per input sample
        self.half_width = math.ceil(ZERO_CROSSINGS / self.cutoff)  # input samples
        self._group = max(_MIN_GROUP, 2 * self.half_width * self.new // self.orig)
        repeat = -(-self._group // self.new)
        self._hop, self._phases = self.orig * repeat, self.new * repeat
        self._rows = max(1, _CHUNK // self._hop)
        needed = 0 if self.orig == self.new else self._rows * self._hop + 2 * self.half_width + 1
        self._buffer = np.zeros(needed, dtype=np.float32)
        self._filled = self.half_width  # the zeros before the first sample
        self._taken = self._given = 0
        self._kernels: dict[int, tuple[int, Samples]] = {}

    def push(self, block: Samples) -> Samples:
        """Take (N,) samples, return the (M,) that became ready, M may be 0; the block itself where the rate stays."""
        self._taken += len(block)
        if self.orig == self.new:
            self._given += len(block)
            return block.astype(np.float32, copy=False)
        ready = []
        while len(block):
            part, block = np.split(block, [len(self._buffer) - self._filled])
            self._buffer[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            if self._filled == len(self._buffer):
                ready.append(self._filter(self._rows, self._phases))
                self._slide()
        return self._emit(ready)

    def finish(self) -> Samples:
        """The rest, so that ceil(new * N / orig) samples have been returned for the N pushed."""
        missing = -(-self._taken * self.new // self.orig) - self._given
        self._buffer[self._filled :] = 0.0
        ready = []
        while missing > 0:
            rows = min(self._rows, -(-missing // self._phases))
            ready.append(self._filter(rows, missing)[:missing])
            missing -= len(ready[-1])
            self._slide()
        return self._emit(ready)

    def _slide(self) -> None:
        """Keep what the next chunk's first outputs still need; zeros after it."""
        kept = len(self._buffer) - self._rows * self._hop
        self._buffer[:kept] = self._buffer[-kept:].copy()
        self._buffer[kept:] = 0.0
        self._filled = kept

    def _emit(self, ready: list[Samples]) -> Samples:
        result = np.concatenate(ready) if ready else np.zeros(0, dtype=np.float32)
        self._given += len(result)
        return result

    def _filter(self, rows: int, wanted: int) -> Samples:
        """Outputs of ``rows`` hops from the start of the buffer; of one row, only about ``wanted`` are computed."""
        out = np.zeros((rows, self._phases), dtype=np.float32)
        for phase in range(0, self._phases if rows > 1 else min(wanted, self._phases), self._group):
            first, kernel = self._kernel(phase)
            taps, outputs = kernel.shape
            steps = (self._hop * self._buffer.itemsize, self._buffer.itemsize)
            spans = as_strided(self._buffer[first:], (rows, taps), steps, writeable=False)
            if self._hop < taps:  # overlapping rows: BLAS takes them only as a copy
                spans = np.ascontiguousarray(spans)
            np.matmul(spans, kernel, out=out[:, phase : phase + outputs])
        return out.reshape(-1)

    def _kernel(self, phase: int) -> tuple[int, Samples]:
        """Offset into a row of the buffer, and the (taps, outputs) matrix of the group that begins at ``phase``."""
        if phase not in self._kernels:
            outputs = np.arange(phase, min(phase + self._group, self._phases), dtype=np.int64)
            first = int(outputs[0]) * self.orig // self.new - self.half_width
            last = -(-int(outputs[-1]) * self.orig // self.new) + self.half_width
            taps = np.arange(first, last + 1, dtype=np.int64)
            distance = (taps[:, None] * self.new - outputs[None, :] * self.orig) / self.new  # input samples
            turn = np.clip(distance * self.cutoff, -ZERO_CROSSINGS, ZERO_CROSSINGS)
            kernel = np.sinc(turn) * np.cos(turn * (math.pi / 2 / ZERO_CROSSINGS)) ** 2 * self.cutoff
            self._kernels[phase] = (first + self.half_width, kernel.astype(np.float32))
        return self._kernels[phase]


def resample(samples: Samples, orig_rate: int, new_rate: int = SAMPLE_RATE) -> Samples:
    """Resample (N,) or (C, N) float32 samples to ceil(new_rate * N / orig_rate) each.

    Equal to ``torchaudio.functional.resample`` with its defaults up to rounding (taps in float64, then float32).

    Raises:
        AudioError: a rate outside 1 kHz to 768 kHz, or another number of dimensions.
    """
    if samples.ndim == 1:
        resampler = Resampler(orig_rate, new_rate)
        return np.concatenate([resampler.push(samples), resampler.finish()])
    if samples.ndim != 2 or not len(samples):
        raise AudioError(f"samples of shape {samples.shape} were given, (N,) or (C, N) was expected")
    return np.stack([resample(channel, orig_rate, new_rate) for channel in samples])
