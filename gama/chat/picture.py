"""A clip as a few lines of text: its spectrogram in Unicode blocks, or its level where there is little room."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gama.audio import SAMPLE_RATE, Waveform

Style = Literal["colour", "blocks", "ascii"]
Levels = NDArray[np.float64]

WIDEST = 72  # columns
_NARROW = 24  # columns below which one line of level replaces the spectrogram
_FFT = 512
_LOWEST, _HIGHEST = 60.0, 8000.0  # Hz
_RANGE = 60.0  # dB below the loudest that are shown
_CHUNK = 4096  # frames transformed at once

# 256-colour numbers from dark to bright, so that the picture reads on dark and on light terminals
_RAMP = (16, 17, 53, 54, 90, 126, 162, 198, 203, 209, 215, 221, 228, 230)
_SHADES: dict[Style, str] = {"colour": " ░▒▓█", "blocks": " ░▒▓█", "ascii": " .:-=+*#"}
_BARS: dict[Style, str] = {"colour": " ▁▂▃▄▅▆▇█", "blocks": " ▁▂▃▄▅▆▇█", "ascii": " .:-=+*#"}
_ROWS = {"colour": 6, "blocks": 5, "ascii": 5}


def picture(waveform: Waveform, *, columns: int, style: Style) -> list[str]:
    """Lines to print under a clip's name.

    Args:
        waveform: the clip.
        columns: of the terminal; no line is longer.
        style: ``colour`` for 256 colours (two bands a line), ``blocks`` for shades, ``ascii`` for neither.
    """
    width = min(columns - 1, WIDEST)
    if width < 4:
        return []
    if width < _NARROW:
        return [_strip(waveform, width, _BARS[style])]
    axis = _axis(waveform, width)
    if style == "colour":
        return [*_coloured(_spectrogram(waveform, width, 2 * _ROWS[style])), axis]
    return [*_shaded(_spectrogram(waveform, width, _ROWS[style]), _SHADES[style]), axis]


def _spectrogram(waveform: Waveform, columns: int, bands: int) -> Levels:
    """(bands, columns) in [0, 1], the highest band first; 1 is the loudest, 0 is 60 dB below it or silence."""
    power = np.zeros((_FFT // 2 + 1, columns))
    samples = waveform.samples
    if len(samples) < _FFT:
        samples = np.pad(samples, (0, _FFT - len(samples)))
    count = max(columns, 1 + (len(samples) - _FFT) // (_FFT // 2))
    starts = np.linspace(0, len(samples) - _FFT, count).astype(np.int64)
    column = np.arange(count) * columns // count
    frames = np.lib.stride_tricks.sliding_window_view(samples, _FFT)
    window = np.hanning(_FFT)
    for first in range(0, count, _CHUNK):
        part = slice(first, first + _CHUNK)
        spectrum = np.abs(np.fft.rfft(frames[starts[part]] * window)) ** 2
        np.maximum.at(power.T, column[part], spectrum)
    edges = np.geomspace(_LOWEST, _HIGHEST, bands + 1) * _FFT / SAMPLE_RATE
    rows = [
        power[int(low) : max(int(low) + 1, int(high))].max(axis=0) for low, high in zip(edges, edges[1:], strict=False)
    ]
    return _scaled(np.stack(rows[::-1]), waveform)


def _strip(waveform: Waveform, width: int, bars: str) -> str:
    """The level over time in one line."""
    edges = np.linspace(0, len(waveform.samples), width + 1).astype(np.int64)
    energy = [
        float(np.square(waveform.samples[a : max(b, a + 1)]).mean()) for a, b in zip(edges, edges[1:], strict=False)
    ]
    return _drawn(_scaled(np.array(energy), waveform), bars).rstrip()


def _scaled(power: NDArray[Any], waveform: Waveform) -> Levels:
    if waveform.is_silent:
        return np.zeros(power.shape)
    decibels = 10.0 * np.log10(power + 1e-20)
    scaled: Levels = np.clip(1.0 + (decibels - decibels.max()) / _RANGE, 0.0, 1.0)
    return scaled


def _drawn(levels: Levels, marks: str) -> str:
    return "".join(marks[round(float(level) * (len(marks) - 1))] for level in levels)


def _shaded(levels: Levels, shades: str) -> list[str]:
    return [_drawn(row, shades).rstrip() for row in levels]


def _coloured(levels: Levels) -> list[str]:
    colours = np.take(np.array(_RAMP), np.rint(levels * (len(_RAMP) - 1)).astype(np.int64))
    lines = []
    for upper, lower in zip(colours[::2], colours[1::2], strict=True):
        cells = [f"\x1b[38;5;{u};48;5;{d}m▀" for u, d in zip(upper, lower, strict=True)]
        lines.append("".join(cells) + "\x1b[0m")
    return lines


def _axis(waveform: Waveform, width: int) -> str:
    """Seconds under the picture: where it begins, its middle, its end."""
    begin, length = waveform.start, waveform.duration
    places = 1 if length < 100 else 0
    left, middle, right = (f"{begin + length * share:.{places}f}" for share in (0.0, 0.5, 1.0))
    right += " s"
    gap = width // 2 - len(left) - len(middle) // 2
    line = left + " " * gap + middle
    return line + " " * max(1, width - len(line) - len(right)) + right


__all__ = ["WIDEST", "Style", "picture"]
