"""What comes back: text, with what was heard for it. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gama.audio import Waveform


@dataclass(frozen=True)
class Heard:
    """What the model heard of a clip at once, and said about it.

    Attributes:
        start, end: the span in seconds of the file.
        text: the answer about it.
        finish: ``stop`` where the answer ended by itself, ``length`` where it was cut.
        prompt_tokens, audio_tokens, new_tokens: ids read (audio included), of them audio, and written.
        encode_s, first_token_s, total_s: seconds until the prefix, the first token and the end; of the whole batch,
            for an answer that was computed in one.
    """

    start: float
    end: float
    text: str
    finish: Literal["stop", "length"]
    prompt_tokens: int
    audio_tokens: int
    new_tokens: int
    encode_s: float
    first_token_s: float
    total_s: float


class Answer(str):
    """An answer: text, with what was heard for it.

    Attributes:
        clips: the clips it is about.
        heard: one entry a window; a clip of at most 10.24 s is one window.
    """

    clips: tuple[Waveform, ...]
    heard: tuple[Heard, ...]

    @classmethod
    def of(cls, clips: Sequence[Waveform], heard: Sequence[Heard]) -> Answer:
        """Join what was said about each window, each line naming its span where there are several."""
        answer = cls("".join(opening(h.start, h.end, len(heard), i) + h.text for i, h in enumerate(heard)))
        answer.clips, answer.heard = tuple(clips), tuple(heard)
        return answer

    @property
    def text(self) -> str:
        """The answer as plain text."""
        return str(self)


def opening(start: float, end: float, windows: int, index: int) -> str:
    """What stands before the words about one of several windows: the span in seconds."""
    if windows == 1:
        return ""
    return ("\n" if index else "") + f"[{start:.1f}–{end:.1f} s] "


@dataclass(frozen=True)
class Span:
    """The facts of a prompt that do not depend on its answer: see :class:`Heard`."""

    start: float
    end: float
    prompt_tokens: int = 0
    audio_tokens: int = 0

    def heard(
        self, text: str = "", finish: Any = "stop", new: int = 0, times: tuple[float, float, float] = (0.0, 0.0, 0.0)
    ) -> Heard:
        """The whole entry."""
        return Heard(self.start, self.end, text, finish, self.prompt_tokens, self.audio_tokens, new, *times)


def span(group: Sequence[Waveform]) -> tuple[float, float]:
    """The span of one window in its file; of several heard together, from 0 to how long they are."""
    if len(group) == 1:
        return group[0].start, group[0].start + group[0].duration
    return 0.0, sum(window.duration for window in group)


__all__ = ["Answer", "Heard", "Span", "opening", "span"]
