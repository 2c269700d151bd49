"""Cuts of real recordings for scenes: the active part found, single sounds segmented, randomly augmented."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gama.data import manifest
from gama.data.manifest import Row
from gama.data.scenes.classes import BY_LABEL
from gama.data.scenes.synth import GENERATORS
from gama.data.scenes.synth_blocks import (
    RATE,
    Countable,
    Samples,
    Take,
    add,
    chance,
    fade,
    filtered,
    log_uniform,
    uniform,
    unit,
)
from gama.errors import ManifestError

_FRAME = 80  # 5 ms
_HINT = "make it with: gama prepare real --audio-root DIR"

SINGLE: dict[str, tuple[float, float, float]] = {
    "dog": (0.05, 0.45, 0.05),
    "cat": (0.2, 1.8, 0.2),
    "rooster": (0.7, 3.2, 0.4),
    "frog": (0.1, 1.2, 0.15),
    "owl": (0.15, 1.2, 0.12),
    "crying_baby": (0.35, 2.5, 0.2),
    "sneezing": (0.12, 1.6, 0.5),
    "footsteps": (0.04, 0.5, 0.1),
    "clock_tick": (0.01, 0.25, 0.06),
    "door_knock": (0.03, 0.4, 0.05),
    "glass_breaking": (0.2, 2.5, 0.4),
    "car_horn": (0.1, 2.5, 0.06),
    "gunshot": (0.08, 2.0, 0.03),
}
"""Shortest and longest single sound and the longest dip inside one, in seconds, of what can be segmented."""

_ALONE = frozenset(("glass_breaking", "rooster"))
"""Classes whose single sound falls into pieces: segmented only where the recording holds one."""


def levels_db(samples: Samples) -> NDArray[np.float32]:
    """(n // 80,) RMS of every 5 ms in dB relative to full scale, at least -120."""
    frames = samples[: len(samples) // _FRAME * _FRAME].reshape(-1, _FRAME)
    power = np.mean(frames * frames, axis=1)
    return (10 * np.log10(np.maximum(power, 1e-12))).astype(np.float32)


def active_span(samples: Samples, *, depth: float = 30.0) -> tuple[float, float]:
    """Start and end in seconds of what lies within ``depth`` dB of the loudest 5 ms; (0, 0) for silence."""
    levels = levels_db(samples)
    if not len(levels) or levels.max() <= -119:
        return 0.0, 0.0
    loud = np.flatnonzero(levels > levels.max() - depth)
    return float(loud[0] * _FRAME / RATE), float((loud[-1] + 1) * _FRAME / RATE)


def _runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and one past the last index of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], mask.astype(np.int8), [0]))))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def single_sounds(samples: Samples, label: str) -> tuple[tuple[int, int], ...]:
    """Sample ranges of the single sounds, or nothing where they are not clearly apart from each other and the floor."""
    if label not in SINGLE:
        return ()
    shortest, longest, dip = (s * RATE / _FRAME for s in SINGLE[label])
    levels = levels_db(samples)
    if len(levels) < 4:
        return ()
    peak, floor = float(levels.max()), float(np.percentile(levels, 5))
    runs = _runs(levels > peak - 18)
    merged = [runs[0]]
    for a, b in runs[1:]:
        if a - merged[-1][1] <= dip:
            merged[-1] = (merged[-1][0], b)
        else:
            merged.append((a, b))
    whole_is_one = len(merged) == 1 and merged[0][1] - merged[0][0] > 0.9 * len(levels)
    if not whole_is_one and floor > peak - 24:
        return ()
    if any(not shortest <= b - a <= longest for a, b in merged) or (label in _ALONE and len(merged) > 1):
        return ()
    return tuple(_widened(levels, merged, i, peak - 30) for i in range(len(merged)))


def _nothing_between(samples: Samples, singles: tuple[tuple[int, int], ...]) -> bool:
    """Whether between neighbouring single sounds it is at least 26 dB quieter than the loudest of them."""
    levels = levels_db(samples)
    gaps = [levels[a[1] // _FRAME : b[0] // _FRAME] for a, b in zip(singles, singles[1:], strict=False)]
    return all(len(gap) > 1 and float(gap.max()) < float(levels.max()) - 26 for gap in gaps)


def _widened(levels: NDArray[np.float32], runs: list[tuple[int, int]], i: int, quiet: float) -> tuple[int, int]:
    """Run ``i`` as a sample range, grown outwards until the level falls below ``quiet``."""
    before = (runs[i - 1][1] + runs[i][0]) // 2 if i else 0
    after = (runs[i + 1][0] + runs[i][1]) // 2 if i + 1 < len(runs) else len(levels)
    a, b = runs[i]
    while a > before and levels[a - 1] > quiet:
        a -= 1
    while b < after and levels[b] > quiet:
        b += 1
    return a * _FRAME, b * _FRAME


@dataclass(frozen=True)
class Recording:
    """The active part of one real clip.

    Attributes:
        label: one of our classes.
        source: file name of the clip.
        pcm: (n,) int16 at 16 kHz.
        singles: sample ranges of its single sounds; empty where they are not clear.
        complete: whether nothing else is heard between them, so that a stretch of the recording can be counted.
        fold: of its source's cross-validation, or None.
    """

    label: str
    source: str
    pcm: NDArray[np.int16]
    singles: tuple[tuple[int, int], ...]
    complete: bool
    fold: int | None = None

    @classmethod
    def of(cls, label: str, source: str, samples: Samples, fold: int | None = None) -> Recording:
        """Cuts the silence around the clip (n,) away and segments it."""
        start, end = active_span(samples, depth=40)
        part = samples[int(start * RATE) : int(end * RATE)]
        singles = single_sounds(part, label)
        pcm = (np.clip(part, -1, 1) * 32767).astype(np.int16)
        return cls(label, source, pcm, singles, _nothing_between(part, singles), fold)

    @property
    def samples(self) -> Samples:
        """(n,) float32."""
        return self.pcm.astype(np.float32) / np.float32(32768)


def resampled(x: Samples, speed: float) -> Samples:
    """The signal played ``speed`` times as fast: shorter and higher above 1."""
    n = max(1, int(len(x) / speed))
    return np.interp(np.arange(n) * speed, np.arange(len(x)), x).astype(np.float32)


def equalised(rng: np.random.Generator, x: Samples, most: float = 6.0) -> Samples:
    """The signal through a smooth random equaliser of at most ``most`` dB up or down."""
    gains = rng.uniform(-most, most, 6)

    def curve(f: NDArray[np.float32]) -> NDArray[Any]:
        octave = np.log2(np.maximum(f, 60.0) / 60.0)
        db = np.interp(octave, np.linspace(0, 7.1, len(gains)), gains)
        return (10 ** (db / 20)).astype(np.float32)

    return filtered(x, curve)


def looped(rng: np.random.Generator, x: Samples, n: int) -> Samples:
    """(n,) a circular crop of a texture from a random place, the joint cross-faded over 50 ms where there is room."""
    blend = min(RATE // 20, len(x) // 4)
    if len(x) >= n:
        first = int(rng.integers(0, len(x) - n + 1))
        return x[first : first + n]
    loop = x[blend:].copy()
    if blend:
        ramp = np.linspace(0, 1, blend, dtype=np.float32)
        loop[-blend:] = loop[-blend:] * np.sqrt(1 - ramp) + x[:blend] * np.sqrt(ramp)
    first = int(rng.integers(0, len(loop)))
    return np.take(loop, np.arange(first, first + n), mode="wrap")


class RealTakes:
    """Decoded real recordings by class, for :func:`gama.data.scenes.compose.compose`."""

    def __init__(self, recordings: Iterable[Recording]) -> None:
        self._by_label: dict[str, list[Recording]] = {}
        self.folded: set[str] = set()
        for recording in recordings:
            if recording.fold is not None:
                self.folded.add(recording.source)
            if len(recording.pcm):
                self._by_label.setdefault(recording.label, []).append(recording)

    @classmethod
    def from_manifest(cls, path: Path, *, folds: Sequence[int] | None = None) -> RealTakes:
        """The clips of a manifest written by ``gama prepare real``.

        Args:
            path: the manifest; ``audio_id`` is absolute or relative to its folder.
            folds: use only clips of these folds, and those that belong to none; None for all.

        Raises:
            ManifestError: when it cannot be read, a row has no known event, or no clip is left.
            AudioError: when a clip cannot be read.
        """
        return cls(_recordings(path, folds))

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes that have recordings, sorted."""
        return tuple(sorted(self._by_label))

    def recordings(self, label: str) -> tuple[Recording, ...]:
        """The recordings of a class, none for an unknown one."""
        return tuple(self._by_label.get(label, ()))

    def cut(self, rng: np.random.Generator, label: str, seconds: float, count: int) -> tuple[Take, str]:
        """A random augmented cut of one recording, at most ``seconds`` long, and the recording's name.

        The take holds ``count`` single sounds where the recording's are clear (fewer where they do not fit), 1 for a
        texture, and count 0 where nobody knows how many it holds.
        """
        options = self._by_label[label]
        recording = options[int(rng.integers(len(options)))]
        speed = log_uniform(rng, 0.85, 1.18)
        if BY_LABEL[label].unit is None:
            x = looped(rng, resampled(recording.samples, speed), int(seconds * RATE))
            take = Take(x, ((0.0, len(x) / RATE),), 1)
        elif recording.singles and chance(rng, 0.85):
            natural = recording.complete and len(recording.singles) >= count and chance(rng, 0.5)
            take = (_run if natural else _built)(rng, recording, seconds, count, speed)
        else:
            take = _uncounted(rng, recording, seconds, speed)
        edges = fade(len(take.samples), 0.004, 0.01)
        return Take(unit(equalised(rng, take.samples * edges)), take.spans, take.count), recording.source


def _recordings(path: Path, folds: Sequence[int] | None) -> list[Recording]:
    rows = [clip[0] for clip in manifest.by_clip(manifest.read(path))]
    chosen = [row for row in rows if folds is None or row.fold is None or row.fold in folds]
    if not chosen:
        raise ManifestError(f"{path} has no clip of the folds {folds}", _HINT)
    return [_recording(path, row) for row in chosen]


def _recording(path: Path, row: Row) -> Recording:
    from gama import audio  # scenes without recordings need no decoder

    events = row.scene.events if row.scene else ()
    if row.audio is None or not events or events[0].label not in BY_LABEL:
        raise ManifestError(f"{path}: the row of {row.audio} has no event of a known class", _HINT)
    return Recording.of(events[0].label, row.audio.name, audio.load(row.audio).samples, row.fold)


def takes_by_fold(path: Path, *, folds: Sequence[int] | None = None) -> dict[int | None, RealTakes]:
    """The clips of a manifest by fold, those without a fold in each; all under None where no clip has a fold.

    Args:
        path: a manifest written by ``gama prepare real``.
        folds: use only clips of these folds, and those that belong to none; None for all.

    Raises:
        ManifestError, AudioError: as :meth:`RealTakes.from_manifest`.
    """
    recordings = _recordings(path, folds)
    found = sorted({r.fold for r in recordings if r.fold is not None})
    return {fold: RealTakes(r for r in recordings if r.fold in (None, fold)) for fold in found or (None,)}


def _uncounted(rng: np.random.Generator, recording: Recording, seconds: float, speed: float) -> Take:
    """The recording, or where it is too long the stretch around a loud place, its sounds uncounted."""
    x = resampled(recording.samples, speed)
    n = int(seconds * RATE)
    if chance(rng, 0.3):  # time trimming
        n = min(n, max(int(0.5 * RATE), int(len(x) * uniform(rng, 0.5, 0.95))))
    if len(x) > n:
        power = np.convolve(x * x, np.ones(256, np.float32), "same")
        loud = int(rng.choice(np.flatnonzero(power > 0.3 * power.max())))
        first = int(np.clip(loud - uniform(rng, 0.2, 0.8) * n, 0, len(x) - n))
        x = x[first : first + n]
    return Take(x, (active_span(x),), 0)


def _run(rng: np.random.Generator, recording: Recording, seconds: float, count: int, speed: float) -> Take:
    """``count`` neighbouring single sounds as they were recorded."""
    singles = recording.singles
    while True:
        first = int(rng.integers(0, len(singles) - count + 1))
        chosen = singles[first : first + count]
        if count == 1 or (chosen[-1][1] - chosen[0][0]) / RATE / speed <= seconds:
            break
        count -= 1
    a, b = chosen[0][0], chosen[-1][1]
    x = resampled(recording.samples[a:b], speed)[: int(seconds * RATE)]
    scale = 1 / (RATE * speed)
    return Take(x, tuple(((s - a) * scale, (e - a) * scale) for s, e in chosen), count)


def _built(rng: np.random.Generator, recording: Recording, seconds: float, count: int, speed: float) -> Take:
    """``count`` of its single sounds, repeated where it has fewer, in a new rhythm."""
    generator = GENERATORS[recording.label]
    assert isinstance(generator, Countable)
    x, gap = recording.samples, uniform(rng, max(0.1, generator.gap[0]), max(0.3, generator.gap[1]))
    picks = [recording.singles[int(i)] for i in rng.integers(0, len(recording.singles), count)]
    sounds = []
    for a, b in picks:
        sound = resampled(x[a:b], speed * uniform(rng, 0.96, 1.04))
        sounds.append(sound * fade(len(sound), 0.002, 0.01) * uniform(rng, 0.7, 1.0))
    while len(sounds) > 1 and sum(map(len, sounds)) / RATE + (len(sounds) - 1) * 0.12 > seconds:
        sounds.pop()
    spare = seconds - sum(map(len, sounds)) / RATE
    if len(sounds) > 1:
        gap = min(gap, spare / (len(sounds) - 1))
    return _strung(rng, sounds, gap, seconds)


def _strung(rng: np.random.Generator, sounds: list[Samples], gap: float, seconds: float) -> Take:
    out = np.zeros(int(seconds * RATE), np.float32)
    spans, at = [], 0.0
    for sound in sounds:
        add(out, at, sound)
        spans.append((at, min(seconds, at + len(sound) / RATE)))
        at += len(sound) / RATE + gap * uniform(rng, 0.8, 1.0)
    return Take(out[: int(spans[-1][1] * RATE)], tuple(spans), len(sounds))
