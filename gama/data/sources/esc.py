"""ESC-50 and ESC-10: environmental sounds, 50 classes of 40 clips in five folds (github.com/karolpiczak/ESC-50)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from gama.data.sources.data_set import LABEL, Clips, DataSet, Example, filled, plain, rows_of

_COLUMNS = ("filename", "fold", "category", "esc10", "src_file")


def _examples(root: Path, *, ten: bool) -> Iterator[Example]:
    clips = Clips(root, ["audio"])
    for row in rows_of(root / "meta" / "esc50.csv", needed=_COLUMNS):
        if not ten or row["esc10"] == "True":
            yield Example(
                clips.find(name=Path(row["filename"]).stem),
                row["filename"],
                filled(LABEL, label=plain(row["category"])),
                group=f"fs:{row['src_file']}",
                fold=int(row.number("fold")),
            )


_LAYOUT = ("meta/esc50.csv", "audio/1-100032-A-0.wav …")
DATA_SETS = (
    DataSet("esc50", _LAYOUT, partial(_examples, ten=False)),
    DataSet("esc10", _LAYOUT, partial(_examples, ten=True)),
)
