"""The picture of a clip shows where and how high it sounds, in as much room as there is."""

from __future__ import annotations

import re

import numpy as np
import pytest
from rich.cells import cell_len

from gama.audio import Waveform
from gama.chat.picture import Style, picture

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def tone(frequency: float, seconds: float = 4.0, *, begin: float = 0.0) -> Waveform:
    """A tone that begins somewhere in silence."""
    time = np.arange(round(16_000 * seconds)) / 16_000
    samples = 0.5 * np.sin(2 * np.pi * frequency * time) * (time >= begin)
    return Waveform(samples.astype(np.float32), "tone.wav", 16_000, 1)


def rows(lines: list[str]) -> list[float]:
    """How dark each line is."""
    return [sum("░▒▓█".find(c) + 1 for c in line) for line in lines]


@pytest.mark.parametrize("style", ["colour", "blocks", "ascii"])
@pytest.mark.parametrize("columns", [1, 5, 12, 24, 25, 40, 80, 300])
@pytest.mark.parametrize("seconds", [0.025, 1.0, 30.0])
def test_no_line_is_longer_than_the_terminal(style: Style, columns: int, seconds: float) -> None:
    for line in picture(tone(440.0, seconds), columns=columns, style=style):
        assert cell_len(ESCAPES.sub("", line)) < columns
        assert style == "colour" or "\x1b" not in line
        assert style != "ascii" or line.isascii()


def test_high_is_above_low_and_late_is_right_of_early() -> None:
    low, high = (rows(picture(tone(f), columns=60, style="blocks")[:-1]) for f in (100.0, 6000.0))
    assert low.index(max(low)) == len(low) - 1 and high.index(max(high)) == 0
    line = picture(tone(6000.0, begin=2.0), columns=60, style="blocks")[0]
    assert not line[:28].strip() and set(line[31:]) == {"█"}


def test_seconds_stand_below() -> None:
    clip = tone(440.0, 10.0)
    axis = picture(Waveform(clip.samples, "", 16_000, 1, start=60.0), columns=60, style="blocks")[-1]
    assert axis.split() == ["60.0", "65.0", "70.0", "s"] and len(axis) == 59


def test_silence_is_empty() -> None:
    silence = Waveform(np.zeros(16_000, dtype=np.float32), "", 16_000, 1)
    assert [line.strip() for line in picture(silence, columns=60, style="blocks")[:-1]] == [""] * 5
    assert [line.strip() for line in picture(silence, columns=20, style="blocks")] == [""]


def test_colours_follow_the_level() -> None:
    lines = picture(tone(6000.0, begin=2.0), columns=60, style="colour")
    first = re.findall(r"38;5;(\d+);48", lines[0])
    assert len(first) == 59 and first[0] == "16" and first[-1] == "230"
    assert all(line.endswith("\x1b[0m") for line in lines[:-1])


def test_little_room_is_one_line_of_level() -> None:
    (line,) = picture(tone(440.0, begin=2.0), columns=20, style="blocks")
    assert not line[:9].strip() and line[-5:] == "█████"
