"""Clips -> what is heard at once. No torch, and no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gama import audio
from gama.audio import Waveform
from gama.errors import PromptError
from gama.inference.sampling import Sampling, preset

Clip = str | Path | bytes | np.ndarray | Waveform


@dataclass(frozen=True)
class Asking:
    """How a question is put.

    Attributes:
        sampling: how tokens are chosen.
        template: name of a prompt template; None for the model's own.
        start, end: the span of each clip in seconds; a Waveform is a span already and takes none.
        max_duration: seconds; longer clips are refused.
        channel: ``mix`` or one channel of the clip (the released code takes 0).
    """

    sampling: Sampling = field(default_factory=Sampling)
    template: str | None = None
    start: float | None = None
    end: float | None = None
    max_duration: float = 1800.0
    channel: Literal["mix"] | int = "mix"


@dataclass(frozen=True)
class Request:
    """One question.

    Attributes:
        clips: a clip, a list of clips that are heard together, or None.
        question: what is asked.
    """

    clips: Clip | Sequence[Clip] | None
    question: str


def asking(**options: Any) -> Asking:
    """An :class:`Asking` from flat keyword arguments, those of :class:`Sampling` among them.

    ``preset`` names settings of :data:`gama.inference.sampling.PRESETS`; what is given beside it goes before it.

    Raises:
        PromptError: for a value out of range or an unknown preset.
    """
    named = options.pop("preset", None)
    given = (preset(named) if named is not None else {}) | options
    names = set(Sampling.__dataclass_fields__)
    sampling = Sampling(**{k: v for k, v in given.items() if k in names})
    return Asking(sampling=sampling, **{k: v for k, v in given.items() if k not in names})


def read(clips: Clip | Sequence[Clip] | None, how: Asking) -> list[Waveform]:
    """Decode clips to waveforms, spans cut.

    Raises:
        AudioError: for a clip that cannot be read; it names the clip.
        PromptError: for an empty list, or a span of a Waveform.
    """
    if clips is None:
        return []
    if isinstance(clips, (list, tuple)) and not clips:
        raise PromptError("an empty list of clips was given", "give clips, or None to ask without sound")
    each: Sequence[Any] = clips if isinstance(clips, (list, tuple)) else [clips]
    return [_read(clip, how) for clip in each]


def _read(clip: Clip, how: Asking) -> Waveform:
    if isinstance(clip, Waveform):
        if how.start is not None or how.end is not None:
            raise PromptError(
                f"a span was given for the decoded clip {clip.source}", "give the span to gama.audio.load"
            )
        return clip
    rate = audio.SAMPLE_RATE if isinstance(clip, np.ndarray) else None
    return audio.load(
        clip, channel=how.channel, start=how.start, end=how.end, max_duration=how.max_duration, sampling_rate=rate
    )


def windows(waveforms: Sequence[Waveform], *, together: bool) -> list[list[Waveform]]:
    """What is heard at once: each window by itself, or every window of every clip in one prompt."""
    each = [window for waveform in waveforms for window in audio.windows(waveform)]
    return [each] if together or not each else [[window] for window in each]


__all__ = ["Asking", "Clip", "Request", "asking", "read", "windows"]
