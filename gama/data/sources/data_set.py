"""What every data set is made of: a folder of a known shape, tables in it, clips that the tables name, templates."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gama.errors import ManifestError
from gama.text import printable, shown

ENDINGS = ("wav", "flac", "mp3", "ogg", "m4a", "mp4", "webm", "mkv", "au")

Template = tuple[str, str]
"""A question and an answer, with the fields of an example in braces."""

CAPTION = "Write an audio caption describing the sound."
"""The question of classification in the evaluation of LTU and GAMA; its answer is read behind the last colon."""

LABEL: tuple[Template, ...] = ((CAPTION, "Audio caption: Sound of {label}"),)
LABELS: tuple[Template, ...] = (
    ("Classify the sound events in the audio clip.", "Labels: {labels}"),
    (CAPTION, "Audio caption: Sound of {listed}"),
)


@dataclass(frozen=True)
class Example:
    """One clip with what is asked about it.

    Attributes:
        clip: the file; None where the table names one that is not there.
        name: what the table calls it.
        questions: (question, answer) pairs.
        task: as the original names tasks: ``cla``, ``cap``, ``temporal``, ``open-ended question`` …
        split: ``train``, ``val`` or ``test``; empty where the data set has none.
        group: the original recording, see :func:`gama.data.origins.origin`.
        fold: of cross-validation.
        more: further fields of its rows.
    """

    clip: Path | None
    name: str
    questions: tuple[Template, ...]
    task: str = "cla"
    split: str = ""
    group: str | None = None
    fold: int | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DataSet:
    """A published data set.

    Attributes:
        name: of the command and in the rows.
        layout: what its folder holds, a line each.
        examples: reads it.
    """

    name: str
    layout: tuple[str, ...]
    examples: Callable[[Path], Iterator[Example]]


class Clips:
    """Finds the files that a table names, where several habits of naming are around.

    Args:
        root: the data set.
        folders: where to look below it.
        names: stems, with the fields of :meth:`find` in braces.
    """

    def __init__(self, root: Path, folders: Sequence[str], names: Sequence[str] = ("{name}",)) -> None:
        self._ways = [(root / f, name, ending) for f in folders for name in names for ending in ENDINGS]

    def find(self, **fields: Any) -> Path | None:
        """The first file there is; the way that found the last one is tried first."""
        for index, (folder, name, ending) in enumerate(self._ways):
            path = folder / f"{name.format(**fields)}.{ending}"
            if path.is_file():
                self._ways.insert(0, self._ways.pop(index))
                return path
        return None


class TableRow(dict[str, str]):
    """One row of a table that knows where it stands."""

    def __init__(self, values: Mapping[str, str], path: Path, line: int) -> None:
        super().__init__(values)
        self._where = f"{path}: line {line}"

    def number(self, column: str) -> float:
        """A number, such as seconds.

        Raises:
            ManifestError: naming file, line and column.
        """
        try:
            return float(self[column])
        except ValueError:
            raise ManifestError(f"{self._where}: {column!r} is {shown(self[column])}, expected a number") from None

    def one_of(self, column: str, meaning: Mapping[str, str]) -> str:
        """What a word means.

        Raises:
            ManifestError: naming file, line and column.
        """
        if self[column] not in meaning:
            expected = ", ".join(meaning)
            raise ManifestError(f"{self._where}: {column!r} is {shown(self[column])}, expected one of {expected}")
        return meaning[self[column]]


def rows_of(
    path: Path,
    columns: Sequence[str] | None = None,
    *,
    needed: Sequence[str] = (),
    delimiter: str = ",",
    comment: str | None = None,
) -> Iterator[TableRow]:
    """The rows of a table.

    Args:
        path: CSV or TSV in UTF-8 (bytes that are not are replaced: Clotho's tables hold some).
        columns: names of the columns of a table without a first line of names.
        needed: columns without which it is another table; all of ``columns`` where none are named.
        delimiter: between fields.
        comment: lines that begin so are left out.

    Raises:
        ManifestError: not there, or naming the column that is missing and the line.
    """
    if not path.is_file():
        raise ManifestError(f"{path}: no such table", "gama prepare source NAME says what the folder should hold")
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        lines = (line for line in file if comment is None or not line.startswith(comment))
        reader = csv.DictReader(lines, columns, delimiter=delimiter, skipinitialspace=True)
        with _csv_errors(path, reader):
            there = reader.fieldnames or ()
        missing = [name for name in needed or columns or () if name not in there]
        if missing:
            raise ManifestError(f"{path}: no column {missing[0]!r}; there are: {_columns(reader)}")
        while True:
            with _csv_errors(path, reader):
                row = next(reader, None)
            if row is None:
                return
            short = next((name for name in needed or columns or () if row[name] is None), None)
            if short is not None:
                raise ManifestError(f"{path}: line {reader.line_num} ends before {short!r}")
            yield TableRow(row, path, reader.line_num)


@contextmanager
def _csv_errors(path: Path, reader: csv.DictReader[str]) -> Iterator[None]:
    try:
        yield
    except csv.Error as error:
        raise ManifestError(f"{path}: line {reader.line_num + 1} cannot be read: {error}") from None


def _columns(reader: csv.DictReader[str]) -> str:
    names = list(reader.fieldnames or ())
    return ", ".join(printable(name[:40]) for name in names[:20]) + (" …" if len(names) > 20 else "")


def json_of(path: Path) -> Any:
    """A JSON file.

    Raises:
        ManifestError: not there or no JSON.
    """
    if not path.is_file():
        raise ManifestError(f"{path}: no such file", "gama prepare source NAME says what the folder should hold")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{path}: not JSON: {error}") from None


def first_of(root: Path, *names: str) -> Path:
    """The first of some folders or files that is there; the first name where none is."""
    return next((root / name for name in names if (root / name).exists()), root / names[0])


def plain(label: str) -> str:
    """``Crying_baby`` → ``crying baby``."""
    return label.replace("_", " ").strip().lower()


def listed(labels: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    *head, last = labels
    return f"{', '.join(head)} and {last}" if head else last


def filled(templates: Sequence[Template], **fields: Any) -> tuple[Template, ...]:
    """The questions and answers of templates."""
    return tuple((question.format(**fields), answer.format(**fields)) for question, answer in templates)


def labelled(labels: Sequence[str], templates: Sequence[Template] = LABELS) -> tuple[Template, ...]:
    """Questions about the labels of a clip: ``{labels}`` with semicolons, ``{listed}`` as a phrase."""
    return filled(templates, labels="; ".join(labels), listed=listed([label.lower() for label in labels]))
