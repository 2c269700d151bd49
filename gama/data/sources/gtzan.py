"""GTZAN: 1 000 pieces of music of 30 s, ten genres (marsyas.info)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gama.data.sources.data_set import ENDINGS, DataSet, Example, Template, filled, first_of
from gama.errors import ManifestError

_TEMPLATES: tuple[Template, ...] = (("What is the genre of this music?", "Genre: {label}"),)
_GENRES = ["blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock"]


def _examples(root: Path) -> Iterator[Example]:
    folder = first_of(root, "genres", "genres_original", "blues/..")
    there = [genre for genre in _GENRES if (folder / genre).is_dir()]
    if not there:
        raise ManifestError(f"{root} holds no folder of a genre such as genres/blues")
    for genre in there:
        for clip in sorted(path for path in (folder / genre).iterdir() if path.suffix[1:].lower() in ENDINGS):
            yield Example(clip, clip.name, filled(_TEMPLATES, label=genre))


DATA_SETS = (DataSet("gtzan", ("genres/blues/blues.00000.au … (.au needs gama-audio[media]) or wav",), _examples),)
