"""A person at a real terminal: keys go in, a screen is seen."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import pexpect
import pyte

PATIENCE = 90  # seconds; a busy machine takes several to start Python
STUB = Path(__file__).with_name("stub.py")
ENTER, CTRL_C, CTRL_D, UP, ALT_ENTER = "\r", "\x03", "\x04", "\x1b[A", "\x1b\r"


class Person:
    """Someone who runs a command in a terminal of a size, with a screen that keeps what has scrolled away.

    Args:
        words: of ``gama``, after the program.
        program: Python and what it runs.
        columns, rows: of the terminal.
        environment: changes to it; None takes a variable away.
    """

    def __init__(
        self,
        *words: object,
        program: tuple[str, ...] = (sys.executable, str(STUB)),
        columns: int = 80,
        rows: int = 30,
        environment: dict[str, str | None] | None = None,
        folder: Path | None = None,
    ) -> None:
        variables = {"TERM": "xterm-256color", "LANG": "C.UTF-8", "PYTHONUTF8": "1", **os.environ}
        for name, value in {"TERM": "xterm-256color", "OMP_NUM_THREADS": "1", **(environment or {})}.items():
            variables.pop(name, None)
            if value is not None:
                variables[name] = value
        self.screen = pyte.HistoryScreen(columns, rows, history=2000)
        self._stream = pyte.Stream(self.screen)
        self.raw = ""
        self.child = pexpect.spawn(
            program[0],
            [*program[1:], *map(str, words)],
            dimensions=(rows, columns),
            env=variables,  # type: ignore[arg-type]
            cwd=folder,
            encoding="utf-8",
            timeout=PATIENCE,
            echo=False,
        )

    def __enter__(self) -> Person:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.child.close(force=True)

    def types(self, keys: str) -> None:
        self.child.send(keys)

    def asks(self, line: str) -> None:
        """Type a line and send it."""
        self.types(line + ENTER)

    def resizes(self, columns: int, rows: int = 30) -> None:
        self.child.setwinsize(rows, columns)
        self.screen.resize(rows, columns)

    @property
    def lines(self) -> list[str]:
        """Everything on the screen and above it, without empty lines at the end."""
        above = ["".join(row[x].data for x in range(self.screen.columns)) for row in self.screen.history.top]
        lines = [line.rstrip() for line in (*above, *self.screen.display)]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def sees(self, what: str | Callable[[str], bool], *, since: int = 0) -> str:
        """Wait until text is on the screen; what stands there then.

        Args:
            what: the text, or a test of everything seen.
            since: characters of :attr:`raw` that are not looked at, for text only.
        """
        ends = time.monotonic() + PATIENCE
        while True:
            found = (
                what(self.text) if callable(what) else (what in self.text if not since else what in self.raw[since:])
            )
            if found:
                return self.text
            if time.monotonic() > ends:
                raise AssertionError(f"{what!r} was not seen in:\n{self.text}")
            self._reads()

    def sees_prompt(self) -> str:
        """Wait until the last line is an empty prompt."""
        return self.sees(lambda text: text.rsplit("\n", 1)[-1].rstrip() in (">>>", ">>"))

    def sees_the_end(self) -> int:
        """Wait until the program has ended; its exit status."""
        ends = time.monotonic() + PATIENCE
        while self.child.isalive() and time.monotonic() < ends:
            self._reads()
        self._reads()
        self.child.close()
        assert self.child.exitstatus is not None, (self.child.signalstatus, self.text)
        return int(self.child.exitstatus)

    def _reads(self) -> None:
        try:
            piece = self.child.read_nonblocking(65536, timeout=0.2)
        except (pexpect.TIMEOUT, pexpect.EOF):
            return
        self.raw += piece
        self._stream.feed(piece)
