"""FSD50K: 51 197 Freesound clips, 200 classes of AudioSet's ontology (zenodo.org/record/4060432)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gama.data.sources.data_set import Clips, DataSet, Example, labelled, rows_of


def _label(name: str) -> str:
    return name.replace("_and_", " and ").replace("_", " ")


def _examples(root: Path) -> Iterator[Example]:
    for part in ("dev", "eval"):
        clips = Clips(root, [f"FSD50K.{part}_audio"])
        for row in rows_of(root / "FSD50K.ground_truth" / f"{part}.csv", needed=("fname", "labels")):
            yield Example(
                clips.find(name=row["fname"]),
                row["fname"],
                labelled([_label(name) for name in row["labels"].split(",")]),
                split="test" if part == "eval" else row.get("split") or "train",
                group=f"fs:{row['fname']}",
            )


DATA_SETS = (
    DataSet(
        "fsd50k",
        (
            "FSD50K.ground_truth/dev.csv, eval.csv",
            "FSD50K.dev_audio/64760.wav …",
            "FSD50K.eval_audio/37199.wav …",
        ),
        _examples,
    ),
)
