"""Questions and answers so far, and what of them the model is told with the next question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gama.audio import Waveform
from gama.chat.clips import Group
from gama.inference.turns import Finish, Said, Spoken

Memory = Literal["full", "last", "none"]
MEMORIES: tuple[Memory, ...] = ("full", "last", "none")


@dataclass(frozen=True)
class Part:
    """What was said about one window.

    Attributes:
        start, end: seconds of the file.
        said: the answer and what it cost.
    """

    start: float
    end: float
    said: Said


@dataclass(frozen=True)
class Exchange:
    """A question and its answer.

    Attributes:
        question: as it was asked, without names of clips before it.
        clips: names of the clips it was about.
        parts: one a window.
        windows: how many windows there were; an interrupted answer has fewer parts.
        verdict: what the person thinks of the answer.
        correction: the right answer, where the person gave one.
    """

    question: str
    clips: tuple[str, ...]
    parts: tuple[Part, ...]
    windows: int = 1
    verdict: Literal["", "good", "bad"] = ""
    correction: str = ""

    @property
    def answer(self) -> str:
        """The whole answer; each line of a long clip's names its span."""
        return "".join(opening(part, self.windows, i) + part.said.text for i, part in enumerate(self.parts))

    @property
    def finish(self) -> Finish:
        """How the last part ended."""
        return self.parts[-1].said.finish if self.parts else "interrupted"

    def row(self) -> dict[str, Any]:
        """For programs, logs and transcripts."""
        said = [part.said for part in self.parts]
        return {
            "question": self.question,
            "clips": list(self.clips),
            "answer": self.answer,
            "finish": self.finish,
            "windows": [
                {"start": round(p.start, 3), "end": round(p.end, 3), "answer": p.said.text, "finish": p.said.finish}
                for p in self.parts
            ],
            "tokens": {
                "prompt": sum(s.prompt_tokens for s in said),
                "audio": sum(s.audio_tokens for s in said),
                "reused": sum(s.reused_tokens for s in said),
                "new": sum(s.new_tokens for s in said),
            },
            "timings": {
                "encode_s": round(sum(s.encode_s for s in said), 4),
                "first_token_s": round(said[0].first_token_s, 4) if said else 0.0,
                "total_s": round(sum(s.total_s for s in said), 4),
            },
        }


def opening(part: Part | Group, windows: int, index: int) -> str:
    """What a line of a long clip's answer begins with, as ``gama ask`` writes it."""
    if windows == 1:
        return ""
    return ("\n" if index else "") + f"[{part.start:.1f}–{part.end:.1f} s] "


def remembered(exchanges: Sequence[Exchange], memory: Memory) -> list[Exchange]:
    """The exchanges that go with the next question."""
    answered = [exchange for exchange in exchanges if exchange.answer.strip()]
    return {"full": answered, "last": answered[-1:], "none": []}[memory]


def told(
    past: Sequence[Exchange],
    question: str,
    *,
    clips: tuple[str, ...],
    heard: Sequence[Group],
    index: int,
    system: str = "",
    windows_of: Callable[[tuple[str, ...]], tuple[Waveform, ...]],
) -> list[Spoken]:
    """The turns for one window of the question's clips.

    Clips stand in front of a question where they are not those of the question before it. A window of a long clip is
    told what was said about that window, not about the others.

    Args:
        past: the exchanges that are remembered.
        question: the new question.
        clips: names of its clips.
        heard: its windows.
        index: which of them.
        system: what the model is told before everything.
        windows_of: every window of clips, by their names.
    """
    turns = [_spoken("system", system)] if system else []
    before: tuple[str, ...] | None = None
    for exchange in past:
        same = exchange.clips == clips and len(exchange.parts) == len(heard)
        windows = heard[index].windows if same else windows_of(exchange.clips)
        answer = exchange.parts[index].said.text if same else exchange.answer
        key = tuple(window.sha256 for window in windows)
        turns += [_spoken("user", exchange.question, () if key == before else windows), _spoken("assistant", answer)]
        before = key
    windows = heard[index].windows
    again = before == tuple(window.sha256 for window in windows)
    return [*turns, _spoken("user", question, () if again else windows)]


def _spoken(role: Literal["system", "user", "assistant"], text: str, windows: tuple[Waveform, ...] = ()) -> Spoken:
    """A turn as a tokenizer takes it: half a character (an undecodable byte, a cut escape in JSON) becomes ``?``."""
    return Spoken(role, text.encode("utf-8", "replace").decode(), windows)


__all__ = ["MEMORIES", "Exchange", "Memory", "Part", "opening", "remembered", "told"]
