"""Procedural machines: engine, helicopter, airplane, chainsaw, train."""

from __future__ import annotations

import numpy as np

from gama.data.scenes.synth_blocks import (
    RATE,
    Countable,
    Samples,
    Texture,
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
    ring,
    tone,
    track,
    uniform,
    wander,
)


def _engine(rng: np.random.Generator, n: int) -> Samples:
    idle = log_uniform(rng, 18, 60)
    revs = np.full(n, idle, np.float32)
    if chance(rng, 0.45):
        top = idle * uniform(rng, 1.4, 2.8)
        a, b = sorted((uniform(rng, 0.1, 0.9), uniform(rng, 0.1, 0.9)))
        revs = track(n, (0, idle), (a, top), (b, top * 0.95), (1, idle * uniform(rng, 1.0, 1.5)))
    revs = revs * (1 + np.float32(0.015) * wander(rng, n, 12))
    fire = harmonics(rng, revs, decay=uniform(rng, 0.25, 0.7))
    shake = 1 + uniform(rng, 0.1, 0.5) * tone(revs / np.float32(rng.choice((2, 4))))
    hiss = noise(rng, n, band(200, 2500)) * (0.3 + np.maximum(0, fire)) * log_uniform(rng, 0.05, 0.4)
    body = chain(
        resonances(
            [log_uniform(rng, 60, 120), log_uniform(rng, 180, 350), log_uniform(rng, 500, 1100)],
            [60, 120, 400],
            [1.0, 0.9, uniform(rng, 0.2, 0.7)],
            floor=0.05,
        ),
        low_pass(log_uniform(rng, 1200, 5000)),
    )
    return filtered((fire * shake + hiss).astype(np.float32), body)


def _helicopter(rng: np.random.Generator, n: int) -> Samples:
    rate, sharp = log_uniform(rng, 9, 24), uniform(rng, 2.0, 7.0)
    turns = rate * (1 + np.float32(0.01) * wander(rng, n, 1))
    blade = (0.5 + 0.5 * tone(turns.astype(np.float32))) ** np.float32(sharp)
    thump = harmonics(rng, turns.astype(np.float32), decay=0.35)
    thump = filtered(thump, resonances([log_uniform(rng, 50, 110), log_uniform(rng, 150, 400)], [60, 200], [1.0, 0.6]))
    chop = noise(rng, n, band(log_uniform(rng, 60, 250), log_uniform(rng, 500, 2200))) * (0.12 + blade)
    whine = tone((log_uniform(rng, 700, 2500) * (1 + 0.002 * wander(rng, n, 2))).astype(np.float32))
    mix = thump * 1.5 / (np.abs(thump).max() + 1e-9) + chop * 0.5 + log_uniform(rng, 0.005, 0.08) * whine
    mix += log_uniform(rng, 0.02, 0.12) * noise(rng, n, band(200, 1500))
    swell = np.exp(np.float32(0.2) * wander(rng, n, 0.3))
    return filtered(mix * swell, low_pass(log_uniform(rng, 1000, 6000)))


def _airplane(rng: np.random.Generator, n: int) -> Samples:
    t = np.linspace(-1, 1, n, dtype=np.float32) + np.float32(uniform(rng, -0.4, 0.4))
    near = 1 / (1 + (t / uniform(rng, 0.5, 1.2)) ** 2)  # closest in the middle of the pass
    shift = (1 - 0.12 * np.tanh(2 * t)).astype(np.float32)
    rumble = noise(rng, n, band(60, log_uniform(rng, 250, 600))) * np.sqrt(near)
    roar = noise(rng, n, band(200, log_uniform(rng, 900, 2500))) * near
    out = rumble + log_uniform(rng, 0.3, 1.2) * roar
    if chance(rng, 0.4):  # propellers
        drone = harmonics(rng, log_uniform(rng, 60, 130) * shift, decay=0.8)
        out += log_uniform(rng, 0.5, 2.0) * drone * near
    else:
        whine = tone(log_uniform(rng, 1500, 3500) * shift) + 0.5 * tone(log_uniform(rng, 800, 1600) * shift)
        out += log_uniform(rng, 0.1, 0.5) * whine * near**2
    return out.astype(np.float32)


def _chainsaw(rng: np.random.Generator, n: int) -> Samples:
    idle = log_uniform(rng, 45, 80)
    full = idle * uniform(rng, 1.9, 2.8)
    turns = max(2, int(n / RATE * uniform(rng, 0.3, 1.2)) + 2)
    throttle = np.clip(rng.uniform(-0.4, 1.4, turns), 0, 1)
    opened = np.interp(np.linspace(0, turns - 1, n), np.arange(turns), throttle).astype(np.float32)
    revs = (idle + (full - idle) * opened) * (1 + np.float32(0.012) * wander(rng, n, 25))
    buzz = harmonics(rng, revs.astype(np.float32), decay=uniform(rng, 0.05, 0.35))
    teeth = noise(rng, n, band(1500, 6000)) * (0.2 + np.abs(buzz)) * (0.2 + opened) * log_uniform(rng, 0.1, 0.4)
    body = resonances(
        [log_uniform(rng, 250, 500), log_uniform(rng, 900, 1700), log_uniform(rng, 2500, 4200)],
        [200, 500, 900],
        [0.8, 1.0, uniform(rng, 0.4, 1.0)],
        floor=0.1,
    )
    return filtered(((buzz + teeth) * (0.45 + 0.55 * opened)).astype(np.float32), body)


def _clack(rng: np.random.Generator) -> Samples:
    n = int(0.16 * RATE)
    modes = [log_uniform(rng, 90, 220), log_uniform(rng, 300, 700), log_uniform(rng, 900, 2200)]
    body = ring(rng, n, modes, [0.12, 0.09, 0.06], [1.0, 0.6, 0.4])
    return (body + noise(rng, n, band(300, 3000)) * die(n, 0.05) * 0.4) * fade(n, 0.001, 0.03)


def _train(rng: np.random.Generator, n: int) -> Samples:
    rate, axle = uniform(rng, 0.9, 2.6), uniform(rng, 0.12, 0.2)
    out = 0.5 * noise(rng, n, band(50, log_uniform(rng, 250, 700))) * (1 + 0.15 * wander(rng, n, 2))
    out += 0.12 * noise(rng, n, band(500, 3500)) * (1 + 0.25 * wander(rng, n, 3))
    hit, loud, at = _clack(rng), uniform(rng, 1.5, 4.0), uniform(rng, 0, 0.3)
    while at < n / RATE:
        for pair in (0.0, axle):
            add(out, at + pair, hit, loud * uniform(rng, 0.7, 1.0))
        at += 1 / rate * uniform(rng, 0.95, 1.05)
    if chance(rng, 0.3):
        squeal = tone((log_uniform(rng, 2200, 4500) * (1 + 0.01 * wander(rng, n, 6))).astype(np.float32))
        out += uniform(rng, 0.05, 0.25) * squeal * np.maximum(0, wander(rng, n, 0.8))
    if chance(rng, 0.25):
        _blow(rng, out)
    return filtered(out, low_pass(log_uniform(rng, 1800, 6500)))


def _blow(rng: np.random.Generator, out: Samples) -> None:
    """Adds the chord of a locomotive's horn."""
    seconds = min(uniform(rng, 0.6, 1.6), len(out) / RATE)
    m, root = int(seconds * RATE), log_uniform(rng, 230, 380)
    chord = sum(
        (harmonics(rng, np.full(m, root * r, np.float32), decay=0.7) for r in (1.0, 1.26, 1.5)),
        np.zeros(m, np.float32),
    )
    add(out, uniform(rng, 0, len(out) / RATE - seconds), chord * fade(m, 0.08, 0.15), uniform(rng, 0.6, 1.5))


GENERATORS: dict[str, Countable | Texture] = {
    "engine": Texture(_engine),
    "helicopter": Texture(_helicopter),
    "airplane": Texture(_airplane),
    "chainsaw": Texture(_chainsaw),
    "train": Texture(_train),
}
