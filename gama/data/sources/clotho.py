"""Clotho: Freesound clips of 15 to 30 s with five captions each (zenodo.org/record/4783391)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gama.data.sources.data_set import Clips, DataSet, Example, Template, filled, first_of, rows_of

_TEMPLATES: tuple[Template, ...] = (("Create a caption for audio, in Clotho style.", "Audio caption: {caption}"),)
_PARTS = {"development": "train", "validation": "val", "evaluation": "test"}
_CAPTIONS = tuple(f"caption_{number}" for number in range(1, 6))


def _examples(root: Path) -> Iterator[Example]:
    for part, split in _PARTS.items():
        name = f"clotho_captions_{part}.csv"
        clips = Clips(root, [part, f"clotho_audio_{part}/{part}", f"clotho_audio_{part}"])
        recording = _recordings(root, part)
        for row in rows_of(first_of(root, name, f"{part}/{name}"), needed=("file_name", *_CAPTIONS)):
            file = row["file_name"]
            questions = [qa for key in _CAPTIONS for qa in filled(_TEMPLATES, caption=row[key].strip())]
            clip = clips.find(name=Path(file).stem)
            yield Example(clip, file, tuple(questions), "cap", split, recording.get(file))


def _recordings(root: Path, part: str) -> dict[str, str]:
    """The Freesound number of every file, where the table of metadata is there."""
    table = root / f"clotho_metadata_{part}.csv"
    if not table.is_file():
        return {}
    rows = rows_of(table, needed=("file_name", "sound_id"))
    return {row["file_name"]: f"fs:{row['sound_id']}" for row in rows if row["sound_id"].isdigit()}


DATA_SETS = (
    DataSet(
        "clotho",
        (
            "clotho_captions_development.csv, …_validation.csv, …_evaluation.csv",
            "clotho_metadata_development.csv …: not needed; they name the recordings",
            "development/, validation/, evaluation/ with the clips",
        ),
        _examples,
    ),
)
