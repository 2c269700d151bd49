"""VocalSound: laughter, sighs, coughs, throat clearing, sneezes and sniffs (github.com/YuanGongND/vocalsound)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gama.data.sources.data_set import LABEL, Clips, DataSet, Example, filled, json_of
from gama.errors import ManifestError

_LABELS = {
    "laughter": "laughter",
    "sigh": "sigh",
    "cough": "cough",
    "throatclearing": "throat clearing",
    "sneeze": "sneeze",
    "sniff": "sniff",
}
_TABLES = {"tr": "train", "val": "val", "te": "test"}


def _examples(root: Path) -> Iterator[Example]:
    clips = Clips(root, ["audio_16k", "audio_44k", "data_44k", "."])
    for table, split in _TABLES.items():
        for entry in json_of(root / "datafiles" / f"{table}.json")["data"]:
            stem = Path(entry["wav"]).stem  # f0003_0_cough: speaker, take, sound
            label = _LABELS.get(stem.rpartition("_")[2])
            if label is None:
                raise ManifestError(f"{root / 'datafiles' / table}.json: {stem!r} names none of {', '.join(_LABELS)}")
            yield Example(clips.find(name=stem), stem, filled(LABEL, label=label), split=split)


DATA_SETS = (
    DataSet("vocalsound", ("datafiles/tr.json, val.json, te.json", "audio_16k/f0003_0_cough.wav …"), _examples),
)
