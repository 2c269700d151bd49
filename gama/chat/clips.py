"""The clips of a conversation: each with a short name."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gama import audio
from gama.audio import Waveform
from gama.chat.paths import Wanted
from gama.errors import AudioError, GamaError, PromptError, row_error
from gama.text import printable

_NAME_LENGTH = 16
_MENTION = re.compile(r"@([\w.-]*\w)")


@dataclass(frozen=True)
class Held:
    """A clip of the conversation.

    Attributes:
        name: short, unique.
        path: the file, absolute.
        waveform: what is heard; None once it is dropped.
        start, end: the span that was asked for, in seconds of the file.
        facts: what there is to tell about it, for programs and transcripts.
    """

    name: str
    path: Path
    waveform: Waveform | None
    start: float | None
    end: float | None
    facts: dict[str, Any]

    @property
    def sha256(self) -> str:
        """Hash of the samples heard."""
        return str(self.facts["sha256"])


def held(wanted: Wanted, name: str, *, channel: Any = "mix", max_duration: float = 1800.0) -> Held:
    """Decode a clip.

    Raises:
        AudioError: when it cannot be read.
    """
    try:
        waveform = audio.load(
            wanted.path, start=wanted.start, end=wanted.end, channel=channel, max_duration=max_duration
        )
    except GamaError:
        raise
    except Exception as error:  # whatever a decoder raises is about this clip
        raise row_error(error, str(wanted.path), AudioError) from error
    path = wanted.path.absolute()
    return Held(name, path, waveform, wanted.start, wanted.end, facts(waveform))


def facts(waveform: Waveform) -> dict[str, Any]:
    """Duration, level and hash of a clip."""
    return {
        "sha256": waveform.sha256,
        "duration_s": round(waveform.duration, 3),
        "start_s": round(waveform.start, 3),
        "sample_rate": waveform.original_rate,
        "channels": waveform.channels,
        "peak_db": _finite(waveform.peak_db),
        "rms_db": _finite(waveform.rms_db),
        "silent": waveform.is_silent,
        "windows": len(audio.windows(waveform)),
    }


class Shelf:
    """Named clips, in the order they came. Dropped ones are remembered, without their sound."""

    def __init__(self, clips: Iterable[Held] = ()) -> None:
        self._clips = {clip.name: clip for clip in clips}

    def __iter__(self) -> Iterator[Held]:
        """The clips that can be heard."""
        return (clip for clip in self._clips.values() if clip.waveform is not None)

    def __contains__(self, name: object) -> bool:
        return any(clip.name == name for clip in self)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the clips that can be heard."""
        return tuple(clip.name for clip in self)

    @property
    def everything(self) -> tuple[Held, ...]:
        """Dropped clips, too."""
        return tuple(self._clips.values())

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files of all clips, of dropped ones, too."""
        return tuple(clip.path for clip in self._clips.values())

    def named(self, name: str) -> Held:
        """The clip of that name.

        Raises:
            PromptError: when there is none.
        """
        clip = self._clips.get(name.removeprefix("@"))
        if clip is None or clip.waveform is None:
            there = f"there are: {', '.join(self.names)}" if self.names else "give one: /audio PATH"
            raise PromptError(f"no clip is called {printable(name)!r}", there)
        return clip

    def put(self, clip: Held) -> None:
        self._clips[clip.name] = clip

    def drop(self, name: str) -> Held:
        """Let go of a clip's sound."""
        clip = self.named(name)
        self._clips[clip.name] = replace(clip, waveform=None)
        return clip

    def free_name(self, path: Path, wish: str | None = None) -> str:
        """A name that no clip has had: the wish, or one from the file's.

        Raises:
            PromptError: for a wish that is taken or is no name.
        """
        if wish is not None:
            if not re.fullmatch(r"\w[\w.-]*", wish):
                raise PromptError(f"{printable(wish)!r} is no name for a clip", "letters, digits, - and _")
            if wish in self._clips or wish == "all":
                raise PromptError(f"the name {wish!r} is taken")
            return wish
        stem = re.sub(r"\W+", "-", path.stem.lower()).strip("-_")[:_NAME_LENGTH].strip("-_") or "clip"
        taken = {*self._clips, "all"}
        return next(n for n in (stem, *(f"{stem}-{i}" for i in range(2, len(taken) + 3))) if n not in taken)

    def mentioned(self, question: str) -> tuple[tuple[str, ...], str]:
        """The clips that a question names by ``@name`` (``@all``), and the question without what only points.

        Names before the question are taken away; within it the ``@`` alone goes.

        Raises:
            PromptError: when the question begins with the name of no clip.
        """
        found: list[str] = []
        rest = question.strip()
        while match := _MENTION.match(rest):
            found += self._meant(match[1], strict=True)
            rest = rest[match.end() :].lstrip(" ,:")
        for match in list(_MENTION.finditer(rest))[::-1]:
            if meant := self._meant(match[1], strict=False):
                found += meant
                rest = rest[: match.start()] + match[1] + rest[match.end() :]
        order = [name for name in self.names if name in found]
        return tuple(order), rest

    def _meant(self, name: str, *, strict: bool) -> list[str]:
        if name == "all":
            return list(self.names)
        if name in self:
            return [name]
        return [self.named(name).name] if strict else []


@dataclass(frozen=True)
class Group:
    """What is heard at once.

    Attributes:
        windows: waveforms of at most 10.24 s.
        start, end: seconds of the file; of several clips, 0 and how long they are together.
    """

    windows: tuple[Waveform, ...] = ()
    start: float = 0.0
    end: float = 0.0


def groups(clips: Sequence[Held]) -> list[Group]:
    """One clip is heard window by window, as ``gama ask`` hears it; several are heard together."""
    waveforms = [clip.waveform for clip in clips if clip.waveform is not None]
    if not waveforms:
        return [Group()]
    if len(waveforms) == 1:
        return [Group((w,), w.start, w.start + w.duration) for w in audio.windows(waveforms[0])]
    every = tuple(window for waveform in waveforms for window in audio.windows(waveform))
    return [Group(every, 0.0, sum(waveform.duration for waveform in waveforms))]


def _finite(decibels: float) -> float | None:
    return round(decibels, 1) if math.isfinite(decibels) else None


__all__ = ["Group", "Held", "Shelf", "facts", "groups", "held"]
