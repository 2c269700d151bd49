"""DCASE 2017 task 4: 17 sounds of warning and traffic, from AudioSet (dcase.community/challenge2017)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gama.data.sources.data_set import Clips, DataSet, Example, first_of, labelled, rows_of
from gama.errors import ManifestError

_PARTS = {"training": "train", "testing": "val", "evaluation": "test"}
_TABLE = "groundtruth_weak_label_{part}_set.csv"


def _examples(root: Path) -> Iterator[Example]:
    tables = {part: first_of(root, f"metadata/{name}", name) for part in _PARTS for name in [_TABLE.format(part=part)]}
    there = [part for part, table in tables.items() if table.is_file()]
    if not there:
        raise ManifestError(f"{root} holds none of {', '.join(_TABLE.format(part=part) for part in _PARTS)}")
    for part in there:
        labels: dict[str, list[str]] = {}
        for row in rows_of(tables[part], ("file", "start", "end", "label"), delimiter="\t"):
            labels.setdefault(row["file"], []).append(row["label"].strip())
        long = f"unbalanced_train_segments_{part}_set_audio_formatted_and_segmented_downloads"
        folders = [part, f"audio/{part}", long, f"{part}_set_formatted_audio_segments", "audio"]
        clips = Clips(root, folders, ["Y{name}", "{name}"])
        for file, names in labels.items():
            clip = clips.find(name=Path(file).stem)
            yield Example(clip, file, labelled(names), split=_PARTS[part], group=f"youtube:{file[:11]}")


DATA_SETS = (
    DataSet(
        "dcase17",
        (
            "metadata/groundtruth_weak_label_training_set.csv, …testing…, …evaluation…: those there are",
            "training/, testing/, evaluation/ with Y-5QrBL6MzLg_60.000_70.000.wav …",
        ),
        _examples,
    ),
)
