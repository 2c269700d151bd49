"""Stdout and stderr of the ``gama`` script: what cannot be written is an error that names the stream."""

from __future__ import annotations

import os
import sys
from io import BufferedWriter, FileIO, TextIOWrapper
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

STDOUT = "standard output"
"""How errors name it."""


class _NamedStdout(FileIO):
    """Stdout whose errors say that they are about it."""

    def write(self, data: Buffer, /) -> int | None:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError as error:
            error.filename = STDOUT
            raise


def prepare_streams() -> None:
    """Let errors of stdout name it, and a terminal without Unicode still get its answer.

    Nothing else is opened under the number of a stream that was closed for us (``>&-``); what is written to stdout then
    fails, and is not lost in silence.
    """
    if os.name == "posix" and sys.stdout is sys.__stdout__:
        for number, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, mode)  # takes the lowest number that is free
        is_terminal = os.isatty(1)
        encoding = sys.stdout.encoding if sys.stdout is not None else "utf-8"
        sys.stdout = TextIOWrapper(
            BufferedWriter(_NamedStdout(1, "w", closefd=False)), encoding, newline="\n", line_buffering=is_terminal
        )
        if sys.stderr is None:
            sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 (open to the end)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def let_go(stream: TextIO) -> None:
    """Send what is left in a stream that cannot be written to nowhere: the interpreter would try once more and fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


__all__ = ["STDOUT", "let_go", "prepare_streams"]
