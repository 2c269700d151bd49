"""Manifests: rows of (clip, question, answer) in the original's JSON form or as JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gama.data.scenes.scene import Scene
from gama.errors import ManifestError

_TEXT_FIELDS = ("audio_id", "instruction", "output")


@dataclass(frozen=True)
class Row:
    """One question about one clip.

    Attributes:
        audio: the clip's file; None for a question without a clip.
        instruction, input, output: question, further text, answer.
        task, dataset: what the row is for and where it comes from.
        scene: exact truth, where the manifest carries it (``events``, ``duration``).
        fold: cross-validation fold of the recording, where it has one.
    """

    audio: Path | None
    instruction: str
    output: str
    input: str = ""
    task: str = ""
    dataset: str = ""
    scene: Scene | None = None
    fold: int | None = None


def read(path: Path) -> list[Row]:
    """All rows of a manifest; relative clips are looked for beside it.

    Raises:
        ManifestError: naming file, row and field.
    """
    return [_row(record, path, number) for number, record in enumerate(_records(path), 1)]


def _records(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise ManifestError(f"{path}: no such manifest", "make one with: gama prepare scenes")
    text = path.read_text(encoding="utf-8")
    try:
        if text.lstrip().startswith("["):
            yield from json.loads(text)
            return
        for line in text.splitlines():
            if line.strip():
                yield json.loads(line)
    except json.JSONDecodeError as error:
        raise ManifestError(f"{path}: not JSON: {error}", "a manifest is a JSON list of rows, or a row a line") from None


def _row(record: Any, path: Path, number: int) -> Row:
    if not isinstance(record, dict):
        raise ManifestError(f"{path}: row {number} is {type(record).__name__}, expected an object")
    for name in _TEXT_FIELDS:
        if not isinstance(record.get(name), str):
            raise ManifestError(
                f"{path}: row {number}: {name!r} is {record.get(name)!r}, expected text",
                "every row needs audio_id, instruction and output",
            )
    audio = None if record["audio_id"] == "empty" else path.parent / record["audio_id"]
    try:
        scene = Scene.from_row(record) if "events" in record and "duration" in record else None
    except (TypeError, ValueError, KeyError) as error:
        raise ManifestError(f"{path}: row {number}: 'events' cannot be read: {error}") from None
    return Row(
        audio=audio,
        instruction=record["instruction"],
        output=record["output"],
        input=record.get("input") or "",
        task=record.get("task") or "",
        dataset=record.get("dataset") or "",
        scene=scene,
        fold=record.get("fold"),
    )


def by_clip(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows of the same clip together, in order of first appearance; rows without a clip stand alone."""
    groups: dict[object, list[Row]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row.audio if row.audio is not None else index, []).append(row)
    return list(groups.values())
