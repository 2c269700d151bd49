"""VGGSound: 199 176 clips of YouTube videos, 309 classes (robots.ox.ac.uk/~vgg/data/vggsound)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gama.data.sources.data_set import Clips, DataSet, Example, labelled, rows_of

_COLUMNS = ("id", "start", "label", "split")


def _examples(root: Path) -> Iterator[Example]:
    folders = ["audio", "video", "vggsound", "train", "test", "."]
    clips = Clips(root, folders, ["{id}_{start:06d}", "{id}_{start}", "Y{id}", "{id}"])
    for row in rows_of(root / "vggsound.csv", _COLUMNS):
        yield Example(
            clips.find(id=row["id"], start=int(row.number("start"))),
            f"{row['id']}_{row['start']}",
            labelled([row["label"]]),
            split=row["split"].strip(),
            group=f"youtube:{row['id']}",
        )


DATA_SETS = (
    DataSet("vggsound", ("vggsound.csv", "video/---g-f_I2yQ_000001.mp4 … or audio/, or the clips alone"), _examples),
)
