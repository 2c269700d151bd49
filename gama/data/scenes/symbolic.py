"""Random scenes without sound, with the statistics of the generated ones: for text pre-training and tests."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gama.data.scenes.classes import CLASSES, SoundClass
from gama.data.scenes.scene import Event, Scene

if TYPE_CHECKING:
    import numpy as np

KINDS: tuple[tuple[str, float], ...] = (
    ("nothing", 0.025),
    ("noise", 0.025),
    ("texture", 0.05),
    ("background", 0.02),
    ("one", 0.30),
    ("two", 0.36),
    ("three", 0.22),
)
"""Kinds of scenes and their shares; ``texture`` is one sound from beginning to end."""
_EVENTS = {"one": 1, "two": 2, "three": 3}
OVERLAP_SHARE = 0.15
BACKGROUND_SHARE = 0.25
UNCOUNTED_SHARE = 0.15
"""Countable events of unknown count, as cut from real recordings."""

_TEXTURES = tuple(c for c in CLASSES if c.unit is None and c.label not in ("siren", "chainsaw"))


def _kind(rng: np.random.Generator) -> str:
    at = rng.random()
    for kind, share in KINDS:
        at -= share
        if at < 0:
            return kind
    return "one"


def _levels(rng: np.random.Generator) -> tuple[float, float]:
    """A level in dB and a centroid in Hz, free of the class: they are to be read, not guessed."""
    level = float(rng.uniform(-40.0, -12.0))
    return level, float(math.exp(rng.uniform(math.log(250.0), math.log(6000.0))))


def _spans(rng: np.random.Generator, number: int, duration: float) -> list[tuple[float, float]]:
    """Onsets at least 0.6 s apart; each sound ends before the next begins, or overlaps it now and then."""
    room = duration - 0.6 * number
    cuts = sorted(float(c) for c in rng.uniform(0.0, max(0.1, room - 0.4), size=number))
    onsets = [cut + 0.6 * i for i, cut in enumerate(cuts)]
    spans = []
    for i, onset in enumerate(onsets):
        following = onsets[i + 1] if i + 1 < number else duration
        limit = duration if rng.random() < OVERLAP_SHARE * 1.5 else following
        length = float(rng.uniform(0.25, 1.0)) * min(limit - onset, 8.0)
        spans.append((onset, min(duration, onset + max(0.3, length))))
    return spans


def _event(rng: np.random.Generator, sound: SoundClass, span: tuple[float, float]) -> Event:
    level, centroid = _levels(rng)
    counted = sound.unit is not None and rng.random() >= UNCOUNTED_SHARE
    count = int(rng.integers(1, 6)) if counted else 0
    return Event(sound.label, span[0], span[1], count, level, centroid)


def _texture(rng: np.random.Generator, sound: SoundClass, duration: float, *, background: bool) -> Event:
    level, centroid = _levels(rng)
    if background:
        return Event(sound.label, 0.0, duration, 0, level - 12.0, centroid, role="background")
    return Event(sound.label, 0.0, duration, 0, level, centroid)


def _duration(rng: np.random.Generator) -> float:
    draw = rng.random()
    if draw < 0.78:
        return 10.0
    return 5.0 if draw < 0.85 else float(rng.uniform(3.0, 9.0))


def random_scene(rng: np.random.Generator) -> Scene:
    """A scene drawn at random: events, counts, times and levels, and no sound."""
    kind, duration = _kind(rng), _duration(rng)
    if kind in ("nothing", "noise"):
        return Scene(duration, (), noise=kind == "noise")
    number = _EVENTS.get(kind, 0)
    picked = [CLASSES[int(i)] for i in rng.choice(len(CLASSES), size=number, replace=False)]
    spans = _spans(rng, number, duration)
    events = [_event(rng, sound, span) for sound, span in zip(picked, spans, strict=True)]
    if not events or rng.random() < BACKGROUND_SHARE:
        options = [c for c in _TEXTURES if c not in picked]
        texture = options[int(rng.integers(len(options)))]
        events.append(_texture(rng, texture, duration, background=kind != "texture"))
    return Scene(duration, tuple(events), noise=bool(rng.random() < 0.4))
