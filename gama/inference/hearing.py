"""Clips -> what is heard at once. No torch, and no model."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import numpy as np

from gama import audio
from gama.audio import Waveform
from gama.errors import AudioError, GamaError, OptionError, PromptError, row_error
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
        sampling_rate: Hz of clips given as arrays; None for 16 kHz. Files and a Waveform know theirs.
    """

    sampling: Sampling = field(default_factory=Sampling)
    template: str | None = None
    start: float | None = None
    end: float | None = None
    max_duration: float = 1800.0
    channel: Literal["mix"] | int = "mix"
    sampling_rate: int | None = None


class AskOptions(TypedDict, total=False):
    """The keyword arguments of every method that asks: fields of :class:`Asking` and of :class:`Sampling`."""

    preset: str | None
    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float
    seed: int | None
    template: str | None
    start: float | None
    end: float | None
    max_duration: float
    channel: Literal["mix"] | int
    sampling_rate: int | None


@dataclass(frozen=True)
class Request:
    """One question.

    Attributes:
        clips: a clip, a list of clips that are heard together, or None.
        question: what is asked.
        error: what is wrong with the row that asks; nothing is decoded then, and it is the answer's place.
    """

    clips: Clip | Sequence[Clip] | None
    question: str
    error: GamaError | None = None


def asking(**options: Unpack[AskOptions]) -> Asking:
    """An :class:`Asking` from flat keyword arguments, those of :class:`Sampling` among them.

    ``preset`` names settings of :data:`gama.inference.sampling.PRESETS`; what is given beside it goes before it.

    Raises:
        PromptError: for a value out of range, an unknown preset or an unknown keyword argument.
    """
    given: dict[str, Any] = dict(options)
    for name in given:
        if name not in AskOptions.__annotations__:
            near = difflib.get_close_matches(name, AskOptions.__annotations__, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(AskOptions.__annotations__)}"
            raise OptionError(f"there is no keyword argument {name!r}", hint)
    chosen = given.pop("preset", None)
    given = (preset(chosen) if chosen is not None else {}) | given
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
        if how.sampling_rate is not None:
            raise PromptError(
                f"sampling_rate={how.sampling_rate} was given for the decoded clip {clip.source}",
                "give the rate to gama.audio.load",
            )
        return clip
    rate = (how.sampling_rate or audio.SAMPLE_RATE) if isinstance(clip, np.ndarray) else how.sampling_rate
    try:
        return audio.load(
            clip, channel=how.channel, start=how.start, end=how.end, max_duration=how.max_duration, sampling_rate=rate
        )
    except GamaError:
        raise
    except Exception as error:  # whatever a decoder raises is about this clip
        raise row_error(error, named(clip), AudioError) from error


def named(clips: Any) -> str:
    """What messages call a clip, or several."""
    if isinstance(clips, (list, tuple)):
        return ", ".join(map(named, clips))
    if isinstance(clips, (str, Path)):
        return str(clips)
    return clips.source if isinstance(clips, Waveform) else type(clips).__name__


def windows(waveforms: Sequence[Waveform], *, together: bool) -> list[list[Waveform]]:
    """What is heard at once: each window by itself, or every window of every clip in one prompt."""
    each = [window for waveform in waveforms for window in audio.windows(waveform)]
    return [each] if together or not each else [[window] for window in each]


__all__ = ["AskOptions", "Asking", "Clip", "Request", "asking", "named", "read", "windows"]
