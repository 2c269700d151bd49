"""Building blocks of the procedural sounds: shaped noise, harmonic voices, ringing modes, envelopes, rooms.

Every signal is a float32 array of samples at 16 kHz; every length in seconds unless it is called ``n`` (samples).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RATE = 16_000
"""Samples per second of everything in this package."""

Samples = NDArray[np.float32]
Curve = Callable[[NDArray[np.float32]], NDArray[Any]]
"""A frequency response: frequencies in Hz (F,) to real or complex gains (F,)."""

_TABLE = 4096


@dataclass(frozen=True)
class Take:
    """One rendered foreground sound.

    Attributes:
        samples: (n,) float32 at 16 kHz, peak at most 1.
        spans: start and end in seconds of every single sound.
        count: how many single sounds; 1 for a texture, 0 when nobody counted them.
    """

    samples: Samples
    spans: tuple[tuple[float, float], ...]
    count: int


Voice = Callable[[float], Samples]
"""One single sound (n,) of at most the given seconds."""


@dataclass(frozen=True)
class Countable:
    """A generator of a counted number of single sounds.

    Attributes:
        voice: draws an individual (this dog, this bell) whose single sounds are alike.
        single: shortest and longest single sound in seconds.
        gap: shortest and longest pause between two; negative where one rings on into the next.
        steady: whether the tempo is even (a clock) or free (a dog).
    """

    voice: Callable[[np.random.Generator], Voice]
    single: tuple[float, float]
    gap: tuple[float, float]
    steady: bool = False

    def fits(self, seconds: float) -> int:
        """How many single sounds have room in ``seconds``, at least 1."""
        return 1 + max(0, int((seconds - self.single[0]) / (self.single[0] + self.gap[0])))

    def __call__(self, rng: np.random.Generator, seconds: float, count: int) -> Take:
        """``count`` single sounds within ``seconds``, made shorter and closer where they would not fit."""
        single, gap = uniform(rng, *self.single), uniform(rng, *self.gap)
        if (excess := count * single + (count - 1) * gap - seconds) > 0 and count > 1:
            gap = max(self.gap[0], gap - excess / (count - 1))
        if (excess := count * single + (count - 1) * gap - seconds) > 0:
            single = max(0.03, single - excess / count)
        voice = self.voice(rng)
        out = np.zeros(int(seconds * RATE), np.float32)
        spans = []
        for i in range(count):
            jitter = 0.0 if self.steady else uniform(rng, -0.25, 0.25) * max(gap, 0.0)
            length = single if self.steady else single * uniform(rng, 0.85, 1.0)
            start = max(0.0, i * (single + gap) + (jitter if 0 < i < count - 1 else 0.0))
            sound = voice(min(length, seconds - start))
            add(out, start, sound * uniform(rng, 0.75, 1.0))
            spans.append((start, min(seconds, start + len(sound) / RATE)))
        end = int(max(e for _, e in spans) * RATE)
        return Take(unit(out[:end]), tuple(spans), count)


@dataclass(frozen=True)
class Texture:
    """A generator of a continuous sound that fills its time; ``render`` takes the number of samples."""

    render: Callable[[np.random.Generator, int], Samples]

    def __call__(self, rng: np.random.Generator, seconds: float, count: int = 1) -> Take:
        """The sound for ``seconds``; ``count`` is ignored, a texture counts as one."""
        samples = unit(self.render(rng, int(seconds * RATE)))
        return Take(samples, ((0.0, len(samples) / RATE),), 1)


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number between two bounds."""
    return low + (high - low) * float(rng.random())


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number between two positive bounds, even on a logarithmic scale."""
    return low * (high / low) ** float(rng.random())


def chance(rng: np.random.Generator, probability: float) -> bool:
    """True with the given probability."""
    return bool(rng.random() < probability)


def seconds_of(n: int) -> Samples:
    """(n,) time of every sample in seconds."""
    return np.arange(n, dtype=np.float32) / np.float32(RATE)


def unit(x: Samples) -> Samples:
    """The signal scaled to peak 1 (unchanged when all zero)."""
    peak = float(np.abs(x).max(initial=0.0))
    return (x / peak).astype(np.float32) if peak > 0 else x


def add(out: Samples, start: float, sound: Samples, gain: float = 1.0) -> None:
    """Mixes ``sound`` into ``out`` from ``start`` seconds on; what goes past the end is cut."""
    first = int(start * RATE)
    room = min(len(sound), len(out) - first)
    if room > 0:
        out[first : first + room] += gain * sound[:room]


def fast_size(n: int) -> int:
    """The next length at or above ``n`` that a fast Fourier transform handles quickly."""
    step = 1 << max(0, n.bit_length() - 4)
    return -(-n // step) * step


def filtered(x: Samples, curve: Curve, *, tail: float = 0.03) -> Samples:
    """(n,) the signal through a frequency response; ``tail`` seconds of silence keep it from wrapping around."""
    size = fast_size(len(x) + int(tail * RATE))
    freqs = np.fft.rfftfreq(size, 1 / RATE).astype(np.float32)
    spectrum = np.fft.rfft(x, size) * curve(freqs)
    return np.fft.irfft(spectrum, size)[: len(x)].astype(np.float32)


def noise(rng: np.random.Generator, n: int, curve: Curve | None = None) -> Samples:
    """(n,) Gaussian noise of RMS 1 through an optional frequency response."""
    if curve is None:
        return rng.standard_normal(n, dtype=np.float32)
    size = fast_size(n)
    freqs = np.fft.rfftfreq(size, 1 / RATE).astype(np.float32)
    spectrum = rng.standard_normal(2 * len(freqs), dtype=np.float32).view(np.complex64) * curve(freqs)
    x = np.fft.irfft(spectrum, size)[:n].astype(np.float32)
    return x / np.float32(max(1e-9, float(np.sqrt(np.mean(x * x)))))


def band(low: float, high: float, slope: float = 2.0) -> Curve:
    """A band pass falling by ``slope`` times 6 dB an octave outside ``low`` to ``high`` Hz."""

    def curve(f: NDArray[np.float32]) -> NDArray[Any]:
        g = np.maximum(f, 1.0)
        below = np.float32(1) / (1 + (np.float32(low) / g) ** np.float32(slope))
        return below / (1 + (g / np.float32(high)) ** np.float32(slope))

    return curve


def low_pass(cut: float, order: int = 1) -> Curve:
    """A causal low pass at ``cut`` Hz: distance, walls, dull surfaces."""
    return lambda f: (1 / (1 + 1j * (f / np.float32(cut))) ** order).astype(np.complex64)


def resonances(centers: Sequence[float], widths: Sequence[float], gains: Sequence[float], floor: float = 0.0) -> Curve:
    """Parallel causal resonators (formants) in Hz, each with unit gain times its own at the centre."""

    def curve(f: NDArray[np.float32]) -> NDArray[Any]:
        total = np.full(len(f), floor, np.complex64)
        for sign, (c, w, g) in enumerate(zip(centers, widths, gains, strict=True)):
            jfw = (1j * np.float32(w)) * f
            # alternating signs keep the valleys between neighbouring formants from cancelling out
            total += np.complex64(g * (-1) ** sign) * jfw / (np.float32(c * c) - f * f + jfw + np.float32(1e-3))
        return total

    return curve


def chain(*curves: Curve) -> Curve:
    """Several responses one after the other."""

    def curve(f: NDArray[np.float32]) -> NDArray[Any]:
        total: NDArray[Any] = curves[0](f)
        for c in curves[1:]:
            total = total * c(f)
        return total

    return curve


def harmonics(rng: np.random.Generator, f0: Samples, *, decay: float = 1.0, even: float = 1.0) -> Samples:
    """(n,) a voice whose k-th harmonic has amplitude k^-decay, along the pitch track ``f0`` (n,) in Hz.

    ``even`` scales the even harmonics. Harmonics above 7.6 kHz are left out.
    """
    highest = max(1, min(120, int(7600 / max(20.0, float(f0.max())))))
    k = np.arange(1, highest + 1)
    amps = k ** (-decay) * np.where(k % 2 == 0, even, 1.0) * rng.uniform(0.7, 1.3, highest)
    spectrum = np.zeros(_TABLE // 2 + 1, np.complex64)
    spectrum[1 : highest + 1] = amps * np.exp(1j * rng.uniform(-0.6, 0.6, highest))
    table = unit(np.fft.irfft(spectrum, _TABLE).astype(np.float32))
    phase = np.cumsum(f0.astype(np.float64) / RATE) + rng.random()
    return table[(phase * _TABLE).astype(np.int64) & (_TABLE - 1)]


def tone(f0: Samples) -> Samples:
    """(n,) a pure tone along the pitch track ``f0`` (n,) in Hz."""
    return np.sin(2 * np.pi * (np.cumsum(f0.astype(np.float64) / RATE) % 1.0)).astype(np.float32)


def track(n: int, *points: tuple[float, float]) -> Samples:
    """(n,) a smooth curve, level at each of ``points`` of (share of the length, value)."""
    x, y = zip(*points, strict=True)
    place = np.interp(np.linspace(0, 1, n, dtype=np.float32), x, np.arange(len(x))).astype(np.float32)
    before = np.minimum(place.astype(np.int32), len(x) - 2)
    part = place - before
    values = np.array(y, np.float32)
    return values[before] + np.diff(values)[before] * part * part * (3 - 2 * part)


def wander(rng: np.random.Generator, n: int, rate: float) -> Samples:
    """(n,) a slow random curve, mean 0 and deviation about 1, with ``rate`` turns a second."""
    points = max(2, int(n / RATE * rate) + 3)
    values = rng.standard_normal(points)
    return np.interp(np.arange(n) * (rate / RATE) + rng.random(), np.arange(points), values).astype(np.float32)


def fade(n: int, attack: float, release: float) -> Samples:
    """(n,) 1 with a raised-cosine rise of ``attack`` and fall of ``release`` seconds."""
    shape = np.ones(n, np.float32)
    up, down = min(n, max(1, int(attack * RATE))), min(n, max(1, int(release * RATE)))
    shape[:up] *= (0.5 - 0.5 * np.cos(np.pi * np.arange(up) / up)).astype(np.float32)
    shape[n - down :] *= (0.5 + 0.5 * np.cos(np.pi * (np.arange(down) + 1) / down)).astype(np.float32)
    return shape


def die(n: int, t60: float, attack: float = 0.001) -> Samples:
    """(n,) an exponential decay by 60 dB in ``t60`` seconds after a short attack, ending in silence."""
    shape = np.exp(np.float32(-6.9 / t60) * seconds_of(n))
    return (shape * fade(n, attack, min(0.02, n / RATE / 4))).astype(np.float32)


def ring(
    rng: np.random.Generator, n: int, freqs: Sequence[float], t60s: Sequence[float], amps: Sequence[float]
) -> Samples:
    """(n,) decaying modes of a struck body."""
    out = np.zeros(n, np.float32)
    for f, t60, a in zip(freqs, t60s, amps, strict=True):
        if f >= 7800:
            continue
        m = min(n, int(t60 * RATE * 1.2) + 1)
        t = seconds_of(m)
        phase = np.float32(2 * np.pi * f) * t + np.float32(rng.uniform(0, 2 * np.pi))
        out[:m] += np.float32(a) * np.exp(np.float32(-6.9 / t60) * t) * np.sin(phase)
    return out


def impulses(rng: np.random.Generator, n: int, rate: float, *, spread: float = 0.7) -> Samples:
    """(n,) random clicks, ``rate`` a second on average, with log-normal heights (``spread`` in nepers)."""
    out = np.zeros(n, np.float32)
    count = max(1, int(rng.poisson(rate * n / RATE)))
    where = rng.integers(0, n, count)
    heights = np.exp(spread * rng.standard_normal(count)) * rng.choice((-1.0, 1.0), count)
    np.add.at(out, where, heights.astype(np.float32))
    return out


def grains(rng: np.random.Generator, n: int, rate: float, low: float, high: float, *, q: float = 4.0, kinds: int = 3,
           spread: float = 0.7) -> Samples:  # fmt: skip
    """(n,) many short ringing clicks whose pitches lie between ``low`` and ``high`` Hz: drops, crackles, claps."""
    out = np.zeros(n, np.float32)
    for _ in range(kinds):
        center = log_uniform(rng, low, high)
        click = impulses(rng, n, rate / kinds, spread=spread)
        out += filtered(click, resonances([center], [center / q], [log_uniform(rng, 0.5, 1.0)]))
    return out


def room(rng: np.random.Generator, t60: float) -> Samples:
    """(m,) the impulse response of a room without its direct sound, energy 1."""
    n = max(16, int(min(t60, 1.5) * 0.7 * RATE))
    late = noise(rng, n, low_pass(log_uniform(rng, 1500, 6000))) * np.exp(np.float32(-6.9 / t60) * seconds_of(n))
    late[: int(rng.integers(1, 200))] = 0
    return (late / np.float32(np.sqrt(np.sum(late * late)) + 1e-9)).astype(np.float32)


def convolved(x: Samples, response: Samples) -> Samples:
    """(n + m,) the signal (n,) through an impulse response (m,)."""
    n = len(x) + len(response)
    size = fast_size(n)
    return np.fft.irfft(np.fft.rfft(x, size) * np.fft.rfft(response, size), size)[:n].astype(np.float32)


def reverberate(x: Samples, response: Samples, wet: float) -> Samples:
    """(n + m,) the dry signal and ``wet`` times its echo in a room of response (m,)."""
    echo = convolved(x, response) * np.float32(wet)
    echo[: len(x)] += x
    return echo
