"""A path, bytes, stdin or array becomes a waveform: one channel of float32 at 16 kHz. No torch."""

from __future__ import annotations

from gama.audio.arrays import samples_of
from gama.audio.loading import load
from gama.audio.resampling import MAX_RATE, MIN_RATE, Resampler, resample
from gama.audio.waveform import MIN_SAMPLES, SAMPLE_RATE, WINDOW_SECONDS, Waveform, windows

__all__ = [
    "MAX_RATE",
    "MIN_RATE",
    "MIN_SAMPLES",
    "SAMPLE_RATE",
    "WINDOW_SECONDS",
    "Resampler",
    "Waveform",
    "load",
    "resample",
    "samples_of",
    "windows",
]
