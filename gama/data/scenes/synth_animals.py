"""Procedural animals: dog, cat, rooster, birds, crickets, frog, owl."""

from __future__ import annotations

import numpy as np

from gama.data.scenes.synth_blocks import (
    RATE,
    Countable,
    Samples,
    Texture,
    Voice,
    add,
    band,
    chance,
    die,
    fade,
    filtered,
    harmonics,
    log_uniform,
    noise,
    resonances,
    seconds_of,
    tone,
    track,
    uniform,
    wander,
)


def _dog(rng: np.random.Generator) -> Voice:
    pitch, size = log_uniform(rng, 220, 750), log_uniform(rng, 0.75, 1.5)
    rough, decay = uniform(rng, 0.25, 0.9), uniform(rng, 0.5, 1.0)
    mouth = resonances(
        [600 * size, 1250 * size, 2600 * size, 3900], [160, 260, 450, 700], [1.0, 0.9, 0.5, 0.3], floor=0.05
    )

    def bark(seconds: float) -> Samples:
        n = int(seconds * RATE)
        top = pitch * uniform(rng, 0.9, 1.1)
        f0 = track(n, (0, top * 0.7), (0.2, top * 1.15), (0.5, top), (1, top * 0.55))
        f0 *= 1 + np.float32(0.03) * wander(rng, n, 60)
        source = harmonics(rng, f0, decay=decay) + rough * 0.5 * noise(rng, n)
        shape = track(n, (0, 0), (0.08, 1), (0.3, 0.8), (0.6, 0.25), (1, 0)) ** np.float32(1.3)
        return filtered(source * shape, mouth)

    return bark


def _cat(rng: np.random.Generator) -> Voice:
    pitch, size = log_uniform(rng, 380, 850), log_uniform(rng, 0.9, 1.25)
    peak, rise = uniform(rng, 0.25, 0.55), uniform(rng, 1.1, 1.5)
    breath = uniform(rng, 0.01, 0.08)
    closed = resonances([350 * size, 2500 * size, 3400], [120, 250, 400], [1.0, 0.5, 0.3], floor=0.02)
    opened = resonances([1000 * size, 1700 * size, 3100], [200, 250, 400], [1.0, 0.9, 0.4], floor=0.02)
    rounded = resonances([500 * size, 950 * size, 2900], [120, 180, 400], [1.0, 0.7, 0.2], floor=0.02)

    def meow(seconds: float) -> Samples:
        n = int(seconds * RATE)
        p = pitch * uniform(rng, 0.92, 1.08)
        f0 = track(n, (0, p * 0.85), (peak, p * rise), (0.7, p * 1.05), (1, p * uniform(rng, 0.6, 0.85)))
        f0 *= 1 + np.float32(0.012) * wander(rng, n, 25)
        source = harmonics(rng, f0, decay=0.8) + breath * noise(rng, n)
        source *= fade(n, 0.12 * seconds, 0.35 * seconds)
        mid = track(n, (0, 0), (0.15, 0.2), (peak, 1), (0.8, 0.4), (1, 0))
        late = track(n, (0, 0), (peak, 0), (0.9, 0.8), (1, 1))
        parts = filtered(source * (1 - np.minimum(1, mid + late)), closed)
        return parts + filtered(source * mid, opened) + filtered(source * late, rounded)

    return meow


def _rooster(rng: np.random.Generator) -> Voice:
    pitch, rough = log_uniform(rng, 550, 950), uniform(rng, 0.05, 0.3)
    bends = [uniform(rng, 0.85, 1.0), uniform(rng, 1.0, 1.2), uniform(rng, 1.05, 1.3), uniform(rng, 1.1, 1.35)]
    shares = np.array([0.16, 0.14, uniform(rng, 0.16, 0.26), uniform(rng, 0.45, 0.7)])
    shares /= shares.sum()
    beak = resonances([1200, 2400, 3600], [350, 500, 700], [0.9, 1.0, 0.5], floor=0.08)

    def crow(seconds: float) -> Samples:
        out = np.zeros(int(seconds * RATE), np.float32)
        start = 0.0
        for i, (share, bend) in enumerate(zip(shares, bends, strict=True)):
            n = int(seconds * share * 0.94 * RATE)
            top = pitch * bend
            fall = uniform(rng, 0.55, 0.8) if i == 3 else 0.9
            f0 = track(n, (0, top * 0.75), (0.2, top), (0.6, top * 0.97), (1, top * fall))
            f0 *= 1 + np.float32(0.01) * wander(rng, n, 40)
            syllable = harmonics(rng, f0, decay=0.55) + rough * noise(rng, n)
            add(out, start, syllable * fade(n, 0.025, 0.3 * n / RATE), 1.0 if i > 1 else 0.7)
            start += seconds * share
        return filtered(out, beak)

    return crow


def _motif(rng: np.random.Generator) -> list[Samples]:
    """The notes of one bird's song, each (n,)."""
    center = log_uniform(rng, 2200, 5500)
    trill = chance(rng, 0.35)
    notes = []
    for _ in range(int(rng.integers(1, 4))):
        n = int(uniform(rng, 0.03, 0.09 if trill else 0.22) * RATE)
        low, high = center * log_uniform(rng, 0.75, 1.1), center * log_uniform(rng, 0.9, 1.35)
        f0 = track(n, (0, low), (uniform(rng, 0.2, 0.8), high), (1, low * uniform(rng, 0.85, 1.15)))
        if chance(rng, 0.3):
            f0 = f0 * (1 + 0.05 * np.sin(2 * np.pi * uniform(rng, 25, 60) * seconds_of(n)))
        note = tone(np.minimum(f0, 7700).astype(np.float32)) * fade(n, 0.3 * n / RATE, 0.4 * n / RATE)
        notes += [note] * (int(rng.integers(3, 10)) if trill else 1)
    return notes


def _birds(rng: np.random.Generator, n: int) -> Samples:
    out = np.zeros(n, np.float32)
    for bird in range(int(rng.integers(1, 5))):
        notes, gain = _motif(rng), 1.0 if bird == 0 else log_uniform(rng, 0.15, 0.8)
        gap, pause = uniform(rng, 0.02, 0.1), log_uniform(rng, 0.15, 1.2)
        at = uniform(rng, 0, 0.05 if bird == 0 else 1.0)
        while at < n / RATE:
            for note in notes:
                add(out, at, note, gain * uniform(rng, 0.7, 1.0))
                at += len(note) / RATE + gap
            at += pause * uniform(rng, 0.5, 1.6)
    return out + log_uniform(rng, 0.001, 0.01) * noise(rng, n, band(300, 4000))


def _chirper(rng: np.random.Generator, n: int) -> Samples:
    """One cricket: pulses at 18-45 a second in chirps of two to six, or an endless trill."""
    t = seconds_of(n)
    pulse_rate, carrier = uniform(rng, 18, 45), log_uniform(rng, 2800, 6200)
    if chance(rng, 0.65):
        per_chirp = int(rng.integers(2, 7))
        period = per_chirp / pulse_rate + uniform(rng, 0.1, 0.5)
        t = (t + np.float32(uniform(rng, 0, period))) % np.float32(period)
        t = np.where(t * pulse_rate < per_chirp, t, 0)
    pulses = np.abs(np.sin(np.pi * pulse_rate * t)) ** np.float32(1.5)
    wobble = 1 + np.float32(0.004) * wander(rng, n, 8)
    return (pulses * tone((carrier * wobble).astype(np.float32))).astype(np.float32)


def _crickets(rng: np.random.Generator, n: int) -> Samples:
    out = np.zeros(n, np.float32)
    if chance(rng, 0.25):  # cicadas: a buzzing band of noise
        low = log_uniform(rng, 2800, 4500)
        buzz = 1 + uniform(rng, 0.3, 0.9) * np.sin(2 * np.pi * uniform(rng, 60, 180) * seconds_of(n))
        out += noise(rng, n, band(low, low * 1.4, 8)) * buzz * (1 + 0.2 * wander(rng, n, 2)) * 0.4
    for i in range(int(rng.integers(1, 4))):
        out += _chirper(rng, n) * (1.0 if i == 0 else log_uniform(rng, 0.1, 0.7))
    return out + log_uniform(rng, 0.002, 0.02) * noise(rng, n, band(2500, 6000))


def _frog(rng: np.random.Generator) -> Voice:
    rate, center = log_uniform(rng, 28, 110), log_uniform(rng, 350, 1500)
    bend, rough = uniform(rng, 0.7, 1.5), uniform(rng, 0.02, 0.15)
    throat = resonances([center, center * uniform(rng, 1.8, 2.4), 3000], [center / 5, 300, 600], [1.0, 0.6, 0.15])

    def croak(seconds: float) -> Samples:
        n = int(seconds * RATE)
        f0 = track(n, (0, rate), (1, rate * bend)) * (1 + np.float32(0.03) * wander(rng, n, 30))
        source = harmonics(rng, f0, decay=0.1) + rough * noise(rng, n)
        rise = uniform(rng, 0.3, 0.7)
        shape = track(n, (0, 0.1), (rise, 1), (0.9, 0.7), (1, 0)) * fade(n, 0.01, 0.03)
        return filtered(source, throat) * shape

    return croak


def _owl(rng: np.random.Generator) -> Voice:
    pitch, second, breath = log_uniform(rng, 260, 620), uniform(rng, 0.03, 0.3), uniform(rng, 0.003, 0.03)
    arch = uniform(rng, 1.02, 1.18)

    def hoot(seconds: float) -> Samples:
        n = int(seconds * RATE)
        p = pitch * uniform(rng, 0.97, 1.03)
        f0 = track(n, (0, p * 0.93), (0.3, p * arch), (0.7, p * arch), (1, p * 0.9))
        if chance(rng, 0.2):
            f0 = (f0 * (1 + 0.02 * np.sin(2 * np.pi * uniform(rng, 5, 9) * seconds_of(n)))).astype(np.float32)
        voice = tone(f0) + second * tone(2 * f0) + 0.4 * second * tone(3 * f0)
        voice += breath * noise(rng, n, band(200, 1500))
        return voice * fade(n, 0.25 * seconds, 0.4 * seconds) * die(n, 4.0)

    return hoot


GENERATORS: dict[str, Countable | Texture] = {
    "dog": Countable(_dog, (0.14, 0.38), (0.15, 0.8)),
    "cat": Countable(_cat, (0.4, 1.1), (0.25, 0.9)),
    "rooster": Countable(_rooster, (1.0, 2.0), (0.35, 0.9)),
    "chirping_birds": Texture(_birds),
    "crickets": Texture(_crickets),
    "frog": Countable(_frog, (0.2, 0.7), (0.2, 0.8)),
    "owl": Countable(_owl, (0.3, 0.8), (0.2, 0.8)),
}
