"""Manifests: rows of (clip, question, answer) in the original's JSON form or as JSON Lines."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

from gama.atomic import make_folder, open_text
from gama.data.json_stream import values
from gama.data.scenes.classes import BY_LABEL
from gama.data.scenes.scene import Event, Scene
from gama.errors import ManifestError
from gama.text import json_text, lone_surrogate, shown

_TEXT_FIELDS = ("audio_id", "instruction", "output")
_ENCODED = ("instruction", "output", "input", "task", "dataset")
_OPTIONAL = {
    "input": (str, "text"),
    "task": (str, "text"),
    "dataset": (str, "text"),
    "fold": (int, "a whole number"),
    "check": (dict, "an object"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One question about one clip.

    Attributes:
        audio: the clip's file; None for a question without a clip.
        instruction, input, output: question, further text, answer.
        task, dataset: what the row is for and where it comes from.
        scene: exact truth, where the manifest carries it (``events``, ``duration``).
        fold: cross-validation fold of the recording, where it has one.
        check: what decides whether an answer is right (fields of :class:`gama.data.scenes.answers.QA`).
    """

    audio: Path | None
    instruction: str
    output: str
    input: str = ""
    task: str = ""
    dataset: str = ""
    scene: Scene | None = None
    fold: int | None = None
    check: dict[str, Any] | None = None


def read(path: Path) -> list[Row]:
    """All rows of a manifest; relative clips are looked for beside it.

    Raises:
        ManifestError: naming file, row and field.
    """
    return list(rows(path))


def rows(path: Path) -> Iterator[Row]:
    """The rows of a manifest one by one, so that millions of them need little memory.

    Raises:
        ManifestError: naming file, row and field.
    """
    for number, record in enumerate(records(path), 1):
        yield row_of(record, path, number)


def records(path: Path) -> Iterator[Any]:
    """What a manifest holds, as it stands there, one by one and unchecked.

    Raises:
        ManifestError: naming file and row, for what is no JSON.
    """
    if not path.is_file():
        raise ManifestError(f"{path}: no such manifest", "make one with: gama prepare scenes")
    return values(path)


@contextmanager
def writing(path: Path) -> Iterator[Writer]:
    """A manifest that appears whole or not at all: JSON Lines for a name that ends in .jsonl, else a JSON list."""
    make_folder(path.parent)
    with open_text(path, durable=True) as file:
        writer = Writer(file, lines=path.suffix == ".jsonl")
        yield writer
        writer.end()


class Writer:
    """Writes rows as they come; ``count`` says how many."""

    def __init__(self, file: TextIO, *, lines: bool) -> None:
        self._file, self._lines, self.count = file, lines, 0

    def add(self, record: Mapping[str, Any]) -> None:
        """One row more."""
        if not self._lines:
            self._file.write(",\n" if self.count else "[\n")
        self._file.write(json_text(record, finite=False))  # rows that were dropped keep what is wrong with them
        if self._lines:
            self._file.write("\n")
        self.count += 1

    def end(self) -> None:
        """Close the list."""
        if not self._lines:
            self._file.write("\n]\n" if self.count else "[]\n")


def row_of(record: Any, path: Path, number: int) -> Row:
    """One record as a row.

    Args:
        record: what stands in the manifest.
        path, number: of the manifest, and of the row, from 1.

    Raises:
        ManifestError: naming file, row and field.
    """
    where = f"{path}: row {number}"
    if not isinstance(record, dict):
        raise ManifestError(f"{where} is {type(record).__name__}, expected an object")
    for name in _TEXT_FIELDS:
        if not isinstance(record.get(name), str):
            raise ManifestError(
                f"{where}: {name!r} is {shown(record.get(name))}, expected text",
                "every row needs audio_id, instruction and output",
            )
    if not record["audio_id"]:
        raise ManifestError(f"{where}: 'audio_id' is '', expected a file", "a row without a clip says 'empty'")
    for name, (kind, expected) in _OPTIONAL.items():
        value = record.get(name)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise ManifestError(f"{where}: {name!r} is {shown(value)}, expected {expected}")
    require_file_name(record["audio_id"], where)
    for name in _ENCODED:
        require_text(record.get(name) or "", f"{where}: {name!r}")
    return Row(
        audio=None if record["audio_id"] == "empty" else _beside(path, record["audio_id"]),
        instruction=sys.intern(record["instruction"]),
        output=record["output"],
        input=record.get("input") or "",
        task=sys.intern(record.get("task") or ""),
        dataset=sys.intern(record.get("dataset") or ""),
        scene=_scene(record, where) if "events" in record and "duration" in record else None,
        fold=record.get("fold"),
        check=record.get("check"),
    )


def require_text(text: str, what: str) -> None:
    """Refuse a text that no encoding holds, and so no tokenizer reads.

    Raises:
        ManifestError: naming ``what`` it is.
    """
    at = lone_surrogate(text)
    if at is not None:
        raise ManifestError(
            f"{what} holds half of a surrogate pair (\\u{ord(text[at]):04x}) at character {at + 1}, expected text",
            "write the whole character, or take it out",
        )


def require_file_name(audio_id: str, where: str) -> None:
    """Refuse an ``audio_id`` that cannot be the name of a file.

    Raises:
        ManifestError: for a NUL byte, or for characters that the file system cannot encode.
    """
    try:
        usable = b"\0" not in os.fsencode(audio_id)
    except UnicodeEncodeError:
        usable = False
    if not usable:
        raise ManifestError(f"{where}: 'audio_id' is {shown(audio_id)}, which is not a name that a file can have")


Malformed = Callable[[ManifestError], None]
"""Called with what is wrong with each row that is left out."""


def entries(path: Path) -> Iterator[tuple[Any, Row | ManifestError]]:
    """Each record of a manifest with its row, or with what is wrong with it: a malformed row does not stop the others.

    Raises:
        ManifestError: for a file that is not there or is not JSON.
    """
    for number, record in enumerate(records(path), 1):
        try:
            yield record, row_of(record, path, number)
        except ManifestError as error:
            yield record, error


def usable(path: Path, malformed: Malformed | None = None) -> Iterator[tuple[Any, Row]]:
    """Each record of a manifest that is a row, and the row.

    Args:
        path: the manifest.
        malformed: called with what is wrong with each of the others; without it the first of them is raised.

    Raises:
        ManifestError: for a file that is not there or is not JSON; for a malformed row, without ``malformed``.
    """
    for record, row in entries(path):
        if not isinstance(row, ManifestError):
            yield record, row
        elif malformed is None:
            raise row
        else:
            malformed(row)


@lru_cache(maxsize=4096)
def _beside(manifest: Path, name: str) -> Path:
    return manifest.parent / name  # rows about one clip stand together mostly, and share its path


def _scene(record: dict[str, Any], where: str) -> Scene:
    try:
        scene = Scene.from_row(record)
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise ManifestError(f"{where}: 'events' cannot be read: {shown(str(error))}") from None
    if not 0 <= scene.duration < math.inf:
        raise ManifestError(f"{where}: 'duration' is {scene.duration}, expected seconds")
    for event in scene.events:
        if not isinstance(event.label, str) or event.label not in BY_LABEL:
            raise ManifestError(
                f"{where}: 'events': no class {shown(event.label)}", "give labels of gama.data.scenes.classes"
            )
        if not _is_span(event):
            raise ManifestError(f"{where}: 'events': {shown(event)} is no span of numbers that ends after it starts")
    return scene


def _is_span(event: Event) -> bool:
    numbers = (event.start, event.end, event.count, event.level_db, event.centroid_hz, *event.onsets)
    return all(map(_is_number, numbers)) and 0 <= event.start <= event.end


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and abs(value) <= sys.float_info.max  # False for NaN


def by_clip(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows of the same clip together, in order of first appearance; rows without a clip stand alone."""
    groups: dict[object, list[Row]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row.audio if row.audio is not None else index, []).append(row)
    return list(groups.values())
