"""Sound scenes with their exact truth: one to three events over a background, from generators and real clips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from gama.data.scenes.classes import BY_LABEL
from gama.data.scenes.scene import Event, Scene
from gama.data.scenes.synth import GENERATORS, TEXTURES
from gama.data.scenes.synth_blocks import (
    RATE,
    Countable,
    Samples,
    band,
    chance,
    fade,
    filtered,
    log_uniform,
    low_pass,
    noise,
    reverberate,
    room,
    seconds_of,
    uniform,
)
from gama.data.scenes.takes import RealTakes, active_span, equalised
from gama.errors import GamaError

__all__ = ["BACKGROUNDS", "CLIP_SECONDS", "RealTakes", "compose", "compose_exact"]

CLIP_SECONDS = 10.0
"""Every clip is returned in this length, zero-padded."""

BACKGROUNDS: tuple[str, ...] = (
    "rain", "wind", "sea_waves", "crickets", "chirping_birds", "engine", "applause", "crackling_fire", "train",
    "keyboard_typing", "thunderstorm", "airplane", "helicopter",
)  # fmt: skip
"""Textures that may lie quietly under a scene."""

_GAP = 0.3  # seconds between the end of one event and the start of the next
_KINDS = ("nothing", "noise", "texture", "short", "one", "two", "three")
_KIND_SHARES = (0.025, 0.025, 0.07, 0.08, 0.37, 0.30, 0.13)
_EVENTS = {"texture": 1, "short": 1, "one": 1, "two": 2, "three": 3}
_FULL_CHOICE = 8  # recordings of a class from which on real_share holds in full


@dataclass(frozen=True)
class _Sound:
    """One sound on its way into a scene: ``samples`` (n,) begin ``start`` seconds into the clip.

    ``onsets`` are those of its single sounds, in seconds from its own beginning.
    """

    label: str
    samples: Samples
    count: int
    source: str
    onsets: tuple[float, ...]
    start: float = 0.0

    @property
    def span(self) -> tuple[float, float]:
        return active_span(self.samples)


@dataclass(frozen=True)
class _Supply:
    """Where sounds come from: real recordings, generators, and their proportions."""

    takes: RealTakes | None
    real_share: float
    procedural: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        real = self.takes.labels if self.takes and self.real_share > 0 else ()
        return tuple(label for label in BY_LABEL if label in self.procedural or label in real)

    def real(self, rng: np.random.Generator, label: str) -> bool:
        """Whether this time the class comes from a recording."""
        if self.takes is None or not (held := len(self.takes.recordings(label))):
            return False
        return label not in self.procedural or chance(rng, self.real_share * min(1.0, held / _FULL_CHOICE))

    def sound(self, rng: np.random.Generator, label: str, seconds: float, count: int) -> _Sound:
        if self.takes is not None and self.real(rng, label):
            take, source = self.takes.cut(rng, label, seconds, count)
        else:
            take, source = GENERATORS[label](rng, seconds, count), "synthetic"
        counted = BY_LABEL[label].unit is not None and take.count > 0
        onsets = tuple(start for start, _ in take.spans) if counted else ()
        return _Sound(label, take.samples, take.count, source, onsets)


def compose(
    rng: np.random.Generator,
    *,
    takes: RealTakes | None = None,
    real_share: float = 0.6,
    procedural: Sequence[str] | None = None,
) -> tuple[Samples, Scene]:
    """A random scene.

    Args:
        rng: the only source of chance: the same state gives the same scene.
        takes: real recordings to mix in.
        real_share: share of the sounds that are real, for classes with at least eight recordings (in proportion
            fewer for the others).
        procedural: labels that may be synthesised; None for all.

    Returns:
        (160000,) float32 at 16 kHz within [-1, 1], zero after the scene's duration, and the truth as it was placed.
    """
    supply = _Supply(takes, real_share, tuple(GENERATORS if procedural is None else procedural))
    if not supply.labels:
        raise GamaError("no class to compose scenes from", "allow procedural classes or give real recordings")
    kind = str(rng.choice(_KINDS, p=_KIND_SHARES))
    duration = _duration(rng, kind)
    if kind in ("nothing", "noise"):
        return _empty(rng, kind, duration)
    sounds = _draw(rng, supply, kind, duration)
    sounds = [_coloured(rng, s) for s in sounds]
    if kind in ("texture", "short"):
        placed = [replace(sounds[0], start=-sounds[0].span[0] + (0 if chance(rng, 0.7) else uniform(rng, 0, 0.2)))]
    else:
        placed = _laid_out(rng, sounds, duration)
    return _mixed(rng, placed, _under(rng, supply, placed, kind, duration), duration)


def _duration(rng: np.random.Generator, kind: str) -> float:
    if kind == "short":
        return 5.0
    if chance(rng, 0.15):
        return round(uniform(rng, 5.0 if kind == "three" else 3.0, 9.0), 2)
    return CLIP_SECONDS


def _empty(rng: np.random.Generator, kind: str, duration: float) -> tuple[Samples, Scene]:
    """Silence (at most a hiss whose peaks count as silent) or nothing but unspecific noise."""
    out = np.zeros(int(CLIP_SECONDS * RATE), np.float32)
    n = int(duration * RATE)
    if kind == "noise":
        out[:n] = _noise(rng, n) * 10 ** (uniform(rng, -50, -18) / 20)
    elif chance(rng, 0.5):
        out[:n] = noise(rng, n) * 10 ** (uniform(rng, -110, -96) / 20)
    return np.clip(out, -1, 1), Scene(duration, (), noise=kind == "noise")


def _noise(rng: np.random.Generator, n: int) -> Samples:
    """(n,) steady noise of RMS 1 that belongs to no class: hiss, a fan, mains hum."""
    slope, corner = uniform(rng, 0.0, 1.6), log_uniform(rng, 40, 300)

    def falling(f: Samples) -> Samples:
        return (1 + f / np.float32(corner)) ** np.float32(-slope)

    x = noise(rng, n, falling)
    if chance(rng, 0.3):
        mains = float(rng.choice((50.0, 60.0)))
        for k in range(1, 8):
            amount = uniform(rng, 0, 0.8) / k
            x += amount * np.sin(2 * np.pi * k * mains * seconds_of(n) + uniform(rng, 0, 6.28)).astype(np.float32)
    if chance(rng, 0.3):
        low = log_uniform(rng, 80, 1500)
        x = filtered(x, band(low, low * log_uniform(rng, 3, 20)))
    return x / np.float32(np.sqrt(np.mean(x * x)) + 1e-9)


def _draw(rng: np.random.Generator, supply: _Supply, kind: str, duration: float) -> list[_Sound]:
    """The scene's events, each within its share of the time, with counts that fit it."""
    labels = supply.labels
    if kind == "texture":
        labels = tuple(x for x in labels if x in TEXTURES) or labels
    chosen = [str(x) for x in rng.choice(labels, min(_EVENTS[kind], len(labels)), replace=False)]
    counts = [_count(rng) if BY_LABEL[x].unit else 1 for x in chosen]
    free = duration - 0.5 - _GAP * (len(chosen) - 1)
    need = np.array([_seconds(rng, x, c, free) for x, c in zip(chosen, counts, strict=True)])
    slots = need * min(1.0, free / need.sum())
    if kind == "texture":
        slots = np.array([duration])
    elif kind == "short":
        slots = np.minimum(slots, uniform(rng, 1.0, 4.8))
    sounds = []
    for label, count, slot in zip(chosen, counts, slots.tolist(), strict=True):
        generator = GENERATORS[label]
        if isinstance(generator, Countable) and count > (fits := generator.fits(slot)):
            count = int(rng.integers(1, min(5, fits) + 1))
        sounds.append(supply.sound(rng, label, slot, count))
    return sounds


def _count(rng: np.random.Generator) -> int:
    """One to five equally often, now and then more than a person counts."""
    return int(rng.integers(1, 6)) if chance(rng, 0.94) else int(rng.integers(6, 10))


def _seconds(rng: np.random.Generator, label: str, count: int, most: float) -> float:
    """How much time the class asks for."""
    generator = GENERATORS[label]
    if not isinstance(generator, Countable):
        return min(most, log_uniform(rng, 1.2, 7.0))
    period = uniform(rng, 0.6, 1.0) * (generator.single[1] + max(0.1, generator.gap[1]))
    return min(most, max(1.0, count * period))


def _coloured(rng: np.random.Generator, sound: _Sound) -> _Sound:
    """The sound as another place and distance would make it; its level is left to the mix."""
    x = sound.samples
    if sound.label in TEXTURES:
        x = x * fade(len(x), log_uniform(rng, 0.01, 0.6), log_uniform(rng, 0.01, 0.6))
    if chance(rng, 0.5):
        x = equalised(rng, x)
    if chance(rng, 0.25):
        x = filtered(x, low_pass(log_uniform(rng, 1200, 6000)))
    if chance(rng, 0.3):
        x = reverberate(x, room(rng, log_uniform(rng, 0.15, 0.7)), log_uniform(rng, 0.1, 0.7))
    return replace(sound, samples=x)


def _laid_out(rng: np.random.Generator, sounds: list[_Sound], duration: float) -> list[_Sound]:
    """The sounds at random times: one after the other, in 15 % of the scenes two of them overlapping."""
    while True:
        blocks = [[s] for s in sounds]
        if len(blocks) > 1 and chance(rng, 0.15):
            blocks[0:2] = [blocks[0] + blocks[1]]
        rng.shuffle(blocks)
        built = [_block(rng, b) for b in blocks]
        slack = duration - 0.02 - sum(length for _, length in built) - _GAP * (len(built) - 1)
        if slack >= 0 or len(sounds) == 1:
            break
        sounds = sounds[:-1]  # echoes made it too long for the clip
    pauses = rng.dirichlet(np.ones(len(built) + 1)) * max(0.0, slack)
    placed, at = [], 0.01
    for (members, length), pause in zip(built, pauses.tolist(), strict=False):
        at += pause
        placed += [replace(s, start=s.start + at) for s in members]
        at += length + _GAP
    return placed


def _block(rng: np.random.Generator, members: list[_Sound]) -> tuple[list[_Sound], float]:
    """Sounds that overlap, their active spans beginning at 0, and the length of the whole in seconds."""
    placed, offset, length = [], 0.0, 0.0
    for sound in members:
        start, end = sound.span
        placed.append(replace(sound, start=offset - start))
        length = max(length, offset + end - start)
        offset += uniform(rng, 0.2, 0.8) * (end - start)
    return placed, length


@dataclass(frozen=True)
class _Under:
    """What lies under the events, with its distance below the quietest of them in dB."""

    background: _Sound | None
    background_db: float
    noise: Samples | None
    noise_db: float


def _under(rng: np.random.Generator, supply: _Supply, placed: list[_Sound], kind: str, duration: float) -> _Under:
    background = None
    taken = {s.label for s in placed}
    options = [x for x in BACKGROUNDS if x in supply.labels and x not in taken]
    if kind not in ("texture", "short") and options and chance(rng, 0.3):
        label = str(rng.choice(options))
        background = supply.sound(rng, label, duration, 1)
    hiss = _noise(rng, int(duration * RATE)) if chance(rng, 0.1 if background else 0.4) else None
    return _Under(background, uniform(rng, 12, 20), hiss, uniform(rng, 10, 35))


def _event(x: Samples, sound: _Sound, start: float, end: float, role: str) -> Event:
    """The truth about a sound from its own track ``x`` (n,)."""
    part = x[int(start * RATE) : int(end * RATE)]
    return Event(
        label=sound.label,
        start=round(start, 3),
        end=round(end, 3),
        count=sound.count,
        level_db=round(rms_db(part), 2),
        centroid_hz=round(centroid(part), 1),
        role="background" if role == "background" else "event",
        source=sound.source,
        onsets=tuple(round(max(start, sound.start + at), 3) for at in sound.onsets),
    )


def rms_db(samples: Samples) -> float:
    """RMS of (n,) samples in dB relative to full scale, at least -120."""
    power = float(np.mean(samples * samples)) if len(samples) else 0.0
    return 10 * math.log10(max(power, 1e-12))


def centroid(samples: Samples) -> float:
    """Spectral centroid in Hz of (n,) samples, weighted by power; 0 for silence."""
    size = 1 << max(8, min(16, len(samples).bit_length() - 1))
    pieces = np.zeros(-(-max(1, len(samples)) // size) * size, np.float32)
    pieces[: len(samples)] = samples
    power = (np.abs(np.fft.rfft(pieces.reshape(-1, size), axis=1)) ** 2).sum(axis=0)
    total = float(power.sum())
    return float((power * np.fft.rfftfreq(size, 1 / RATE)).sum() / total) if total > 0 else 0.0


def _track(sound: _Sound, n: int) -> Samples:
    """(n,) the sound alone on the clip's time axis."""
    out = np.zeros(n, np.float32)
    first = round(sound.start * RATE)
    part = sound.samples[max(0, -first) :]
    first = max(0, first)
    out[first : first + len(part)] = part[: n - first]
    return out


def _offsets(rng: np.random.Generator, count: int) -> list[float]:
    """Level of every event in dB below the loudest: mostly clearly different."""
    if chance(rng, 0.3):
        return rng.uniform(-3.5, 0, count).tolist()
    steps = np.concatenate(([0.0], -np.cumsum(rng.uniform(4.2, 9.0, count - 1))))
    return rng.permutation(steps).tolist()


def _level(x: Samples, span: tuple[float, float]) -> float:
    part = x[int(span[0] * RATE) : int(span[1] * RATE)]
    return float(np.sqrt(np.mean(part * part)) + 1e-9) if len(part) else 1e-9


def _mixed(rng: np.random.Generator, placed: list[_Sound], under: _Under, duration: float) -> tuple[Samples, Scene]:
    """Everything on one track at the levels drawn, and the truth measured from the single tracks."""
    n = int(duration * RATE)
    tracks = [(s, _track(s, n)) for s in placed]
    offsets = _offsets(rng, len(placed))
    parts = []
    for (sound, x), offset in zip(tracks, offsets, strict=True):
        parts.append((sound, x * np.float32(10 ** (offset / 20) / _level(x, active_span(x))), "event"))
    quietest = 10 ** (min(offsets) / 20)
    if under.background is not None:
        x = _track(under.background, n)
        gain = quietest * 10 ** (-under.background_db / 20) / _level(x, (0, duration))
        parts.append((under.background, x * np.float32(gain), "background"))
    mix = np.sum([x for _, x, _ in parts], axis=0)
    if under.noise is not None:
        mix = mix + under.noise[:n] * np.float32(quietest * 10 ** (-under.noise_db / 20))
    gain = min(10 ** (uniform(rng, -34, -10) / 20), 0.98 / float(np.abs(mix).max() + 1e-9))
    out = np.zeros(int(CLIP_SECONDS * RATE), np.float32)
    out[:n] = mix * np.float32(gain)
    events = []
    for sound, x, role in parts:
        span = active_span(x) if role == "event" else (0.0, duration)
        events.append(_event(x * np.float32(gain), sound, *span, role))
    events.sort(key=lambda e: (e.role == "background", e.start))
    return out, Scene(duration, tuple(events), noise=under.noise is not None)


def compose_exact(
    rng: np.random.Generator,
    events: Sequence[tuple[str, float, int]],
    *,
    background: str | None = None,
    duration: float = CLIP_SECONDS,
    takes: RealTakes | None = None,
) -> tuple[Samples, Scene]:
    """A scene of exactly the given events, for tests and examples.

    Args:
        rng: source of chance for how they sound.
        events: (label, start in seconds, count) of each; a sound ends before the next one starts.
        background: label of a texture under them.
        duration: seconds, at most 10.
        takes: real recordings to use where there are any.

    Returns:
        (160000,) float32 and the truth.

    Raises:
        GamaError: for an unknown label or a start outside the clip.
    """
    wanted = sorted(events, key=lambda e: e[1])
    for label in [e[0] for e in wanted] + ([background] if background else []):
        if label not in GENERATORS:
            raise GamaError(f"unknown class {label!r}", f"use one of {', '.join(GENERATORS)}")
    if not 0 < duration <= CLIP_SECONDS or any(not 0 <= start < duration for _, start, _ in wanted):
        raise GamaError(f"events must start within the clip of {duration} s, at most {CLIP_SECONDS} s long")
    supply = _Supply(takes, 1.0, tuple(GENERATORS))
    placed = []
    for i, (label, start, count) in enumerate(wanted):
        until = wanted[i + 1][1] - 0.1 if i + 1 < len(wanted) else duration
        seconds = max(0.2, min(until - start, 3.0 if label in TEXTURES else duration))
        sound = supply.sound(rng, label, seconds, count)
        placed.append(replace(sound, start=start - sound.span[0]))
    under = _Under(supply.sound(rng, background, duration, 1) if background else None, 15.0, None, 0.0)
    if not placed:
        raise GamaError("a scene needs at least one event", "give (label, start, count)")
    return _mixed(rng, placed, under, duration)
