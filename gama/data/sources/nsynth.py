"""NSynth: 305 979 notes of 1 006 instruments (magenta.tensorflow.org/datasets/nsynth)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gama.data.sources.data_set import Clips, DataSet, Example, Template, filled, json_of, plain
from gama.errors import ManifestError

_TEMPLATES: tuple[Template, ...] = (
    ("Which instrument plays this note?", "Instrument: {family}"),
    ("Is the instrument acoustic, electronic or synthetic?", "Source: {source}"),
)
_PARTS = {"nsynth-train": "train", "nsynth-valid": "val", "nsynth-test": "test"}


def _examples(root: Path) -> Iterator[Example]:
    there = [part for part in _PARTS if (root / part).is_dir()]
    if not there:
        raise ManifestError(f"{root} holds none of {', '.join(_PARTS)}")
    for part in there:
        clips = Clips(root / part, ["audio"])
        for name, note in json_of(root / part / "examples.json").items():
            family, source = plain(note["instrument_family_str"]), plain(note["instrument_source_str"])
            questions = filled(_TEMPLATES, family=family, source=source)
            yield Example(clips.find(name=name), name, questions, split=_PARTS[part])


DATA_SETS = (
    DataSet(
        "nsynth",
        (
            "nsynth-train/, nsynth-valid/, nsynth-test/: those there are",
            "each with examples.json and audio/bass_acoustic_000-024-025.wav …",
        ),
        _examples,
    ),
)
