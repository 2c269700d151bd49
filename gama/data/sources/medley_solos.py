"""Medley-solos-DB: 21 571 clips of one instrument alone, eight instruments (zenodo.org/record/3464194)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gama.data.sources.data_set import Clips, DataSet, Example, Template, filled, rows_of

_TEMPLATES: tuple[Template, ...] = (("Which instrument plays in this recording?", "Instrument: {label}"),)
_SPLITS = {"training": "train", "validation": "val", "test": "test"}
_COLUMNS = ("subset", "instrument", "instrument_id", "song_id", "uuid4")


def _examples(root: Path) -> Iterator[Example]:
    clips = Clips(root, ["Medley-solos-DB", "audio", "."])
    for row in rows_of(root / "Medley-solos-DB_metadata.csv", needed=_COLUMNS):
        name = f"Medley-solos-DB_{row['subset']}-{row['instrument_id']}_{row['uuid4']}"
        questions = filled(_TEMPLATES, label=row["instrument"].lower())
        split = row.one_of("subset", _SPLITS)
        yield Example(clips.find(name=name), name, questions, split=split, group=f"medley-solos:{row['song_id']}")


DATA_SETS = (
    DataSet(
        "medley-solos",
        ("Medley-solos-DB_metadata.csv", "Medley-solos-DB/Medley-solos-DB_test-0_….wav …"),
        _examples,
    ),
)
