"""Answers written line by line, so that a run that broke off goes on where it was. No torch.

While a run lasts, lines are appended to ``NAME.partial`` (one file a process), in whatever order they come. At the end
they are put in the order of the questions under the name that was asked for, and the partial files go. Every file that
is there already is read to its end before a byte of any of them changes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from gama.atomic import check_output, open_binary, write_errors
from gama.errors import GamaError
from gama.inference.rows import Asked, Key

_LONGEST = 2**26  # bytes of a line
_BEGINNING = b'{"row": '  # of every line, as Asked.line makes it


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

    def check(self, inputs: Sequence[Path]) -> None:
        """Refuse an output that cannot or must not be written; nothing is changed.

        Raises:
            OutputError: for an input, a folder, a device, or a place without permission to write.
        """
        check_output(self.out, inputs, make_folder=True, regular=True)
        for part in self.parts():
            check_output(part, inputs)

    def begin(self, *, resume: bool) -> None:
        """Mind what an earlier run has left.

        Raises:
            GamaError: where a run broke off and nobody said whether to go on with it.
        """
        if not resume and (left := self.parts()):
            raise GamaError(
                f"{left[0]} is left of a run that broke off",
                f"--resume goes on with it; to begin anew, remove {' '.join(map(str, left))}",
            )

    def places(self) -> dict[Key, Place]:
        """Where the lines of earlier runs lie; a half-written last line counts for nothing, a later line goes before
        an earlier one. Nothing is changed.

        Raises:
            GamaError: for a file that holds something else.
        """
        found: dict[Key, Place] = {}
        for file in [f for f in (self.out, *self.parts()) if f.is_file()]:
            with file.open("rb") as lines:
                begin = 0
                while line := lines.readline(_LONGEST):
                    if not line.endswith(b"\n"):
                        _check_half(file, begin, line)
                        break
                    key, place = _place(file, begin, line)
                    if key not in found or found[key].failed or not place.failed:
                        found[key] = place
                    begin += len(line)
        return found

    def mend(self) -> None:
        """Cut off the half-written last line of every file that lines are appended to; after :meth:`places`.

        Raises:
            OutputError: where a file cannot be written.
        """
        for part in self.parts():
            with write_errors(part):
                _mend(part)

    def merge(self, questions: Iterable[Asked], places: Mapping[Key, Place]) -> None:
        """Put the lines in the order of the questions.

        Raises:
            GamaError: where a question has no line.
        """
        with open_binary(self.out, durable=True) as file, _reading() as read:
            for question in questions:
                if question.key not in places:
                    raise GamaError(f"row {question.row} has no answer", "run the command again with --resume")
                file.write(read(places[question.key]))
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
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise GamaError(f"{file}: holds something else than answers", "give another file: --out FILE") from error


def _check_half(file: Path, begin: int, line: bytes) -> None:
    """Refuse a last line without an end that is neither an answer nor the beginning of one."""
    if len(line) < _LONGEST and line.startswith(_BEGINNING[: len(line)]):
        return
    _place(file, begin, line)


__all__ = ["Journal", "Place"]
