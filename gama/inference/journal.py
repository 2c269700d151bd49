"""Answers written line by line, so that a run that broke off goes on where it was. No torch.

While a run lasts, lines are appended to ``NAME.partial`` (one file a process), in whatever order they come. At the end
they are put in the order of the questions under the name that was asked for, and the partial files go.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from gama.errors import GamaError
from gama.inference.rows import Asked, Key


@dataclass(frozen=True)
class Place:
    """Where a line lies.

    Attributes:
        file: its file.
        begin, length: bytes.
        audio_id: the clip it is about.
        failed: whether it tells what was wrong, in place of an answer.
    """

    file: Path
    begin: int
    length: int
    audio_id: str
    failed: bool


class Journal:
    """The lines of one output.

    Args:
        out: where they are at the end.
    """

    def __init__(self, out: Path) -> None:
        self.out = out

    def part(self, number: int = 0) -> Path:
        """The file that a process appends to."""
        return self.out.with_name(f"{self.out.name}.partial{number or ''}")

    def parts(self) -> list[Path]:
        """The files that a run has left."""
        own = self.out.name + ".partial"
        near = self.out.parent.iterdir() if self.out.parent.is_dir() else ()
        return sorted(f for f in near if f.name.startswith(own) and not f.name[len(own) :].strip("0123456789"))

    def begin(self, *, resume: bool) -> None:
        """Make the folder, and mind what an earlier run has left.

        Raises:
            GamaError: where a run broke off and nobody said whether to go on with it.
        """
        self.out.parent.mkdir(parents=True, exist_ok=True)
        if not resume and (left := self.parts()):
            raise GamaError(
                f"{left[0]} is left of a run that broke off",
                f"--resume goes on with it; to begin anew, remove {' '.join(map(str, left))}",
            )

    def places(self) -> dict[Key, Place]:
        """Where the lines of earlier runs lie; a half-written last line is cut off, a later line goes before an
        earlier one.

        Raises:
            GamaError: for a file that holds something else.
        """
        found: dict[Key, Place] = {}
        for file in [f for f in (self.out, *self.parts()) if f.is_file()]:
            _mend(file)
            with file.open("rb") as lines:
                begin = 0
                for line in lines:
                    key, place = _place(file, begin, line)
                    if key not in found or found[key].failed or not place.failed:
                        found[key] = place
                    begin += len(line)
        return found

    def merge(self, questions: Iterable[Asked], places: Mapping[Key, Place]) -> None:
        """Put the lines in the order of the questions.

        Raises:
            GamaError: where a question has no line.
        """
        partial = self.out.with_name(f"{self.out.name}.{os.getpid()}.tmp")
        try:
            with partial.open("wb") as file, _reading() as read:
                for question in questions:
                    if question.key not in places:
                        raise GamaError(f"row {question.row} has no answer", "run the command again with --resume")
                    file.write(read(places[question.key]))
            os.replace(partial, self.out)
        finally:
            partial.unlink(missing_ok=True)
        for part in self.parts():
            part.unlink()


@contextmanager
def _reading() -> Iterator[Any]:
    opened: dict[Path, IO[bytes]] = {}

    def read(place: Place) -> bytes:
        file = opened.get(place.file) or opened.setdefault(place.file, place.file.open("rb"))
        file.seek(place.begin)
        return file.read(place.length)

    try:
        yield read
    finally:
        for file in opened.values():
            file.close()


def _mend(file: Path) -> None:
    """Cut off what stands after the last line end."""
    content_end = file.stat().st_size
    with file.open("r+b") as opened:
        keep = content_end
        while keep:
            step = min(keep, 2**16)
            opened.seek(keep - step)
            at = opened.read(step).rfind(b"\n")
            if at >= 0:
                keep += at + 1 - step
                break
            keep -= step
        if keep < content_end:
            opened.truncate(keep)


def _place(file: Path, begin: int, line: bytes) -> tuple[Key, Place]:
    try:
        row = json.loads(line)
        key = int(row["row"]), str(row["instruction"])
        return key, Place(file, begin, len(line), str(row["audio_id"]), "error" in row)
    except (ValueError, KeyError, TypeError) as error:
        raise GamaError(f"{file}: holds something else than answers", "give another file: --out FILE") from error


__all__ = ["Journal", "Place"]
