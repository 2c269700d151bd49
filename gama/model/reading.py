"""``load`` for a process without gama: what gama.audio reads with soundfile alone, and none of its checks.

Only the file that a saved folder carries has this (gama/model/bundling.py).
"""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np

from gama.audio.resampling import Resampler, check_rate
from gama.audio.waveform import MIN_SAMPLES, Waveform
from gama.errors import AudioError

try:
    import soundfile
except ImportError:  # arrays need no decoder
    soundfile = None

_SCALES = {"int16": (0, 2**15), "int32": (0, 2**31), "uint8": (128, 2**7)}


def load(source: Any, *, sampling_rate: int | None = None, name: str | None = None) -> Waveform:
    """A path, the bytes of a file or an array (N,) or (C, N) -> one channel at 16 kHz.

    Raises:
        AudioError: for what is not sound, not finite or shorter than 25 ms.
    """
    given = name or (
        "array" if isinstance(source, np.ndarray) else "bytes" if isinstance(source, bytes) else str(source)
    )
    samples, rate = (source, sampling_rate) if isinstance(source, np.ndarray) else _decoded(source, given)
    if samples.ndim not in (1, 2) or rate is None:
        raise AudioError(f"{given}: an array (N,) or (C, N) with its sampling_rate was expected, not {samples.shape}")
    offset, scale = _SCALES.get(str(samples.dtype), (0, 1))
    values = (np.atleast_2d(samples).astype(np.float32) - np.float32(offset)) / np.float32(scale)
    channels = len(values)
    mono = values.T @ np.full(channels, 1 / channels, dtype=np.float32) if channels > 1 else values[0]
    resampler = Resampler(check_rate(rate))
    mono = np.concatenate([resampler.push(np.ascontiguousarray(mono)), resampler.finish()])
    if not np.isfinite(mono).all():
        raise AudioError(f"{given}: holds values that are no numbers")
    if len(mono) < MIN_SAMPLES:
        raise AudioError(f"{given}: lasts {len(mono) / 16:.2f} ms, at least 25 ms was expected")
    return Waveform(mono, given, rate, channels)


def _decoded(source: Any, given: str) -> tuple[Any, int]:
    if soundfile is None:
        raise AudioError(f"{given}: soundfile, which reads files, is not installed", "pip install soundfile")
    if isinstance(source, (str, os.PathLike)) and not os.path.isfile(source):
        raise AudioError(f"{given}: no such file")
    try:
        samples, rate = soundfile.read(io.BytesIO(source) if isinstance(source, bytes) else source, dtype="float32")
    except (soundfile.LibsndfileError, TypeError) as error:
        raise AudioError(f"{given}: is no sound that soundfile reads: {error}") from error
    return samples.T, int(rate)


__all__ = ["load"]
