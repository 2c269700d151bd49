"""The line that is typed: several lines at a time, history across sessions, completion."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.key_binding.key_processor import KeyPressEvent
from prompt_toolkit.output import create_output

from gama import interrupts
from gama.home import home
from gama_cli import console

if TYPE_CHECKING:
    from gama.chat.session import Session

PROMPT = ">>> "
CONTINUED = "... "
_FENCE = '"""'
_WITH_PATH = ("audio", "save", "load", "export-manifest", "model")


class Editor:
    """Reads what a person types.

    Enter sends, Alt-Enter begins a new line; so does Enter after a backslash, or while a \"\"\" is open. Pasted lines
    stay together.

    Args:
        session: for the names to complete.
    """

    def __init__(self, session: Session) -> None:
        self._prompt: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,
            prompt_continuation=CONTINUED,
            key_bindings=_keys(),
            history=_history(),
            completer=_Names(session),
            complete_while_typing=False,
            enable_suspend=True,
            # the prompt is no answer: it goes to stderr where that is a terminal
            output=create_output(stdout=sys.stderr if sys.stderr.isatty() else sys.stdout),
        )

    def line(self) -> str:
        """What was typed, without its fences and the backslashes at the ends of lines.

        Raises:
            KeyboardInterrupt: Ctrl-C.
            EOFError: Ctrl-D on an empty line.
        """
        try:
            return unfenced(self._prompt.prompt())
        finally:
            interrupts.listen()  # the prompt's event loop has taken the signals for itself


def is_complete(text: str) -> bool:
    """Whether Enter sends this text."""
    return text.count(_FENCE) % 2 == 0 and not text.endswith("\\")


def unfenced(text: str) -> str:
    """The text itself, out of what was typed to enter it."""
    text = text.replace("\\\n", "\n").strip()
    if text.startswith(_FENCE) and text.endswith(_FENCE) and len(text) >= 2 * len(_FENCE):
        text = text[len(_FENCE) : -len(_FENCE)]
    return text.strip()


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def enter(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_complete(buffer.text):
            buffer.validate_and_handle()
        else:
            buffer.newline(copy_margin=False)

    @keys.add("escape", "enter")
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    return keys


def _history() -> History:
    """The file under GAMA_HOME, readable by its owner alone; where it cannot be written, this session's own."""
    folder = home()
    file = folder / "history"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    except OSError as error:
        console.warn(f"no history is kept: {file}: {error.strerror}")
        return InMemoryHistory()
    return _TextHistory(str(file))


class _TextHistory(FileHistory):
    """A file of UTF-8, whatever bytes were typed."""

    def store_string(self, string: str) -> None:
        super().store_string(string.encode("utf-8", "replace").decode())


class _Names(Completer):
    """Commands after a slash, clips after an @, files where a path goes."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: Any) -> Iterable[Completion]:
        from gama.chat.commands import COMMANDS
        from gama.chat.settings import SETTINGS

        text = document.text_before_cursor
        last = text.rsplit(maxsplit=1)[-1] if text and not text[-1].isspace() else ""
        if text.startswith("/") and " " not in text and text.count("/") == 1:
            yield from _matching(text, (f"/{command.name}" for command in COMMANDS))
        elif last.startswith("@"):
            yield from _matching(last, (f"@{name}" for name in (*self._session.shelf.names, "all")))
        elif text.startswith(("/drop ", "/play ")):
            yield from _matching(last, self._session.shelf.names)
        elif text.startswith("/set "):
            yield from _matching(last, SETTINGS)
        elif text.startswith(tuple(f"/{name} " for name in _WITH_PATH)) or last.startswith(("/", "~", "./", "../")):
            yield from self._paths.get_completions(Document(last, len(last)), complete_event)


def _matching(begun: str, names: Iterable[str]) -> Iterable[Completion]:
    return (Completion(name, start_position=-len(begun)) for name in names if name.startswith(begun))
