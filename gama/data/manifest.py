"""Manifests: rows of (clip, question, answer) in the original's JSON form or as JSON Lines."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
_FORM = "a manifest is a JSON list of rows, or a row a line"


@dataclass(frozen=True)
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
    return [_row(record, path, number) for number, record in enumerate(_records(path), 1)]


def _records(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise ManifestError(f"{path}: no such manifest", "make one with: gama prepare scenes")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not text in UTF-8: {error.reason} at byte {error.start}", _FORM) from None
    if text.lstrip().startswith("["):
        try:
            yield from json.loads(text)
        except json.JSONDecodeError as error:
            raise ManifestError(f"{path}: not JSON: {error}", _FORM) from None
        return
    for number, line in enumerate(text.split("\n"), 1):  # splitlines would also split at U+2028 within a text
        if line.strip():
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise ManifestError(f"{path}: line {number} is not JSON: {error.msg}", _FORM) from None


def _row(record: Any, path: Path, number: int) -> Row:
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
        audio=None if record["audio_id"] == "empty" else path.parent / record["audio_id"],
        instruction=record["instruction"],
        output=record["output"],
        input=record.get("input") or "",
        task=record.get("task") or "",
        dataset=record.get("dataset") or "",
        scene=_scene(record, where) if "events" in record and "duration" in record else None,
        fold=record.get("fold"),
        check=record.get("check"),
    )


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
