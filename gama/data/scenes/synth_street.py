"""Procedural sounds of the street: siren, car horn, church bells, whistle, gunshot."""

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
    chain,
    chance,
    die,
    fade,
    filtered,
    harmonics,
    log_uniform,
    low_pass,
    noise,
    resonances,
    reverberate,
    ring,
    room,
    seconds_of,
    tone,
    track,
    uniform,
    wander,
)


def _siren(rng: np.random.Generator, n: int) -> Samples:
    kind = int(rng.integers(0, 3))  # wail, yelp, two tones
    t = seconds_of(n)
    low = log_uniform(rng, 400, 750)
    high = low * uniform(rng, 1.25, 1.5) if kind == 2 else low * uniform(rng, 1.7, 2.6)
    rate = (uniform(rng, 0.12, 0.45), uniform(rng, 2.0, 5.0), uniform(rng, 0.5, 1.2))[kind]
    turn = (t * np.float32(rate) + np.float32(rng.random())) % 1
    if kind == 2:
        f0 = np.where(turn < 0.5, low, high)
    else:
        rise = uniform(rng, 0.35, 0.7)
        f0 = low * (high / low) ** np.interp(turn, (0, rise, 1), (0, 1, 0))
    pass_by = 1 + uniform(rng, 0, 0.06) * np.tanh((n / RATE * uniform(rng, 0.3, 0.7) - t) / 1.5)
    horn = chain(
        resonances([log_uniform(rng, 700, 1300), log_uniform(rng, 1800, 3200)], [500, 900], [1.0, 0.7], floor=0.15),
        low_pass(log_uniform(rng, 1500, 6000)),
    )
    voice = harmonics(rng, (f0 * pass_by).astype(np.float32), decay=uniform(rng, 0.5, 1.3))
    swell = np.exp(np.float32(0.15) * wander(rng, n, 0.4))
    return filtered(voice, horn) * swell + log_uniform(rng, 0.002, 0.03) * noise(rng, n, band(100, 1500))


def _horn(rng: np.random.Generator) -> Voice:
    low = log_uniform(rng, 300, 520)
    pitches = [low] if chance(rng, 0.2) else [low, low * uniform(rng, 1.18, 1.28)]
    decay = uniform(rng, 0.35, 0.8)
    bell = resonances([log_uniform(rng, 900, 1600), log_uniform(rng, 2200, 3400)], [500, 800], [1.0, 0.8], floor=0.2)

    def honk(seconds: float) -> Samples:
        n = int(seconds * RATE)
        rise = track(n, (0, 0.94), (min(0.3, 0.03 / seconds), 1), (0.95, 1), (1, 0.98))
        voice = sum((harmonics(rng, p * rise, decay=decay) for p in pitches), np.zeros(n, np.float32))
        return filtered(voice * fade(n, 0.012, 0.05), bell)

    return honk


_PARTIALS = (0.5, 1.0, 1.19, 1.5, 2.0, 2.52, 2.66, 3.0, 4.05, 5.3)
_AMPS = (0.5, 0.7, 0.6, 0.3, 1.0, 0.3, 0.3, 0.4, 0.3, 0.15)


def _bells(rng: np.random.Generator) -> Voice:
    strike, long = log_uniform(rng, 180, 750), uniform(rng, 1.2, 3.5)
    freqs = [strike * p * uniform(rng, 0.995, 1.005) for p in _PARTIALS]
    t60s = [long * 1.6 / p**0.6 for p in _PARTIALS]
    amps = [a * log_uniform(rng, 0.5, 1.5) for a in _AMPS]
    peal = chance(rng, 0.25)

    def toll(seconds: float) -> Samples:
        n = int(seconds * RATE)
        shift = 2 ** (int(rng.choice((0, 2, 4, 7))) / 12) if peal else 1.0
        body = ring(rng, n, [f * shift for f in freqs], t60s, amps)
        clap = noise(rng, n, band(1200, 5000)) * die(n, 0.05) * 0.2
        return (body + clap) * fade(n, 0.002, 0.35 * seconds)

    return toll


def _whistle(rng: np.random.Generator) -> Voice:
    if chance(rng, 0.7):  # a pea whistle: two close tones that flutter
        pitch, flutter = log_uniform(rng, 2200, 3800), uniform(rng, 22, 55)
        depth, hiss = uniform(rng, 0.01, 0.04), uniform(rng, 0.03, 0.2)
    else:  # lips: a pure tone that glides
        pitch, flutter, depth, hiss = log_uniform(rng, 1000, 2400), uniform(rng, 4, 7), 0.006, uniform(rng, 0.01, 0.06)
    glide = uniform(rng, 0.9, 1.12) if pitch < 2200 else 1.0

    def blow(seconds: float) -> Samples:
        n = int(seconds * RATE)
        beat = np.sin(2 * np.pi * flutter * seconds_of(n))
        f0 = track(n, (0, pitch * 0.96), (0.06, pitch), (0.8, pitch * glide), (1, pitch * glide * 0.97))
        voice = tone((f0 * (1 + depth * beat)).astype(np.float32)) * (1 + 8 * depth * beat)
        voice = voice + hiss * noise(rng, n, band(pitch * 0.8, pitch * 1.3, 4))
        return (voice * fade(n, 0.02, 0.04)).astype(np.float32)

    return blow


def _gunshot(rng: np.random.Generator) -> Voice:
    boom, crack = log_uniform(rng, 60, 200), log_uniform(rng, 1200, 6000)
    tail, wet = uniform(rng, 0.25, 1.0), uniform(rng, 0.5, 2.0)
    place = room(rng, tail)

    def shot(seconds: float) -> Samples:
        n = int(seconds * RATE)
        m = min(n, int(0.18 * RATE))
        blast = noise(rng, m, low_pass(crack)) * die(m, uniform(rng, 0.05, 0.14), attack=0.0004)
        blast += 0.8 * ring(rng, m, [boom, boom * 2.3], [0.14, 0.08], [1.0, 0.4])
        out = np.zeros(n, np.float32)
        add(out, 0, reverberate(np.tanh(1.5 * blast).astype(np.float32), place, wet))
        return out * fade(n, 0.0004, 0.3 * seconds)

    return shot


GENERATORS: dict[str, Countable | Texture] = {
    "siren": Texture(_siren),
    "car_horn": Countable(_horn, (0.15, 1.0), (0.12, 0.6)),
    "church_bells": Countable(_bells, (1.2, 2.4), (-0.5, 0.3), steady=True),
    "whistle": Countable(_whistle, (0.25, 1.0), (0.2, 0.7)),
    "gunshot": Countable(_gunshot, (0.3, 0.9), (0.1, 0.8)),
}
