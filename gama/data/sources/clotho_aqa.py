"""ClothoAQA: six questions for each of 1 991 Clotho clips, three answers each (zenodo.org/record/6473207)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from gama.data.sources.data_set import Clips, DataSet, Example, rows_of


def _examples(root: Path) -> Iterator[Example]:
    clips = Clips(root, ["audio_files", "audio", "."])
    for split in ("train", "val", "test"):
        answers: dict[tuple[str, str], Counter[str]] = {}
        columns = ("file_name", "QuestionText", "answer")
        for row in rows_of(root / f"clotho_aqa_{split}.csv", needed=columns):
            asked = answers.setdefault((row["file_name"], row["QuestionText"].strip()), Counter())
            asked[row["answer"].strip().lower()] += 1
        for (file, question), given in answers.items():
            most = given.most_common(1)[0][0]  # the first given, where all three differ
            clip = clips.find(name=Path(file).stem)
            yield Example(clip, file, ((question, most),), "closed-ended question", split)


DATA_SETS = (
    DataSet(
        "clotho-aqa",
        ("clotho_aqa_train.csv, clotho_aqa_val.csv, clotho_aqa_test.csv", "audio_files/ with the clips"),
        _examples,
    ),
)
