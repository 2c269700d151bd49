"""TUT Acoustic scenes 2017: 15 places, clips of 10 s (zenodo.org/record/400515 and 1040168)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gama.data.sources.data_set import CAPTION, Clips, DataSet, Example, Template, filled, first_of, plain, rows_of
from gama.errors import ManifestError

_TEMPLATES: tuple[Template, ...] = (
    ("Where was this recorded?", "Scene: {label}"),
    (CAPTION, "Audio caption: Sound of {label}"),
)
_PARTS = {"development": "train", "evaluation": "test"}


def _examples(root: Path) -> Iterator[Example]:
    folders = {part: first_of(root, f"TUT-acoustic-scenes-2017-{part}", part) for part in _PARTS}
    there = [part for part, folder in folders.items() if folder.is_dir()]
    if not there:
        raise ManifestError(f"{root} holds none of {', '.join(folder.name for folder in folders.values())}")
    for part in there:
        folder = folders[part]
        clips = Clips(folder, ["audio"])
        table = first_of(folder, "meta.txt", "evaluation_setup/evaluate.txt")
        for row in rows_of(table, ("file", "scene", "place"), needed=("file", "scene"), delimiter="\t"):
            yield Example(
                clips.find(name=Path(row["file"]).stem),
                row["file"],
                filled(_TEMPLATES, label=plain(row["scene"])),
                split=_PARTS[part],
                group=f"tut17:{row['place']}" if row["place"] else None,
            )


DATA_SETS = (
    DataSet(
        "tut17",
        (
            "TUT-acoustic-scenes-2017-development/, TUT-acoustic-scenes-2017-evaluation/: those there are",
            "each with meta.txt and audio/b020_90_100.wav …",
        ),
        _examples,
    ),
)
