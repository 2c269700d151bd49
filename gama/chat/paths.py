"""What is typed or dragged into a prompt: file names in quotes, with escapes, as ``file://``; spans of time."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gama.errors import AudioError, PromptError
from gama.text import printable

SOUNDS = frozenset(
    {
        *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64", ".rf64"),
        *(".m4a", ".aac", ".webm", ".mp4", ".mov", ".mkv", ".wma"),
    }
)
"""Endings by which a bare word is taken for a clip."""

_SHOWN = 80  # characters of a name in an error
_TIME = r"(?:\d+:)?\d+(?:\.\d+)?"
_SPAN = re.compile(rf"(?P<start>{_TIME})?-(?P<end>{_TIME})?")
_NAMED = re.compile(r"\s+as\s+(?P<name>\S+)\s*$")
_WORD = re.compile(r"""(?:"[^"]*"|'[^']*'|\\.|[^\s"'\\])+""")


@dataclass(frozen=True)
class Wanted:
    """A clip that is asked for.

    Attributes:
        path: where it lies.
        start, end: the span in seconds, where one is given.
        name: what to call it; None to take it from the file.
    """

    path: Path
    start: float | None = None
    end: float | None = None
    name: str | None = None


def file_named(text: str) -> Path:
    """A file as a person or a terminal writes it: bare, quoted, escaped, ``~`` or ``file://``.

    Raises:
        PromptError: when nothing is named, or what no file can be called.
    """
    text = text.strip()
    if not text:
        raise PromptError("no file is named", "write its path after the command")
    bare = home_expanded(text)
    return bare if _exists(bare) else home_expanded(_unquoted(text))


def home_expanded(text: str) -> Path:
    """A path with ``~`` as the shell takes it: the folder of a user that there is, and itself otherwise.

    Raises:
        PromptError: for text that no file can be called.
    """
    try:
        possible = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:  # half of a surrogate pair
        possible = False
    if not possible:
        raise PromptError(f"{printable(text[:_SHOWN])} is not a name that a file can have")
    try:
        return Path(text).expanduser()
    except RuntimeError:  # no user of that name
        return Path(text)


def wanted(text: str) -> Wanted:
    """``PATH [from-to] [as NAME]``, as after ``/audio``. A file of just that name comes first."""
    text = text.strip()
    if not text or _exists(file_named(text)):
        return Wanted(file_named(text))
    name = None
    if named := _NAMED.search(text):
        text, name = text[: named.start()], named["name"]
    *before, last = text.rsplit(maxsplit=1)
    span = _SPAN.fullmatch(last)
    if before and span and (span["start"] or span["end"]):
        return Wanted(file_named(before[0]), _seconds(span["start"]), _seconds(span["end"]), name)
    return Wanted(file_named(text), name=name)


def dropped(line: str) -> tuple[list[Path], str]:
    """The files that a line begins with, and what it says after them.

    A word is a file when it is an existing one and looks like it: a separator, a ``file://`` or a known ending. A line
    that is a file as a whole, spaces and all, is one.

    Raises:
        AudioError: for a ``file://`` that names no file here.
    """
    line = line.strip()
    if _looks_like_a_file(line) and _exists(home_expanded(line)):
        return [home_expanded(line)], ""
    paths: list[Path] = []
    at = 0
    while match := _WORD.match(line, at):
        path = home_expanded(_unquoted(match.group()))
        if not (_looks_like_a_file(match.group()) and _exists(path)):
            if match.group().startswith("file:"):
                raise AudioError(f"{path}: no such file")
            break
        paths.append(path)
        at = len(line) - len(line[match.end() :].lstrip())
    return paths, line[at:]


def _looks_like_a_file(word: str) -> bool:
    plain = word.strip("\"'")
    return "/" in plain or "\\" in plain or Path(plain).suffix.lower() in SOUNDS


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # longer than a name can be, or with a NUL in it
        return False


def _unquoted(text: str) -> str:
    try:
        words = shlex.split(text, comments=False)
    except ValueError:  # an apostrophe that closes nothing
        words = [text]
    word = words[0] if len(words) == 1 else text
    if not word.startswith("file:"):
        return word
    try:
        address = urlsplit(word)
    except ValueError as error:
        raise AudioError(f"{printable(word[:_SHOWN])}: not an address: {error}") from None
    if address.netloc not in ("", "localhost"):
        raise AudioError(f"{printable(word[:_SHOWN])}: a file on {address.netloc!r}, one on this machine was expected")
    return unquote(address.path)


def _seconds(text: str | None) -> float | None:
    """``75``, ``75.5`` or ``1:15.5``."""
    if text is None:
        return None
    minutes, _, rest = text.rpartition(":")
    return 60.0 * float(minutes or 0) + float(rest)


__all__ = ["SOUNDS", "Wanted", "dropped", "file_named", "home_expanded", "wanted"]
