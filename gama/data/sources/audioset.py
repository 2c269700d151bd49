"""AudioSet: ten-second segments of YouTube videos with the labels of 527 classes (research.google.com/audioset)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gama.data.sources.data_set import Clips, DataSet, Example, labelled, rows_of
from gama.errors import ManifestError

_TABLES = {"balanced_train_segments": "train", "unbalanced_train_segments": "train", "eval_segments": "test"}
_COLUMNS = ("id", "start", "end", "labels")
NAMES = ("{id}", "Y{id}", "{id}_{start}", "{id}_{ms}", "{id}_{start}_{end}", "Y{id}_{start:.3f}_{end:.3f}")
"""How tools that fetch AudioSet name its clips."""


def _examples(root: Path) -> Iterator[Example]:
    index = rows_of(root / "class_labels_indices.csv", needed=("mid", "display_name"))
    name_of = {row["mid"]: row["display_name"] for row in index}
    there = {table: split for table, split in _TABLES.items() if (root / f"{table}.csv").is_file()}
    if not there:
        raise ManifestError(f"{root} holds none of {', '.join(f'{table}.csv' for table in _TABLES)}")
    for table, split in there.items():
        clips = Clips(root, [table, f"audio/{table}", "audio", "."], NAMES)
        for row in rows_of(root / f"{table}.csv", _COLUMNS, comment="#"):
            yield Example(
                find(clips, row["id"], row.number("start"), row.number("end")),
                row["id"],
                labelled([name_of.get(mid, mid) for mid in row["labels"].split(",")]),
                split=split,
                group=f"youtube:{row['id']}",
            )


def find(clips: Clips, video: str, start: float, end: float) -> Path | None:
    """The clip of a segment given in seconds."""
    whole = int(start) if start.is_integer() else start
    last = int(end) if end.is_integer() else end
    return clips.find(id=video, start=whole, end=last, ms=round(start * 1000))


DATA_SETS = (
    DataSet(
        "audioset",
        (
            "class_labels_indices.csv",
            "balanced_train_segments.csv, unbalanced_train_segments.csv, eval_segments.csv: those there are",
            "balanced_train_segments/--4gqARaEJE.wav … or audio/, with or without a Y in front, the seconds behind",
        ),
        _examples,
    ),
)
