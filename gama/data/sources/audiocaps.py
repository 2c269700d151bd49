"""AudioCaps: captions of AudioSet clips, one each for training and five for evaluation (audiocaps.github.io)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gama.data.sources.audioset import NAMES, find
from gama.data.sources.data_set import Clips, DataSet, Example, Template, filled, first_of, rows_of

_TEMPLATES: tuple[Template, ...] = (
    ("Write an audio caption describing the sound, in AudioCaps style.", "Audio caption: {caption}"),
)


def _examples(root: Path) -> Iterator[Example]:
    for split in ("train", "val", "test"):
        table = first_of(root, f"{split}.csv", f"dataset/{split}.csv")
        clips = Clips(root, [split, f"audio/{split}", "audio", "."], NAMES)
        for row in rows_of(table, needed=("audiocap_id", "youtube_id", "start_time", "caption")):
            start = row.number("start_time")
            yield Example(
                find(clips, row["youtube_id"], start, start + 10),
                row["youtube_id"],
                filled(_TEMPLATES, caption=row["caption"].strip()),
                "cap",
                split,
                f"youtube:{row['youtube_id']}",
            )


DATA_SETS = (
    DataSet(
        "audiocaps", ("train.csv, val.csv, test.csv", "train/rqfQRErjfk8.wav … or audio/, by YouTube id"), _examples
    ),
)
