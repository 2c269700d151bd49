"""Files that a conversation writes: never over something else, never half."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gama import atomic
from gama.chat.paths import file_named
from gama.errors import PromptError
from gama.text import printable

MARK = "gama-chat"
"""Stands at the beginning of every transcript."""

_FORCE = "--force"


@dataclass(frozen=True)
class Target:
    """A file to write.

    Attributes:
        path: where.
        force: whether whatever lies there may go.
    """

    path: Path
    force: bool = False


def target(rest: str, usage: str) -> Target:
    """The file named after a command, with or without ``--force``.

    Raises:
        PromptError: when none is named.
    """
    words = rest.split()
    force = _FORCE in (words[:1] + words[-1:])
    name = rest.strip().removeprefix(_FORCE).removesuffix(_FORCE) if force else rest
    if not name.strip():
        raise PromptError("no file is named", usage)
    return Target(file_named(name), force)


def write(where: Target, content: str, inputs: Iterable[Path | str] = ()) -> None:
    """Write a file whole, or not at all. An earlier transcript is replaced; anything else only by force.

    Args:
        where: the file.
        content: of it.
        inputs: clips of the session; none of them is replaced, not by force either.

    Raises:
        PromptError: when something else is there.
        OutputError: when it cannot be written.
    """
    path = where.path
    atomic.check_output(path, inputs)
    if path.exists() and not atomic.is_special(path) and not where.force and not _is_transcript(path):
        raise PromptError(f"{printable(str(path))} exists", "give another name, or add --force to replace it")
    # an undecodable byte of a file name becomes an escape that JSON reads back
    atomic.write_text(path, content, errors="backslashreplace", durable=True)


def _is_transcript(path: Path) -> bool:
    with path.open("rb") as file:
        return MARK.encode() in file.read(64)


__all__ = ["MARK", "Target", "target", "write"]
