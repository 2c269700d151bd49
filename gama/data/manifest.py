"""Manifests: rows of (clip, question, answer) in the original's JSON form or as JSON Lines."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
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

_TEXT_FIELDS = ("audio_id", "instruction", "output")
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
        self._file.write(json.dumps(record, ensure_ascii=False))
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
                f"{where}: {name!r} is {record.get(name)!r}, expected text",
                "every row needs audio_id, instruction and output",
            )
    if not record["audio_id"]:
        raise ManifestError(f"{where}: 'audio_id' is '', expected a file", "a row without a clip says 'empty'")
    for name, (kind, expected) in _OPTIONAL.items():
        value = record.get(name)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise ManifestError(f"{where}: {name!r} is {value!r}, expected {expected}")
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


@lru_cache(maxsize=4096)
def _beside(manifest: Path, name: str) -> Path:
    return manifest.parent / name  # rows about one clip stand together mostly, and share its path


def _scene(record: dict[str, Any], where: str) -> Scene:
    try:
        scene = Scene.from_row(record)
    except (TypeError, ValueError, KeyError) as error:
        raise ManifestError(f"{where}: 'events' cannot be read: {error}") from None
    for event in scene.events:
        if event.label not in BY_LABEL:
            raise ManifestError(
                f"{where}: 'events': no class {event.label!r}", "give labels of gama.data.scenes.classes"
            )
        if not _sound(event):
            raise ManifestError(f"{where}: 'events': {event} is no span of numbers that ends after it starts")
    return scene


def _sound(event: Event) -> bool:
    numbers = (event.start, event.end, event.count, event.level_db, event.centroid_hz)
    return all(isinstance(n, (int, float)) and math.isfinite(n) for n in numbers) and 0 <= event.start <= event.end


def by_clip(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows of the same clip together, in order of first appearance; rows without a clip stand alone."""
    groups: dict[object, list[Row]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row.audio if row.audio is not None else index, []).append(row)
    return list(groups.values())
