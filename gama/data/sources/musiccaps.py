"""MusicCaps: captions of 5 521 AudioSet clips by musicians (huggingface.co/datasets/google/MusicCaps)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from gama.data.sources.audioset import NAMES, find
from gama.data.sources.data_set import Clips, DataSet, Example, Template, filled, rows_of

_TEMPLATES: tuple[Template, ...] = (
    ("Write a caption describing the music.", "Audio caption: {caption}"),
    ("Which words describe this music?", "Aspects: {aspects}"),
)
_ASPECT = re.compile("""'([^']*)'|"([^"]*)\"""")  # the column is a Python list, written out
_COLUMNS = ("ytid", "start_s", "end_s", "aspect_list", "caption", "is_audioset_eval")


def _examples(root: Path) -> Iterator[Example]:
    clips = Clips(root, ["audio", "wav", "."], ["[{id}]-[{start}-{end}]", *NAMES])
    for row in rows_of(root / "musiccaps-public.csv", needed=_COLUMNS):
        aspects = "; ".join(single or double for single, double in _ASPECT.findall(row["aspect_list"]))
        yield Example(
            find(clips, row["ytid"], row.number("start_s"), row.number("end_s")),
            row["ytid"],
            filled(_TEMPLATES, caption=" ".join(row["caption"].split()), aspects=aspects),
            "cap",
            "test" if row["is_audioset_eval"] == "True" else "train",
            f"youtube:{row['ytid']}",
        )


DATA_SETS = (
    DataSet("musiccaps", ("musiccaps-public.csv", "audio/-0Gj8-vB1q4.wav … or [ID]-[START-END].wav"), _examples),
)
