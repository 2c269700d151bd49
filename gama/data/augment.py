"""Changes to a normalised fbank that leave the truth of a scene as it is."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gama.fbank import DOUBLE_STD

_DB = np.log(10.0) / 10.0 / DOUBLE_STD  # one decibel of power in normalised log-mel


def gain(fbank: Tensor, frames: int, decibels: float) -> Tensor:
    """Louder or softer by so many decibels, padding untouched: (T, M) -> (T, M)."""
    fbank[:frames] += float(decibels * _DB)
    return fbank


def equalise(fbank: Tensor, frames: int, rng: np.random.Generator, decibels: float = 6.0) -> Tensor:
    """A random smooth equaliser over the mel bins, as another microphone would: (T, M) -> (T, M)."""
    knots = rng.normal(0.0, decibels / 2, 5)
    curve = np.interp(np.linspace(0, 4, fbank.shape[1]), np.arange(5), knots - knots.mean())
    fbank[:frames] += torch.from_numpy(curve * _DB).float()
    return fbank


def mask_bands(fbank: Tensor, frames: int, rng: np.random.Generator, time: int = 24, mel: int = 16) -> Tensor:
    """SpecAugment: one stretch of frames and one band of mel bins replaced by the clip's mean: (T, M) -> (T, M)."""
    mean = fbank[:frames].mean()
    width, begin = int(rng.integers(0, mel + 1)), rng.random()
    low = int(begin * (fbank.shape[1] - width))
    fbank[:frames, low : low + width] = mean
    width, begin = int(rng.integers(0, time + 1)), rng.random()
    first = int(begin * max(1, frames - width))
    fbank[first : min(frames, first + width)] = mean
    return fbank


def mix(first: Tensor, second: Tensor, frames: int, decibels: float) -> Tensor:
    """The sum of two sounds, in power, over the first's true frames; the second ``decibels`` louder: (T, M)."""
    louder = second[:frames] + float(decibels * _DB)
    power = torch.logaddexp(first[:frames] * DOUBLE_STD, louder * DOUBLE_STD)
    mixed = first.clone()
    mixed[:frames] = power / DOUBLE_STD
    return mixed
