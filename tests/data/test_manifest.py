"""Manifests: the original's row form, JSON Lines, and rows that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gama.data import json_stream
from gama.data.manifest import Row, by_clip, entries, read, records, rows, usable, writing
from gama.errors import ManifestError

ROW = {"audio_id": "a.wav", "instruction": "What?", "output": "A dog."}
EVENT = {"label": "dog", "start": 0.5, "end": 1.0, "count": 1, "level_db": -20.0, "centroid_hz": 900.0}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.json"


def test_the_originals_form(path: Path) -> None:
    full = ROW | {"input": "more", "dataset": "set", "task": "cla", "unknown": [1]}
    path.write_text(json.dumps([ROW, full, ROW | {"audio_id": "empty"}, ROW | {"input": None}]))
    plain, whole, text, null = read(path)
    assert plain.audio == path.parent / "a.wav"
    assert (plain.instruction, plain.output, plain.input, plain.task, plain.dataset) == ("What?", "A dog.", "", "", "")
    assert (plain.scene, plain.fold, plain.check) == (None, None, None)
    assert (whole.input, whole.dataset, whole.task) == ("more", "set", "cla")
    assert text.audio is None
    assert null.input == ""


def test_absolute_clips_stay(path: Path) -> None:
    path.write_text(json.dumps([ROW | {"audio_id": "/far/b.wav"}]))
    assert read(path)[0].audio == Path("/far/b.wav")


def test_json_lines_with_blank_lines_mark_and_odd_separators(path: Path) -> None:
    odd = ROW | {"output": "one\u2028two"}  # a line separator to str.splitlines, not to JSON Lines
    lines = [json.dumps(ROW), "", json.dumps(odd, ensure_ascii=False), ""]
    path.write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    assert [row.output for row in read(path)] == ["A dog.", "one\u2028two"]


def test_truth_fold_and_check(path: Path) -> None:
    check = {"key": "yes", "kind": "word"}
    path.write_text(json.dumps([ROW | {"events": [EVENT], "duration": 3, "fold": 2, "check": check}]))
    (row,) = read(path)
    assert row.scene is not None and row.scene.duration == 3.0
    assert (row.scene.events[0].label, row.fold, row.check) == ("dog", 2, check)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (3, "row 2 is int, expected an object"),
        ({"instruction": "q", "output": "a"}, "row 2: 'audio_id' is None, expected text"),
        (ROW | {"instruction": 5}, "row 2: 'instruction' is 5, expected text"),
        (ROW | {"output": None}, "row 2: 'output' is None"),
        (ROW | {"audio_id": ""}, "row 2: 'audio_id' is '', expected a file"),
        (ROW | {"input": 5}, "row 2: 'input' is 5, expected text"),
        (ROW | {"task": ["a"]}, r"row 2: 'task' is \['a'\], expected text"),
        (ROW | {"fold": "1"}, "row 2: 'fold' is '1', expected a whole number"),
        (ROW | {"fold": True}, "row 2: 'fold' is True"),
        (ROW | {"check": "yes"}, "row 2: 'check' is 'yes', expected an object"),
        (ROW | {"duration": 1, "events": [{"label": "dog"}]}, "row 2: 'events' cannot be read"),
        (ROW | {"duration": "long", "events": []}, "row 2: 'events' cannot be read"),
        (ROW | {"duration": 1, "events": [EVENT | {"label": "dgo"}]}, "row 2: 'events': no class 'dgo'"),
        (ROW | {"duration": 1, "events": [EVENT | {"start": "0"}]}, "row 2: 'events': .*no span of numbers"),
        (ROW | {"duration": 1, "events": [EVENT | {"start": 2.0}]}, "row 2: 'events': .*ends after it starts"),
        (ROW | {"duration": 1, "events": [EVENT | {"end": float("nan")}]}, "row 2: 'events': .*no span"),
    ],
)
def test_malformed_rows_name_file_row_and_field(path: Path, row: Any, message: str) -> None:
    path.write_text(json.dumps([ROW, row]))
    with pytest.raises(ManifestError, match=rf"rows\.json: {message}"):
        read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"audio_id": ', r"rows\.json: row 1 is not JSON: Expecting value"),
        (b"[" + json.dumps(ROW).encode() + b", {oops}]", r"rows\.json: row 2 is not JSON: Expecting property name"),
        (b"[" + json.dumps(ROW).encode() + b' {"a": 1}]', r"rows\.json: row 1 is not JSON: a comma or the end"),
        (b"[" + json.dumps(ROW).encode(), r"rows\.json: row 1 is not JSON: a comma or the end"),
        (b'[{"audio_id": "a', r"rows\.json: row 1 is not JSON: Unterminated string"),
        (b"[" + json.dumps(ROW).encode() + b"] x", r"rows\.json: row 1 is not JSON: more text"),
        (b"[" * 100_000, r"rows\.json: row 1 is not JSON: it is nested too deep"),
        (b'{"a":' + b"[" * 100_000, r"rows\.json: line 1 is nested too deep"),
        (b"[3 4]", r"rows\.json: row 1 is int"),
        (b'{"a": 1}\n{"a":', r"rows\.json: row 1: 'audio_id'"),
        (json.dumps(ROW).encode() + b"\n\n{oops", r"rows\.json: line 3 is not JSON"),
        (b"\xff\xfe[", r"rows\.json: not text in UTF-8"),
    ],
)
def test_malformed_files(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=message):
        read(path)


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("lines", [False, True])
def test_rows_are_the_same_however_the_file_is_cut(
    path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, lines: bool
) -> None:
    expected: list[Any] = [
        ROW | {"output": 'a\\"b] ,\u00e9\U0001f415'},
        ROW | {"x": [1.5e3, None, -0.25, True]},
        17,
        18,
    ]
    text = "\n".join(map(json.dumps, expected)) if lines else json.dumps(expected, ensure_ascii=False, indent=1)
    path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    assert list(records(path)) == expected


def test_rows_come_before_the_rest_is_read(path: Path) -> None:
    path.write_text(json.dumps([ROW] * 30_000) + "oops")  # more than one chunk
    stream = rows(path)
    assert next(stream).output == "A dog."
    with pytest.raises(ManifestError, match="row 30000 is not JSON: more text"):
        list(stream)


def test_a_row_without_an_end_does_not_fill_the_memory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "_LONGEST", 2**20)
    path.write_text('[{"audio_id": "' + "a" * 5 * 2**20)
    with pytest.raises(ManifestError, match="row 1 is not JSON: it is longer than"):
        read(path)


@pytest.mark.parametrize("name", ["out.json", "out.jsonl"])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_written_rows_are_read_again(tmp_path: Path, name: str, count: int) -> None:
    out = tmp_path / "new" / name
    with writing(out) as writer:
        for index in range(count):
            writer.add(ROW | {"output": f"\u2028{index}"})
    assert [row.output for row in read(out)] == [f"\u2028{index}" for index in range(count)]
    assert writer.count == count


def test_a_stopped_writer_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), writing(tmp_path / "out.json") as writer:
        writer.add(ROW)
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_a_missing_manifest(path: Path) -> None:
    with pytest.raises(ManifestError, match=r"rows\.json: no such manifest \(make one with"):
        read(path)


def test_rows_of_a_clip_come_together(path: Path) -> None:
    names = ["a", "b", "a", "empty", "empty"]
    path.write_text(json.dumps([ROW | {"audio_id": n, "output": str(i)} for i, n in enumerate(names)]))
    assert [[row.output for row in group] for group in by_clip(read(path))] == [["0", "2"], ["1"], ["3"], ["4"]]


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": ' + "9" * 5000 + "}", "Exceeds the limit"),
        ("[" * 100_000, "nested too deep|longer than"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deep"),
    ],
    ids=["many digits", "open lists", "nested objects"],
)
def test_values_that_python_does_not_read(path: Path, text: str, message: str, lines: bool) -> None:
    path.write_text(json.dumps(ROW) + "\n" + text if lines else f"[{json.dumps(ROW)},{text}]")
    with pytest.raises(ManifestError, match=message):
        read(path)


def test_a_line_without_an_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "_LONGEST", 2**20)
    path.write_text('{"a": 1}\n{"audio_id": "' + "a" * 5 * 2**20)
    with pytest.raises(ManifestError, match="a line is longer than 1048576 characters"):
        list(records(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"duration": 1, "events": [[1]]}, "'events' cannot be read"),
        ({"duration": 1, "events": {"a": 1}}, "'events' cannot be read"),
        ({"duration": float("nan"), "events": []}, "'duration' is nan, expected seconds"),
        ({"duration": -1, "events": []}, "'duration' is -1.0, expected seconds"),
        ({"duration": 10**400, "events": []}, "'events' cannot be read: .int too large"),
        ({"duration": 1, "events": [EVENT | {"label": ["dog"]}]}, "'events': no class"),
        ({"duration": 1, "events": [EVENT | {"count": 10**400}]}, "'events': .*no span of numbers"),
        ({"duration": 1, "events": [EVENT | {"onsets": ["0"]}]}, "'events': .*no span of numbers"),
        ({"output": "half \ud83d"}, "'output' holds half of a surrogate pair"),
        ({"audio_id": "a\0b"}, "'audio_id' is 'a.x00b', which is not a name that a file can have"),
        ({"input": {"a": list(range(10**5))}}, "'input' is {'a': .0, 1, 2.*, expected text"),
    ],
)
def test_odd_values_of_a_row(path: Path, change: dict[str, Any], message: str) -> None:
    path.write_text(json.dumps([ROW | change]))
    with pytest.raises(ManifestError, match=f"row 1: {message}") as caught:
        read(path)
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)


def test_malformed_rows_come_with_the_others(path: Path) -> None:
    path.write_text(json.dumps([ROW, 7, ROW]))
    assert [type(row) for _, row in entries(path)] == [Row, ManifestError, Row]
    left_out: list[ManifestError] = []
    assert len(list(usable(path, left_out.append))) == 2
    assert [str(error)[-31:] for error in left_out] == ["row 2 is int, expected an object"[-31:]]
    with pytest.raises(ManifestError, match="row 2 is int"):
        list(usable(path))
