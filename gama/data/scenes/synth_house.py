"""Procedural sounds of the house: clock, knocks, typing, glass, telephone, alarm, drops, piano."""

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
    convolved,
    die,
    fade,
    filtered,
    harmonics,
    log_uniform,
    low_pass,
    noise,
    resonances,
    ring,
    seconds_of,
    tone,
    track,
    uniform,
)


def _clock(rng: np.random.Generator) -> Voice:
    modes = [log_uniform(rng, 900, 6500) for _ in range(4)]
    t60s = [log_uniform(rng, 0.012, 0.05) for _ in modes]
    amps = [log_uniform(rng, 0.3, 1.0) for _ in modes]
    tock, case = uniform(rng, 0.8, 1.0), log_uniform(rng, 200, 700)
    side = [False]

    def tick(seconds: float) -> Samples:
        n = int(seconds * RATE)
        side[0] = not side[0]
        bend = tock if side[0] else 1.0
        body = ring(rng, n, [f * bend for f in modes], t60s, amps)
        body += 0.3 * ring(rng, n, [case * bend], [0.04], [1.0])
        return (body + 0.5 * noise(rng, n) * die(n, 0.006)) * fade(n, 0.0005, 0.3 * seconds)

    return tick


def _knock(rng: np.random.Generator) -> Voice:
    base, hard = log_uniform(rng, 110, 320), log_uniform(rng, 0.1, 0.7)
    modes = [base * r for r in (1.0, uniform(rng, 1.5, 1.9), uniform(rng, 2.3, 3.0), uniform(rng, 3.6, 5.0))]
    t60s = [log_uniform(rng, 0.06, 0.2) for _ in modes]

    def knock(seconds: float) -> Samples:
        n = int(seconds * RATE)
        body = ring(rng, n, modes, t60s, [1.0, 0.7, 0.5, 0.3])
        return (body + hard * noise(rng, n, band(500, 3500)) * die(n, 0.02)) * fade(n, 0.0005, 0.4 * seconds)

    return knock


def _key(rng: np.random.Generator, low: float, click: float) -> Samples:
    n = int(0.06 * RATE)
    body = ring(rng, n, [low * uniform(rng, 0.9, 1.1)], [0.03], [0.5])
    return body + noise(rng, n, band(click * 0.7, click * 1.6)) * die(n, uniform(rng, 0.008, 0.02))


def _typing(rng: np.random.Generator, n: int) -> Samples:
    low, click, rate = log_uniform(rng, 150, 500), log_uniform(rng, 1500, 5000), uniform(rng, 5, 11)
    keys = [_key(rng, low * uniform(rng, 0.8, 1.2), click * uniform(rng, 0.85, 1.2)) for _ in range(6)]
    out = np.zeros(n, np.float32)
    at, space = uniform(rng, 0.0, 0.04), _key(rng, low * 0.6, click * 0.6)
    while at < n / RATE:
        word = int(rng.integers(2, 9))
        for _ in range(word):
            down, up = keys[int(rng.integers(6))], keys[int(rng.integers(6))]
            add(out, at, down, uniform(rng, 0.5, 1.0))
            add(out, at + uniform(rng, 0.06, 0.11), up, uniform(rng, 0.12, 0.35))
            at += uniform(rng, 0.6, 1.5) / rate
        add(out, at, space, uniform(rng, 0.6, 1.0))
        at += uniform(rng, 0.8, 3.0) / rate
    return filtered(out, low_pass(log_uniform(rng, 3500, 7500)))


def _glass(rng: np.random.Generator) -> Voice:
    low, thump = log_uniform(rng, 1500, 3000), uniform(rng, 0.1, 0.7)

    def crash(seconds: float) -> Samples:
        n = int(seconds * RATE)
        out = noise(rng, n, band(low, 7500)) * die(n, uniform(rng, 0.12, 0.35)) * 1.2
        out += thump * ring(rng, n, [log_uniform(rng, 150, 600)], [0.08], [1.5])
        for _ in range(int(rng.integers(18, 45))):  # shards, denser at the start
            at = seconds * 0.75 * float(rng.random()) ** 2
            m = int(min(uniform(rng, 0.05, 0.3), seconds - at) * RATE)
            f = log_uniform(rng, low, 7400)
            tones = [f, f * uniform(rng, 1.2, 1.6), f * uniform(rng, 1.8, 2.4)]
            shard = ring(rng, m, tones, [uniform(rng, 0.04, 0.25)] * 3, [1.0, 0.7, 0.4])
            add(out, at, shard * fade(m, 0.0005, 0.01), log_uniform(rng, 0.1, 0.7) * (1 - 0.7 * at / seconds))
        return out * fade(n, 0.0005, 0.25 * seconds)

    return crash


def _bell_phone(rng: np.random.Generator) -> Voice:
    bells = [log_uniform(rng, 900, 1900)]
    bells.append(bells[0] * uniform(rng, 1.1, 1.3))
    rate, t60 = uniform(rng, 18, 28), uniform(rng, 0.3, 0.8)

    def phone(seconds: float) -> Samples:
        n = int(seconds * RATE)
        hits = np.zeros(n, np.float32)
        steps = (np.arange(0, seconds * 0.8, 1 / rate) * RATE).astype(int)
        hits[steps] = rng.uniform(0.7, 1.0, len(steps))
        size = [f * r for f in bells for r in (1.0, 2.76, 5.4) if f * r < 7600]
        bell = ring(rng, int(0.4 * RATE), size, [t60] * len(size), [1.0, 0.5, 0.3, 1.0, 0.5, 0.3][: len(size)])
        return convolved(hits, bell)[:n] * fade(n, 0.002, 0.15 * seconds)

    return phone


def _phone(rng: np.random.Generator) -> Voice:
    if chance(rng, 0.5):
        return _bell_phone(rng)
    low = log_uniform(rng, 650, 1300)
    high, rate, decay = low * uniform(rng, 1.15, 1.5), uniform(rng, 12, 26), uniform(rng, 1.0, 2.5)

    def warble(seconds: float) -> Samples:
        n = int(seconds * RATE)
        which = np.sin(2 * np.pi * rate * seconds_of(n)) > 0
        f0 = np.where(which, low, high).astype(np.float32)
        return harmonics(rng, f0, decay=decay, even=0.3) * fade(n, 0.01, 0.03)

    return warble


def _alarm(rng: np.random.Generator) -> Voice:
    kind = int(rng.integers(0, 3))  # smoke detector, alarm clock, buzzer
    pitch = (log_uniform(rng, 2600, 3700), log_uniform(rng, 1000, 2400), log_uniform(rng, 350, 900))[kind]
    decay = (uniform(rng, 1.5, 3.0), uniform(rng, 0.8, 2.0), uniform(rng, 0.2, 0.7))[kind]

    def beep(seconds: float) -> Samples:
        n = int(seconds * RATE)
        f0 = np.full(n, pitch, np.float32)
        return harmonics(rng, f0, decay=decay, even=0.4) * fade(n, 0.004, 0.006)

    return beep


def _drops(rng: np.random.Generator) -> Voice:
    pitch, rise, t60 = log_uniform(rng, 500, 2200), uniform(rng, 1.1, 1.8), uniform(rng, 0.05, 0.14)
    basin = resonances([log_uniform(rng, 300, 1200), log_uniform(rng, 1500, 3500)], [80, 200], [0.6, 0.4], floor=1.0)

    def drop(seconds: float) -> Samples:
        n = int(seconds * RATE)
        p = pitch * log_uniform(rng, 0.85, 1.18)
        start = int(uniform(rng, 0.004, 0.015) * RATE)
        bubble = tone(track(n, (0, p), (1, p * rise))) * die(n, t60 * uniform(rng, 0.8, 1.2))
        out = 0.35 * noise(rng, n, band(1500, 6000)) * die(n, 0.01)
        out[start:] += bubble[: n - start]
        return filtered(out, basin) * fade(n, 0.0005, 0.3 * seconds)

    return drop


_SCALE = (0, 2, 4, 5, 7, 9, 11, 12, 14, 16)


def _piano(rng: np.random.Generator) -> Voice:
    root = 110.0 * 2 ** (int(rng.integers(0, 25)) / 12)
    bright, stiff = uniform(rng, 0.8, 1.6), log_uniform(rng, 1e-4, 8e-4)
    place = [int(rng.integers(0, len(_SCALE)))]

    def note(seconds: float) -> Samples:
        n = int(seconds * RATE)
        step = int(rng.choice((-3, -2, -1, 1, 2, 3)))
        place[0] = (place[0] + step) % len(_SCALE)
        f = root * 2 ** (_SCALE[place[0]] / 12)
        k = np.arange(1, max(2, min(14, int(7500 / f))))
        freqs = k * f * np.sqrt(1 + stiff * k * k)
        t60s = 5.0 / k**0.7 * (220 / f) ** 0.3
        body = ring(rng, n, freqs.tolist(), t60s.tolist(), (k ** (-bright)).tolist())
        hammer = noise(rng, n, band(200, 2500)) * die(n, 0.03) * 0.15
        return (body + hammer) * fade(n, 0.003, min(0.15, 0.4 * seconds))

    return note


GENERATORS: dict[str, Countable | Texture] = {
    "clock_tick": Countable(_clock, (0.04, 0.08), (0.25, 0.95), steady=True),
    "door_knock": Countable(_knock, (0.09, 0.22), (0.1, 0.4), steady=True),
    "keyboard_typing": Texture(_typing),
    "glass_breaking": Countable(_glass, (0.45, 1.4), (0.35, 0.9)),
    "telephone": Countable(_phone, (0.5, 1.6), (0.35, 1.5), steady=True),
    "alarm": Countable(_alarm, (0.12, 0.6), (0.12, 0.7), steady=True),
    "water_drops": Countable(_drops, (0.08, 0.18), (0.2, 1.0)),
    "piano": Countable(_piano, (0.4, 1.2), (-0.05, 0.15)),
}
