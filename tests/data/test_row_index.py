"""Rows on the disk: the same rows as those read whole, in the same groups, in little memory."""

from __future__ import annotations

import json
import os
import pickle
import random
from pathlib import Path
from typing import Any

import pytest

from gama.data.manifest import Row, by_clip, read
from gama.data.row_index import ClipPaths, RowIndex
from gama.errors import ManifestError

FORMS = ["list", "indented", "lines", "bom", "blank lines"]


def records(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows about few clips, some about none, with texts of one to four bytes a character."""
    chance = random.Random(seed)
    made = []
    for number in range(count):
        audio = chance.choice(["a.wav", "b.wav", "ü/ä.wav", "c.wav", "empty"])
        text = chance.choice(["plain", "hör \u2028 zu", '😀 "quoted" [list], {more}', "line\nbreak"])
        made.append({"audio_id": audio, "instruction": text, "output": f"{text} {number}", "fold": number % 3})
    return made


def write(path: Path, rows: list[dict[str, Any]], form: str = "list") -> Path:
    if form in ("lines", "blank lines"):
        gap = "\n\n" if form == "blank lines" else "\n"
        text = gap.join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n"
    else:
        text = json.dumps(rows, ensure_ascii=False, indent=2 if form == "indented" else None)
    path.write_bytes((b"\xef\xbb\xbf" if form == "bom" else b"") + text.encode())
    return path


def groups(index: RowIndex, *, together: bool) -> list[list[Row]]:
    order, starts = index.grouped(together=together)
    return [[index[int(row)] for row in order[a:b]] for a, b in zip(starts[:-1], starts[1:], strict=True)]


@pytest.mark.parametrize("form", FORMS)
def test_every_row_is_what_a_reading_of_the_whole_gives(tmp_path: Path, form: str) -> None:
    path = write(tmp_path / "rows.json", records(40), form)
    index = RowIndex([path])
    assert [index[i] for i in range(len(index))] == read(path)


def test_rows_that_reach_over_what_is_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for form in FORMS:
        path = write(tmp_path / f"{form}.json", records(40), form)
        for chunk in (1, 7, 64):
            monkeypatch.setattr("gama.data.json_stream._CHUNK", chunk)
            index = RowIndex([path])
            assert [index[i] for i in range(len(index))] == read(path), (form, chunk)


def test_groups_are_those_of_by_clip(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one.json", records(50)), write(tmp_path / "two.jsonl", records(30, 5), "lines")
    index = RowIndex([one, two, one], lambda row: row.fold != 1)
    parts = [[row for row in read(path) if row.audio is not None and row.fold != 1] for path in (one, two, one)]
    assert groups(index, together=True) == [group for part in parts for group in by_clip(part)]
    assert groups(index, together=False) == [[row] for part in parts for row in part]
    clips = list(dict.fromkeys(row.audio for part in parts for row in part))
    assert list(ClipPaths(index)) == clips
    assert [clips[n] for n in index.clip if n >= 0] == [row.audio for part in parts[:2] for row in part]


def test_no_rows(tmp_path: Path) -> None:
    index = RowIndex([write(tmp_path / "none.json", [])])
    assert groups(index, together=True) == []
    none = RowIndex([write(tmp_path / "all.json", records(5))], lambda row: False)
    assert (groups(none, together=True), none.clips) == ([], 0)


def test_a_row_needs_few_bytes_whatever_its_length(tmp_path: Path) -> None:
    rows = [{"audio_id": f"{i // 5}.wav", "instruction": "What? " * 20, "output": "word " * 50} for i in range(2000)]
    index = RowIndex([write(tmp_path / "rows.json", rows)])
    order, starts = index.grouped(together=True)
    assert index.nbytes / 2000 < 20
    assert (index.nbytes + order.nbytes + starts.nbytes) / 2000 < 26


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.json", [*records(3), {"audio_id": "a.wav", "instruction": 3, "output": ""}])
    with pytest.raises(ManifestError, match=r"rows\.json: row 4: 'instruction' is 3"):
        RowIndex([path])
    with pytest.raises(ManifestError, match="no such manifest"):
        RowIndex([tmp_path / "none.json"])


def test_a_manifest_that_changes_under_a_run_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.json", records(5))
    index = RowIndex([path])
    assert index[1] == read(path)[1]
    write(path, records(4))
    with pytest.raises(ManifestError, match=r"rows\.json: was changed while it was read from"):
        index[1]


def test_another_process_opens_for_itself(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.json", records(5))
    index = RowIndex([path])
    expected = index[2]
    again = pickle.loads(pickle.dumps(index))
    assert not again.handles
    open_before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert again[2] == expected
    del again
    if open_before:
        assert len(os.listdir("/proc/self/fd")) == open_before


def test_half_a_surrogate_pair_is_refused_with_its_row(tmp_path: Path) -> None:
    """Before a run begins, and not by the tokenizer in its midst."""
    path = tmp_path / "rows.json"
    good = {"audio_id": "a.wav", "instruction": "q", "output": "a"}
    path.write_text(json.dumps([good, good | {"output": "A \ud83d dog"}]))
    with pytest.raises(ManifestError, match=r"rows\.json: row 2: 'output' holds half of a surrogate pair"):
        RowIndex([path])


def test_where_rows_stand(tmp_path: Path) -> None:
    good = {"audio_id": "a.wav", "instruction": "q", "output": "a"}
    first, second = tmp_path / "a.json", tmp_path / "b.jsonl"
    first.write_text(json.dumps([good, good | {"output": " "}]))
    second.write_text(json.dumps(good | {"output": ""}) + "\n" + json.dumps(good | {"instruction": ""}) + "\n")
    index = RowIndex([first, second])
    assert index.where(index.empty_answers) == f"{first}: row 2, {second}: row 1"
    assert index.where(index.empty_questions) == f"{second}: row 2"
    assert index.where([0] * 6).endswith(" …")
