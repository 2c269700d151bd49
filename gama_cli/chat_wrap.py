"""Text that breaks between words at the edge of the terminal, whatever its width is by then."""

from __future__ import annotations

import re
import shutil
import textwrap
from typing import TextIO

_TOKEN = re.compile(r"\n|[^\S\n]+|\S+")
_COLUMNS = re.compile(r"\S.*?\s{2,}(?=\S)")
_INDENT = 4


def folded(text: str, columns: int) -> list[str]:
    """Lines no longer than the terminal is wide; what follows a first column hangs below its beginning."""
    lines: list[str] = []
    for line in text.split("\n"):
        first = _COLUMNS.match(line)
        hang = min(first.end() if first and first.end() <= columns // 2 else _INDENT, max(columns - 1, 1) // 2)
        indent = " " * hang if len(line) > columns else ""
        parts = textwrap.wrap(
            line, max(columns, 2), subsequent_indent=indent, replace_whitespace=False, break_on_hyphens=False
        )
        lines += parts or [""]
    return lines


class Wrapped:
    """Writes words as soon as they are complete; where the stream is no terminal, text as it comes.

    Args:
        stream: where to.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.column = 0
        self._word = ""
        self._gap = ""

    def write(self, text: str) -> None:
        """Add a piece; a word at its end waits for the rest of it."""
        if not self.stream.isatty():
            self.stream.write(text)
            self.column = 0 if text.endswith("\n") else 1
            self.stream.flush()
            return
        tokens = _TOKEN.findall(self._word + text)
        self._word = tokens.pop() if tokens and not tokens[-1].isspace() else ""
        for token in tokens:
            self._put(token)
        self.stream.flush()

    def end(self) -> None:
        """Write what waits, and end the line."""
        if self._word:
            self._put(self._word)
        if self.column:
            self.stream.write("\n")
        self.column, self._word, self._gap = 0, "", ""
        self.stream.flush()

    def _put(self, token: str) -> None:
        from rich.cells import cell_len

        if token == "\n":
            self.stream.write("\n")
            self.column, self._gap = 0, ""
            return
        if token.isspace():
            self._gap = token
            return
        columns = max(shutil.get_terminal_size().columns, 1)
        if self.column and self.column + len(self._gap) + cell_len(token) > columns:
            self.stream.write("\n")
            self.column, self._gap = 0, ""
        self.stream.write(self._gap + token)
        self.column = (self.column + len(self._gap) + cell_len(token) - 1) % columns + 1
        self._gap = ""
