"""What a session tells: the terminal draws it, a pipe prints it, ``--json`` writes it as rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gama.chat.clips import Held
    from gama.chat.conversation import Exchange


_LONGEST = 600  # characters of an error


@dataclass(frozen=True)
class Asking:
    """A question is about to be answered.

    Attributes:
        question: as the model gets it.
        clips: names of the clips it is about.
    """

    question: str
    clips: tuple[str, ...]


@dataclass(frozen=True)
class Piece:
    """A piece of an answer, as it is generated."""

    text: str


@dataclass(frozen=True)
class Answered:
    """An answer is complete."""

    exchange: Exchange


@dataclass(frozen=True)
class Attached:
    """A clip has joined the conversation."""

    clip: Held


@dataclass(frozen=True)
class Note:
    """One line of information."""

    text: str


@dataclass(frozen=True)
class Shown:
    """What a command shows.

    Attributes:
        text: for a person, several lines.
        data: the same for a program.
    """

    text: str
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    """Something could not be done; the session goes on as it was.

    Attributes:
        message: what is wrong; cut short, as it may quote a question or a name of any length.
        hint: what to do.
        internal: whether it is a fault of gama's own.
    """

    message: str
    hint: str | None = None
    internal: bool = False

    def __post_init__(self) -> None:
        if len(self.message) > _LONGEST:
            object.__setattr__(self, "message", f"{self.message[: _LONGEST // 2]} … {self.message[-_LONGEST // 2 :]}")

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


@dataclass(frozen=True)
class Left:
    """The session is over."""


Event = Asking | Piece | Answered | Attached | Note | Shown | Failed | Left


def row(event: Event) -> dict[str, Any]:
    """An event as a JSON object."""
    match event:
        case Asking(question, clips):
            return {"event": "asking", "question": question, "clips": list(clips)}
        case Piece(text):
            return {"event": "piece", "text": text}
        case Answered(exchange):
            return {"event": "answer", **exchange.row()}
        case Attached(clip):
            return {"event": "attached", "name": clip.name, "path": str(clip.path), **clip.facts}
        case Note(text):
            return {"event": "note", "text": text}
        case Shown(text, data):
            return {"event": "shown", "text": text, **({"data": data} if data else {})}
        case Failed():
            kind = "internal" if event.internal else "user"
            return {"event": "error", "message": event.message, "hint": event.hint, "kind": kind}
        case Left():
            return {"event": "end"}


__all__ = ["Answered", "Asking", "Attached", "Event", "Failed", "Left", "Note", "Piece", "Shown", "row"]
