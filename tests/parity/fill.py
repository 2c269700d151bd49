"""Deterministic weights and waveforms of the golden numbers, from key and shape alone. numpy and zlib only.

Written from the specification of the goldens: a raw PCG64 stream seeded by the CRC-32 of ``seed|tag`` becomes uniform
float32 values of unit variance, and a table of rules scales them by the tensor's name.
"""

from __future__ import annotations

import math
import zlib

import numpy as np
from numpy.typing import NDArray

SEED = 20240617

WAVES: dict[str, tuple[int, int, int]] = {
    "A": (16_000, 160_000, 1),
    "B": (44_100, 176_400, 2),
    "C": (16_000, 219_200, 1),
}
"""Name -> (Hz, samples per channel, channels)."""

Floats = NDArray[np.float32]


def unit(tag: str, count: int, seed: int = SEED) -> Floats:
    """``count`` values of mean 0 and variance 1, uniform, wholly determined by seed and tag."""
    generator = np.random.PCG64(zlib.crc32(f"{seed}|{tag}".encode()))
    words = generator.random_raw((count + 1) // 2).astype("<u8").view("<u4")[:count]
    uniform = (words >> 8).astype(np.float32) * np.float32(2.0**-23) - np.float32(1.0)
    return uniform * np.float32(math.sqrt(3.0))


def canonical(key: str) -> str:
    """The key without PEFT's prefix: both forms get the same weights."""
    return key.removeprefix("base_model.model.")


def scale(key: str, shape: tuple[int, ...]) -> tuple[float, float] | None:
    """(mean, standard deviation) of a tensor; None for a buffer that keeps its computed value."""
    key = canonical(key)
    narrow = 1.0 / math.sqrt(math.prod(shape[1:]))
    first = "audio_aggregator_layer_1.attention.self."
    weight = key.endswith(".weight")
    rules: list[tuple[bool, tuple[float, float] | None]] = [
        (key.endswith((".inv_freq", ".position_ids")), None),
        (key.endswith(("pos_embed_a", "modality_a")), (0.0, 0.5)),
        (key.endswith("query_tokens"), (0.0, 0.1)),
        (key.endswith("embed_tokens.weight"), (0.0, 0.5)),
        (key.endswith("lm_head.weight"), (0.0, 2.0 * narrow)),
        (".lora_B." in key, (0.0, 0.2 * narrow)),
        (weight and (f"{first}query." in key or f"{first}key." in key), (0.0, 50.0 * narrow)),
        (weight and f"{first}value." in key, (0.0, 10.0 * narrow)),
        (weight and len(shape) == 1, (1.0, 0.1)),
        (key.endswith(".bias"), (0.0, 0.1)),
    ]
    return next((found for applies, found in rules if applies), (0.0, narrow))


def weights(key: str, shape: tuple[int, ...], seed: int = SEED) -> Floats | None:
    """The tensor of that name and shape; None for a buffer."""
    found = scale(key, shape)
    if found is None:
        return None
    mean, deviation = found
    values = unit(canonical(key), math.prod(shape), seed) * np.float32(deviation)
    return (values + np.float32(mean) if mean else values).reshape(shape)


def _sine(turns: NDArray[np.float64]) -> NDArray[np.float64]:
    """About -sin of a phase in turns, by parabolas: the same bits on every machine."""
    centred = turns - np.floor(turns) - 0.5
    parabola = 8.0 * centred * (1.0 - 2.0 * np.abs(centred))
    return parabola * (0.775 + 0.225 * np.abs(parabola))


def _channel(name: str, channel: int, seed: int) -> NDArray[np.int16]:
    rate, count, _ = WAVES[name]
    time, duration = np.arange(count, dtype=np.float64) / rate, count / rate
    p = unit(f"wave/{name}/{channel}/params", 8, seed).astype(np.float64) / 1.75
    up, up_end, down, down_end = (
        300.0 + 200.0 * p[0],
        5000.0 + 1500.0 * p[1],
        2500.0 + 800.0 * p[2],
        150.0 + 60.0 * p[3],
    )
    rising = up * time + (up_end - up) * time * time / (2.0 * duration)
    falling = down * time + (down_end - down) * time * time / (2.0 * duration)
    loudness = 0.5 + 0.5 * _sine((1.3 + 0.4 * p[4]) * time)
    noise = unit(f"wave/{name}/{channel}/noise", count, seed).astype(np.float64)
    gate = (_sine((0.6 + 0.2 * p[5]) * time + 0.1) > 0.2).astype(np.float64)
    x = 0.30 * loudness * _sine(rising) + 0.15 * _sine(falling) + (0.002 + 0.05 * gate) * noise + 0.02 * p[6]
    return np.clip(np.floor(x * 32767.0 + 0.5), -32768, 32767).astype(np.int16)


def waveform(name: str, seed: int = SEED) -> tuple[NDArray[np.int16], int]:
    """Two chirps, gated noise and an offset per channel: ((N, channels) int16, Hz)."""
    rate, _, channels = WAVES[name]
    return np.stack([_channel(name, c, seed) for c in range(channels)], axis=1), rate


def checksum(values: NDArray[np.float32], tag: str, seed: int = SEED) -> float:
    """Projection of every element on a fixed random direction."""
    flat = np.asarray(values, np.float64).ravel()
    return float(flat @ unit(f"check/{tag}", flat.size, seed).astype(np.float64))
