"""What a clip on disk is: whether it can be heard, how long it lasts, and what it holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gama import audio
from gama.audio.decoding import open_decoder
from gama.audio.source import is_url, open_source
from gama.errors import AudioError, row_error

LONGEST = 3600.0
"""Seconds; a longer clip is not decoded, its header is believed."""

_OVERSHOOT = 10 ** (2 / 20)  # 2 dB: more than band-limiting adds to a recording that was clipped at full scale

Problem = Literal["", "missing", "unreadable", "too-short"]


@dataclass(frozen=True, slots=True)
class ClipFacts:
    """A clip as a training step finds it.

    Attributes:
        problem: why no features can be made of it; empty where they can.
        detail: the message of the error.
        rate: Hz of the file; 0 where it cannot be read.
        seconds: of the waveform.
        silent: whether its peak lies below -80 dBFS.
        content: digest of the samples at 16 kHz; empty where there are none.
        peak: largest magnitude of the samples at 16 kHz; full scale is 1.
    """

    problem: Problem = ""
    detail: str = ""
    rate: int = 0
    seconds: float = 0.0
    silent: bool = False
    content: str = ""
    peak: float = 0.0

    @property
    def is_over_range(self) -> bool:
        """Whether samples lie above full scale; what resampling alone can add to a loud clip does not count."""
        return self.peak > (1.0 if self.rate == audio.SAMPLE_RATE else _OVERSHOOT)


def clip_facts(path: Path) -> ClipFacts:
    """Decodes the clip; never raises for what the clip is."""
    rate, seconds = 0, 0.0
    try:
        if not path.exists():
            what = "is a URL, the path of a file was expected" if is_url(str(path)) else "no such file"
            return ClipFacts("missing", f"{path}: {what}")
        with open_source(path) as source, open_decoder(source) as decoder:
            rate = decoder.rate
            seconds = (decoder.frames or 0) / rate if rate else 0.0
        if seconds > LONGEST:
            return ClipFacts(rate=rate, seconds=seconds)
        waveform = audio.load(path, max_duration=2 * LONGEST)
    except Exception as error:  # whatever a decoder raises is about this clip
        found = row_error(error, str(path), AudioError)
        short = 0.0 < seconds < audio.MIN_SAMPLES / audio.SAMPLE_RATE
        return ClipFacts("too-short" if short else "unreadable", str(found), rate, seconds)
    return ClipFacts("", "", rate, waveform.duration, waveform.is_silent, waveform.sha256[:32], peak_of(waveform))


def peak_of(waveform: audio.Waveform) -> float:
    """The largest magnitude of the samples; full scale is 1."""
    return float(max(waveform.samples.max(initial=0.0), -waveform.samples.min(initial=0.0)))
