"""AudioSet-strong: AudioSet segments with the time of every event (research.google.com/audioset/download_strong)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gama.data.sources.audioset import NAMES, find
from gama.data.sources.data_set import Clips, DataSet, Example, Template, labelled, rows_of
from gama.errors import ManifestError

_TABLES = {"audioset_train_strong": "train", "audioset_eval_strong": "test"}
_COLUMNS = ("segment_id", "start_time_seconds", "end_time_seconds", "label")
_SECONDS = 10.0  # a segment
Event = tuple[str, float, float]


def _examples(root: Path) -> Iterator[Example]:
    names = rows_of(root / "mid_to_display_name.tsv", ("mid", "name"), delimiter="\t")
    name_of = {row["mid"]: row["name"] for row in names}
    there = {table: split for table, split in _TABLES.items() if (root / f"{table}.tsv").is_file()}
    if not there:
        raise ManifestError(f"{root} holds none of {', '.join(f'{table}.tsv' for table in _TABLES)}")
    for table, split in there.items():
        segments: dict[str, list[Event]] = {}
        for row in rows_of(root / f"{table}.tsv", needed=_COLUMNS, delimiter="\t"):
            times = row.number("start_time_seconds"), row.number("end_time_seconds")
            segments.setdefault(row["segment_id"], []).append((name_of.get(row["label"], row["label"]), *times))
        clips = Clips(root, [table, f"audio/{table}", "audio", "."], NAMES)
        for segment, events in segments.items():
            video, start = segment[:11], int(segment[12:] or 0) / 1000
            clip, events = find(clips, video, start, start + _SECONDS), sorted(events, key=lambda e: e[1:])
            yield Example(clip, segment, _questions(events), "temporal", split, f"youtube:{video}", more=_truth(events))


def _questions(events: list[Event]) -> tuple[Template, ...]:
    spans: dict[str, list[str]] = {}
    for label, start, end in events:
        spans.setdefault(label, []).append(f"{start:.1f}s-{end:.1f}s")
    when = tuple(
        (f"When does {label.lower()} sound?", f"{label}: {', '.join(times)}") for label, times in spans.items()
    )
    every = "; ".join(f"{label} {', '.join(times)}" for label, times in spans.items())
    all_of_them: Template = ("List the sound events with their times.", f"Events: {every}")
    order: tuple[Template, ...] = ()
    if len(spans) > 1:
        order = (("In which order do the sounds begin?", f"Order: {'; '.join(spans)}"),)
    return (*labelled(list(spans)), *order, all_of_them, *when)


def _truth(events: list[Event]) -> dict[str, object]:
    return {"timestamp_events": [[label, start, end] for label, start, end in events]}


DATA_SETS = (
    DataSet(
        "audioset-strong",
        (
            "mid_to_display_name.tsv",
            "audioset_train_strong.tsv, audioset_eval_strong.tsv: those there are",
            "audio/s9d-2nhuJCQ.wav … or audioset_train_strong/; s9d-2nhuJCQ_30000.wav is found, too",
        ),
        _examples,
    ),
)
