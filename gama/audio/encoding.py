"""A waveform becomes the bytes of an audio file, so that a full disk is noticed where they are written."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from gama.audio.waveform import SAMPLE_RATE


def encoded(samples: np.ndarray[Any, Any], kind: str, subtype: str, *, rate: int = SAMPLE_RATE) -> bytes:
    """The bytes of a file of one channel.

    libsndfile writes to memory here: to a file on a full disk it writes a part, and does not always say so.

    Args:
        samples: (N,) float; full scale is 1.
        kind: ``WAV`` or ``FLAC``.
        subtype: of libsndfile, such as ``PCM_16``.
        rate: Hz.
    """
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


__all__ = ["encoded"]
