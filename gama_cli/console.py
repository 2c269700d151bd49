"""The law of the two streams: answers go to stdout by ``click.echo``; everything else goes to stderr through here."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import click

Advance = Callable[[int], None]
"""Takes how many more items are done."""


def note(text: str) -> None:
    """One line of information on stderr."""
    _line(None, text)


def warn(text: str) -> None:
    """One line on stderr that begins with ``warning:``."""
    _line("warning", text, colour="yellow")


def fail(text: str, *, label: str = "error") -> None:
    """One line on stderr that begins with ``error:``. Only prints: the caller decides how to exit."""
    _line(label, text, colour="red")


def json_line(row: object) -> None:
    """One JSON object on one line of stdout: non-ASCII text as it is, control characters and surrogates escaped."""
    from gama.text import json_text

    click.echo(json_text(row))


@contextmanager
def progress(total: int | None, label: str) -> Iterator[Advance]:
    """A progress bar on stderr; silent where stderr is no terminal.

    Args:
        total: how many items there are; None when that is not known.
        label: what is being done, e.g. ``writing scenes``.

    Yields:
        A function to call with the number of items done since the last call.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(_printable(label)), total=total)
        yield lambda count: bar.advance(task, count)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows as left-aligned plain-text columns, for ``click.echo``; the last column is not padded."""
    cells = [[_printable(str(cell)) for cell in row] for row in (header, *rows)]
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(line.rstrip() for line in lines)


def _line(label: str | None, text: str, *, colour: str | None = None) -> None:
    text = _printable(text)
    if label is not None:
        prefix = f"{label}:"
        text = f"{click.style(prefix, fg=colour, bold=True) if _colours() else prefix} {text}"
    click.echo(text, err=True)


def _colours() -> bool:
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _printable(text: str) -> str:
    from gama.text import printable

    return printable(text)
