"""``gama chat`` through a pipe: a line in is a question, a path or a command; stdout gets the answers alone."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, TextIO

import click

from gama.chat.describing import described
from gama.chat.events import Answered, Attached, Event, Failed, Left, Note, Piece, Shown
from gama.text import printable
from gama_cli import console

if TYPE_CHECKING:
    from gama.chat.session import Session
    from gama_cli.chat import Perform

LONGEST_LINE = 2**20
"""Characters of a question, path or command; a longer line is passed over and answered with an error."""


def hold(session: Session, perform: Perform, beginning: Iterable[dict[str, Any]]) -> int:
    """Answer stdin line by line.

    Returns:
        The exit status: 1 where anything failed.
    """
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # a file name need not be text
    failed = False
    for request in beginning:
        failed |= _shown(perform(request))[1]
    for line in _lines(sys.stdin):
        left, wrong = _shown(_too_long() if line is None else perform({"do": "line", "text": line}))
        failed |= wrong
        if left:
            break
    return 1 if failed else 0


def _lines(stream: TextIO | None) -> Iterator[str | None]:
    """Lines of stdin, which may be closed; None for one that is longer than a line can be."""
    while stream is not None and (line := stream.readline(LONGEST_LINE + 1)):
        if len(line) <= LONGEST_LINE:
            yield line
            continue
        while line and not line.endswith("\n"):
            line = stream.readline(LONGEST_LINE)
        yield None


def _too_long() -> Iterator[Event]:
    yield Failed(f"a line has more than {LONGEST_LINE} characters", "ask in short")


def _shown(events: Iterable[Event]) -> tuple[bool, bool]:
    """Print events; whether the session was left, and whether anything failed."""
    left = failed = False
    for event in events:
        match event:
            case Piece(text):
                click.echo(shown_text(text), nl=False)
            case Answered():
                click.echo()
            case Left():
                left = True
            case Failed():
                failed = True
                console.fail(str(event), label="internal error" if event.internal else "error")
            case Note(text):
                console.note(text)
            case Shown(text):
                for line in text.split("\n"):
                    console.note(line)
            case Attached(clip):
                console.note(f"{clip.name}: {described(clip.facts)}")
    if sys.stdout is not None:  # closed by whoever started this
        sys.stdout.flush()
    return left, failed


def shown_text(text: str) -> str:
    """Words for a terminal: control characters escaped, line ends kept."""
    return "\n".join(printable(line) for line in text.split("\n"))
