"""Procedural people: a crying baby, sneezes, snores, applause, footsteps."""

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
    grains,
    harmonics,
    log_uniform,
    low_pass,
    noise,
    resonances,
    ring,
    seconds_of,
    track,
    uniform,
    wander,
)


def _baby(rng: np.random.Generator) -> Voice:
    pitch, size = log_uniform(rng, 330, 600), log_uniform(rng, 0.9, 1.15)
    vibrato, rough = uniform(rng, 0.0, 0.025), uniform(rng, 0.01, 0.12)
    mouth = resonances(
        [1050 * size, 1900 * size, 3300 * size, 4700], [180, 260, 400, 600], [1.0, 0.7, 0.6, 0.3], floor=0.05
    )

    def cry(seconds: float) -> Samples:
        n = int(seconds * RATE)
        p = pitch * uniform(rng, 0.92, 1.1)
        f0 = track(n, (0, p * 0.8), (0.15, p * 1.12), (0.6, p * 1.05), (1, p * uniform(rng, 0.65, 0.85)))
        shake = vibrato * np.sin(2 * np.pi * uniform(rng, 5, 9) * seconds_of(n)) + 0.012 * wander(rng, n, 30)
        source = harmonics(rng, (f0 * (1 + shake)).astype(np.float32), decay=0.65) + rough * noise(rng, n)
        return filtered(source * fade(n, 0.08, 0.3 * seconds) * (1 + 0.12 * wander(rng, n, 12)), mouth)

    return cry


def _sneeze(rng: np.random.Generator) -> Voice:
    pitch, voiced, hiss = log_uniform(rng, 130, 420), uniform(rng, 0.2, 1.2), log_uniform(rng, 2200, 4800)
    inhale = uniform(rng, 0.2, 0.45) if chance(rng, 0.6) else 0.0
    mouth = resonances([550, 1150, 2600], [140, 200, 350], [1.0, 0.6, 0.3], floor=0.03)

    def sneeze(seconds: float) -> Samples:
        n = int(seconds * RATE)
        out = np.zeros(n, np.float32)
        at = inhale * seconds
        if inhale:
            m = int(at * 0.85 * RATE)
            breath = noise(rng, m, band(600, 3000)) * 0.12 + 0.15 * voiced * harmonics(
                rng, track(m, (0, pitch), (1, pitch * 1.4)), decay=1.2
            )
            add(out, 0, filtered(breath * track(m, (0, 0), (0.8, 1), (1, 0)), mouth), 0.8)
        m = n - int(at * RATE)
        burst = noise(rng, m, band(hiss * 0.6, hiss * 1.6, 3)) * track(m, (0, 0), (0.04, 1), (0.3, 0.3), (1, 0))
        f0 = track(m, (0, pitch * 1.5), (0.25, pitch * 1.7), (1, pitch * 0.8))
        vowel = harmonics(rng, f0, decay=0.7) + 0.3 * noise(rng, m)
        vowel = filtered(vowel * track(m, (0, 0), (0.15, 0.2), (0.3, 1), (0.7, 0.3), (1, 0)), mouth)
        add(out, at, burst * 0.6 + vowel * voiced)
        return out

    return sneeze


def _snore(rng: np.random.Generator) -> Voice:
    rate, breath = log_uniform(rng, 24, 75), uniform(rng, 0.2, 0.9)
    nose = chain(
        resonances(
            [log_uniform(rng, 180, 420), log_uniform(rng, 600, 1300), log_uniform(rng, 1800, 2800)],
            [110, 250, 500],
            [1.0, uniform(rng, 0.2, 0.8), uniform(rng, 0.05, 0.3)],
            floor=0.02,
        ),
        low_pass(log_uniform(rng, 1500, 5000)),
    )

    def snore(seconds: float) -> Samples:
        n = int(seconds * RATE)
        f0 = track(n, (0, rate * 0.8), (0.6, rate * 1.15), (1, rate * 0.9)) * (1 + 0.08 * wander(rng, n, 18))
        flutter = harmonics(rng, f0.astype(np.float32), decay=0.25)
        hiss = noise(rng, n) * (0.35 + np.maximum(0, flutter)) * breath
        shape = track(n, (0, 0.05), (uniform(rng, 0.4, 0.8), 1), (1, 0)) * fade(n, 0.08, 0.1)
        return filtered((flutter + hiss) * shape * (1 + 0.15 * wander(rng, n, 10)), nose)

    return snore


def _applause(rng: np.random.Generator, n: int) -> Samples:
    crowd = log_uniform(rng, 25, 500)
    claps = np.zeros(n, np.float32)
    for _ in range(3):
        center = log_uniform(rng, 700, 2600)
        claps += grains(rng, n, crowd / 3, center * 0.9, center * 1.1, q=1.6, kinds=1, spread=0.6)
    claps /= np.float32(np.sqrt(np.mean(claps * claps)) + 1e-9)
    hiss = noise(rng, n, band(700, 3500)) * min(0.8, crowd / 500)
    swell = 1 + np.float32(0.15) * wander(rng, n, 1.5)
    return filtered(claps + hiss, low_pass(log_uniform(rng, 3000, 7500))) * swell


def _steps(rng: np.random.Generator) -> Voice:
    surface = int(rng.integers(0, 4))  # wood, stone, gravel, carpet
    thud, click = log_uniform(rng, 70, 190), log_uniform(rng, 1200, 4000)
    gap, loud = uniform(rng, 0.05, 0.11), (0.3, 1.0, 0.15, 0.05)[surface]
    wood = [log_uniform(rng, 180, 900) for _ in range(3)]

    def part(seconds: float) -> Samples:
        n = int(seconds * RATE)
        body = ring(rng, n, [thud * uniform(rng, 0.9, 1.1)], [0.09], [1.0])
        if surface == 0:
            body += ring(rng, n, wood, [0.12] * 3, [0.5, 0.4, 0.3])
        if surface == 2:
            body += 0.7 * grains(rng, n, 900, 1500, 6000, q=3) * track(n, (0, 0.4), (0.3, 1), (1, 0))
        hit = noise(rng, n, band(click * 0.7, click * 1.5)) * die(n, uniform(rng, 0.02, 0.05)) * loud
        dull = noise(rng, n, band(150, 900)) * die(n, 0.06) * 0.35
        return (body + hit + dull) * fade(n, 0.001, 0.3 * seconds)

    def step(seconds: float) -> Samples:
        out = np.zeros(int(seconds * RATE), np.float32)
        add(out, 0, part(seconds))
        add(out, min(gap, seconds * 0.5), part(seconds * 0.5), uniform(rng, 0.15, 0.4))
        return out

    return step


GENERATORS: dict[str, Countable | Texture] = {
    "crying_baby": Countable(_baby, (0.5, 1.4), (0.25, 0.7)),
    "sneezing": Countable(_sneeze, (0.4, 0.95), (0.4, 1.2)),
    "snoring": Countable(_snore, (0.6, 1.5), (0.35, 1.2)),
    "applause": Texture(_applause),
    "footsteps": Countable(_steps, (0.16, 0.28), (0.25, 0.55), steady=True),
}
