"""Clips to check an export on where nobody gave any: sound scenes from fixed seeds."""

from __future__ import annotations

import numpy as np

from gama.audio import SAMPLE_RATE, Waveform
from gama.data.scenes.classes import CLASSES
from gama.data.scenes.compose import compose_exact

_SECONDS = (10.0, 10.0, 8.0, 5.0, 2.0)
_SEED = 2_024


def generated_clips(count: int = 8) -> list[Waveform]:
    """Clips of 2 to 10 s with one sound each, and one of 25 ms: the same on every machine."""
    clips = []
    for index in range(count):
        kind = CLASSES[index * 4 % len(CLASSES)].label
        rng = np.random.default_rng([_SEED, index])
        seconds = _SECONDS[index % len(_SECONDS)]
        samples, _ = compose_exact(rng, [(kind, 0.3, 2)], background=None, duration=seconds)
        clips.append(Waveform(samples[: round(SAMPLE_RATE * seconds)], f"generated {kind}", SAMPLE_RATE, 1))
    shortest = clips[0].samples[6_000:6_400].copy()
    return [*clips, Waveform(shortest, "generated 25 ms", SAMPLE_RATE, 1)]
