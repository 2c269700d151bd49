"""Beijing Opera percussion: 236 strokes of four instruments, by Mi Tian et al., ICASSP 2014 (on Freesound)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from gama.data.folders import files_below
from gama.data.sources.data_set import CAPTION, ENDINGS, DataSet, Example, Template, filled

_TEMPLATES: tuple[Template, ...] = (
    ("Which percussion instrument is played?", "Instrument: {label}"),
    (CAPTION, "Audio caption: Sound of {label}"),
)
_LABELS = {"bangu": "clapper-drum", "daluo": "large gong", "naobo": "cymbals", "xiaoluo": "small gong"}
_NAME = re.compile(rf"(?:(\d+)__ajaysm__)?({'|'.join(_LABELS)})[\W_]*\d*", re.ASCII)


def _examples(root: Path) -> Iterator[Example]:
    for clip in files_below(root, [f".{ending}" for ending in ENDINGS]):
        if match := _NAME.fullmatch(clip.stem.lower()):
            group = f"fs:{match[1]}" if match[1] else None
            yield Example(clip, clip.name, filled(_TEMPLATES, label=_LABELS[match[2]]), group=group)


DATA_SETS = (DataSet("beijing-opera", ("222146__ajaysm__bangu-16.wav …, in folders of any depth",), _examples),)
