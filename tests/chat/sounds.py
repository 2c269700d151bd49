"""The clips that tests of the chat talk about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile


def write_clips(folder: Path) -> None:
    """dog.wav (1 s), bells.flac (2 s, stereo), long.wav (25 s), 'a b.wav' (0.5 s); broken.wav is no sound."""
    random = np.random.default_rng(0)
    soundfile.write(folder / "dog.wav", 0.1 * random.standard_normal(16_000), 16_000)
    soundfile.write(folder / "bells.flac", 0.1 * random.standard_normal((88_200, 2)), 44_100)
    soundfile.write(folder / "long.wav", 0.1 * random.standard_normal(400_000), 16_000)
    soundfile.write(folder / "a b.wav", 0.1 * random.standard_normal(8_000), 16_000)
    (folder / "broken.wav").write_bytes(b"RIFF, but no more")
