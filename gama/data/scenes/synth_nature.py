"""Procedural weather and nature: rain, wind, sea waves, thunder, fire."""

from __future__ import annotations

import numpy as np

from gama.data.scenes.synth_blocks import (
    RATE,
    Countable,
    Samples,
    Texture,
    add,
    band,
    chance,
    die,
    filtered,
    grains,
    log_uniform,
    low_pass,
    noise,
    seconds_of,
    uniform,
    wander,
)


def _rms(x: Samples) -> Samples:
    return (x / np.float32(np.sqrt(np.mean(x * x)) + 1e-9)).astype(np.float32)


def _rain(rng: np.random.Generator, n: int) -> Samples:
    hiss = noise(rng, n, band(log_uniform(rng, 300, 2500), 7000, uniform(rng, 0.8, 2.0)))
    low = log_uniform(rng, 700, 2500)
    drops = _rms(grains(rng, n, log_uniform(rng, 60, 900), low, low * uniform(rng, 1.5, 3), q=5, spread=0.8))
    out = hiss * (1 + 0.05 * wander(rng, n, 1.0)) + log_uniform(rng, 0.1, 1.0) * drops
    if chance(rng, 0.3):  # heavy rain on the ground
        out += uniform(rng, 0.2, 0.8) * noise(rng, n, band(150, 600))
    return filtered(out.astype(np.float32), low_pass(log_uniform(rng, 3500, 8000)))


def _wind(rng: np.random.Generator, n: int) -> Samples:
    gust = np.exp(uniform(rng, 0.45, 0.85) * wander(rng, n, uniform(rng, 0.6, 1.6)))
    center = log_uniform(rng, 120, 450)
    out = noise(rng, n, band(40, center)) * gust
    out += log_uniform(rng, 0.2, 0.8) * noise(rng, n, band(center, center * 2.5)) * gust**2
    if chance(rng, 0.6):  # it whistles round a corner: a narrow band that climbs with the gust
        howl = log_uniform(rng, 350, 900)
        for step, f in enumerate((howl, howl * 1.25, howl * 1.5)):
            weight = np.exp(-2 * (np.log(gust) * 2.5 - step + 1) ** 2)
            out += uniform(rng, 0.2, 0.7) * noise(rng, n, band(f * 0.93, f * 1.07, 12)) * weight
    return out.astype(np.float32)


def _wave(rng: np.random.Generator, seconds: float, hiss: float) -> Samples:
    """One breaker: it swells, breaks and runs back."""
    n = int(seconds * RATE)
    crest = uniform(rng, 0.3, 0.5)
    x = np.linspace(0, 1, n)
    swell = np.interp(x, (0, crest * 0.6, crest, 0.7, 1), (0, 0.35, 1, 0.4, 0)) ** 1.2
    foam = np.interp(x, (0, crest * 0.85, crest * 1.1, 0.8, 1), (0, 0.05, 1, 0.35, 0)) ** 1.3
    body = noise(rng, n, band(80, 700)) * swell + hiss * noise(rng, n, band(900, 6000, 1.2)) * foam
    return body.astype(np.float32)


def _waves(rng: np.random.Generator, n: int) -> Samples:
    out = uniform(rng, 0.05, 0.25) * noise(rng, n, band(100, log_uniform(rng, 1000, 4000)))
    period, hiss = uniform(rng, 2.5, 6.5), log_uniform(rng, 0.3, 1.3)
    at = -uniform(rng, 0.0, 0.6) * period
    while at < n / RATE:
        wave = _wave(rng, period * uniform(rng, 1.0, 1.5), hiss)
        skip = max(0, int(-at * RATE))
        add(out, max(0.0, at), wave[skip:], uniform(rng, 0.5, 1.0))
        at += period * uniform(rng, 0.7, 1.3)
    return out


def _thunder(rng: np.random.Generator, n: int) -> Samples:
    t = seconds_of(n)
    shape = np.full(n, log_uniform(rng, 0.01, 0.06), np.float32)
    start = uniform(rng, 0.0, 0.15) * n / RATE
    for i in range(int(rng.integers(3, 9))):  # peals that roll after one another
        at = start + (0 if i == 0 else log_uniform(rng, 0.1, 1.0) * 0.75 * n / RATE)
        rise, fall = uniform(rng, 0.02, 0.25), uniform(rng, 0.3, 1.5)
        after = np.maximum(0, t - np.float32(at))
        peal = np.where(t > at, (1 - np.exp(-after / rise)) * np.exp(-after / fall), 0)
        shape += peal.astype(np.float32) * (1.0 if i == 0 else uniform(rng, 0.2, 0.9))
    shape = shape * np.exp(np.float32(0.3) * wander(rng, n, 9))
    out = noise(rng, n, band(30, log_uniform(rng, 90, 260))) * shape
    out += log_uniform(rng, 0.05, 0.4) * noise(rng, n, band(150, 900)) * shape**2
    if chance(rng, 0.5):  # a near stroke cracks first
        m = min(n, int(0.7 * RATE))
        crack = noise(rng, m, band(200, 5000, 1.0)) * die(m, uniform(rng, 0.25, 0.7), attack=0.004)
        add(out, start, crack * np.exp(np.float32(0.7) * wander(rng, m, 40)), uniform(rng, 0.3, 1.5))
    if chance(rng, 0.35):
        out += log_uniform(rng, 0.02, 0.15) * _rain(rng, n)
    return out.astype(np.float32)


def _fire(rng: np.random.Generator, n: int) -> Samples:
    rate = log_uniform(rng, 5, 45)
    crackle = grains(rng, n, rate, 900, 6000, q=uniform(rng, 1.5, 4), kinds=4, spread=1.1)
    crackle *= np.exp(np.float32(0.5) * wander(rng, n, 2))
    tiny = _rms(grains(rng, n, rate * 6, 2000, 7000, q=2, kinds=2, spread=0.6))
    roar = noise(rng, n, band(50, log_uniform(rng, 200, 500))) * (1 + 0.3 * wander(rng, n, 4))
    hiss = noise(rng, n, band(1000, 6000))
    mix = crackle / (np.abs(crackle).max() + 1e-9) + log_uniform(rng, 0.01, 0.05) * tiny
    return (mix + log_uniform(rng, 0.01, 0.08) * roar + log_uniform(rng, 0.003, 0.02) * hiss).astype(np.float32)


GENERATORS: dict[str, Countable | Texture] = {
    "rain": Texture(_rain),
    "wind": Texture(_wind),
    "sea_waves": Texture(_waves),
    "thunderstorm": Texture(_thunder),
    "crackling_fire": Texture(_fire),
}
