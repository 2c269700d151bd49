"""``gama chat`` in a terminal: a line editor with history, answers as they come, pictures of clips."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

import click

from gama import interrupts
from gama.chat.describing import described
from gama.chat.events import Answered, Asking, Attached, Event, Failed, Left, Note, Piece, Shown
from gama.text import printable
from gama_cli import console
from gama_cli.chat_editor import Editor
from gama_cli.chat_plain import shown_text
from gama_cli.chat_wrap import Wrapped, folded

if TYPE_CHECKING:
    from gama.chat.clips import Held
    from gama.chat.picture import Style
    from gama.chat.session import Session
    from gama_cli.chat import Perform

_LEAVE = "Ctrl-D or /exit leaves; Ctrl-C stops an answer"
_GREETING = "Ask about the sound; type or drag a path to add one; /help lists the commands."


class Terminal:
    """A session at a terminal.

    Args:
        session: what is talked to.
        perform: does a request.
        picture: whether to draw clips.
    """

    def __init__(self, session: Session, perform: Perform, *, picture: bool) -> None:
        self.session = session
        self.perform = perform
        self.picture = picture
        self.wrapped = Wrapped(sys.stdout)
        self.waiting = _Waiting(sys.stderr)

    def hold(self, beginning: Iterable[dict[str, Any]]) -> int:
        """Talk until the person leaves; always 0."""
        for request in beginning:
            self._do(request)
        for line in folded(_GREETING, shutil.get_terminal_size().columns):
            console.note(line)
        self._load_in_sight()
        editor = Editor(self.session)
        while True:
            try:
                text = editor.line()
            except KeyboardInterrupt:
                interrupts.clear()
                console.note(_LEAVE)
                continue
            except EOFError:
                return 0
            if self._do({"do": "line", "text": text}):
                return 0

    def _load_in_sight(self) -> None:
        if self.session.is_loading or self.session.is_loaded:
            return
        console.note(f"loading {printable(self.session.model.model or 'mini')} …")
        self.session.voice  # noqa: B018 (a model that cannot be loaded ends the command before it begins)

    def _do(self, request: dict[str, Any]) -> bool:
        """Do a request and show what comes of it; whether the session is to be left."""
        self.session.stop.clear()
        left = False
        try:
            with self._interruptible():
                for event in self.perform(request):
                    self.waiting.end()
                    left |= self._show(event)
        except KeyboardInterrupt:
            interrupts.clear()
            self.waiting.end()
            self.wrapped.end()
            console.note("stopped")
        return left

    def _show(self, event: Event) -> bool:
        match event:
            case Asking():
                self.waiting.begin("loading the model …" if self.session.is_loading else "listening …")
            case Piece(text):
                self.wrapped.write(shown_text(text))
            case Answered(exchange):
                self.wrapped.end()
                if exchange.finish == "interrupted":
                    console.note("stopped; /retry asks again")
                elif exchange.finish == "length":
                    tokens = exchange.parts[-1].said.new_tokens
                    console.note(f"cut after {tokens} tokens; /set max_new_tokens {2 * tokens} allows more")
            case Attached(clip):
                self._draw(clip)
            case Note(text) | Shown(text):
                for line in folded(text, shutil.get_terminal_size().columns):
                    console.note(line)
            case Failed():
                self.wrapped.end()
                self._fail(event)
            case Left():
                return True
        return False

    def _fail(self, event: Failed) -> None:
        label = "internal error" if event.internal else "error"
        first, *rest = folded(f"{label}: {printable(str(event))}", shutil.get_terminal_size().columns)
        console.fail(first.removeprefix(f"{label}:").lstrip(), label=label)
        for line in rest:
            console.note(line)

    def _draw(self, clip: Held) -> None:
        for line in folded(f"{clip.name}: {described(clip.facts)}", shutil.get_terminal_size().columns):
            console.note(line)
        from gama.chat.picture import picture

        if self.picture and clip.waveform is not None:
            for line in picture(clip.waveform, columns=shutil.get_terminal_size().columns, style=_style(sys.stderr)):
                click.echo(line, err=True, color=True)

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Ctrl-C ends the answer between two tokens; a second one, or one without an answer, breaks off at once."""

        def interrupt(number: int, frame: FrameType | None) -> None:
            if not self.session.is_answering or self.session.stop.is_set():
                interrupts.interrupt(number, frame)
            self.session.stop.set()

        before = signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


class _Waiting:
    """A word that stands on the line until something comes."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.width = 0

    def begin(self, text: str) -> None:
        if self.stream.isatty() and os.environ.get("TERM") != "dumb":
            self.stream.write(text)
            self.stream.flush()
            self.width = len(text)

    def end(self) -> None:
        if self.width:
            self.stream.write("\r" + " " * self.width + "\r")
            self.stream.flush()
            self.width = 0


def _style(stream: TextIO) -> Style:
    """How clips can be drawn there."""
    if not (stream.encoding or "").lower().replace("-", "").startswith("utf"):
        return "ascii"
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM", "dumb") == "dumb" or not stream.isatty()
    return "blocks" if plain else "colour"
