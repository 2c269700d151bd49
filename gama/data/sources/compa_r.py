"""CompA-R: questions that need reasoning, about AudioSet-strong clips (github.com/Sreyan88/GAMA)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gama.data.manifest import records
from gama.data.origins import origin
from gama.data.sources.data_set import Clips, DataSet, Example
from gama.errors import ManifestError


def _examples(root: Path) -> Iterator[Example]:
    tables = sorted(root.glob("*.json"))
    if not tables:
        raise ManifestError(f"{root} holds no *.json", "put CompA-R's JSON files into the folder of its clips")
    for table in tables:
        split = "test" if "test" in table.stem.lower() else "train"
        for number, record in enumerate(records(table), 1):
            yield _example(root, table, number, record, split)


def _example(root: Path, table: Path, number: int, record: Any, split: str) -> Example:
    where = f"{table}: row {number}"
    if not isinstance(record, dict) or not isinstance(record.get("audio_id"), str):
        raise ManifestError(f"{where}: 'audio_id' is not text")
    pairs = record.get("instruction_output", [record])
    if not isinstance(pairs, list) or not all(isinstance(pair, dict) for pair in pairs):
        raise ManifestError(f"{where}: 'instruction_output' is not a list of objects")
    questions = []
    for pair in pairs:
        if not isinstance(pair.get("instruction"), str) or not isinstance(pair.get("output"), str):
            raise ManifestError(f"{where}: 'instruction_output' holds a pair without 'instruction' and 'output'")
        questions.append((pair["instruction"], pair["output"]))
    given = Path(record["audio_id"])
    clip = root / given if (root / given).is_file() else Clips(root, ["audio", "audios", "."]).find(name=given.stem)
    kept = {key: record[key] for key in ("timestamp_events", "caption") if key in record}
    group = origin({"audio_id": given.name, "dataset": "compa-r"})
    return Example(clip, given.name, tuple(questions), "open-ended question", split, group, more=kept)


DATA_SETS = (
    DataSet("compa-r", ("*.json, with test in the name of what is held out", "audio/ with the clips"), _examples),
)
