"""Good answers become rows that ``gama train`` reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gama import audio
from gama.chat.events import Event, Failed, Note
from gama.chat.session import Session
from gama.data.manifest import Row, read

Make = Callable[..., Session]


def does(session: Session, *lines: str) -> list[Event]:
    return [event for line in lines for event in session.line(line)]


def exported(session: Session, name: str) -> tuple[list[Row], list[str]]:
    """The rows written, and the notes."""
    events = does(session, f"/export-manifest {name}")
    assert not [event for event in events if isinstance(event, Failed)], events
    return read(Path(name)), [event.text for event in events if isinstance(event, Note)]


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "below/rows.json"])
def test_good_pairs_are_rows(make: Make, clips: Path, name: str) -> None:
    Path("below").mkdir()
    session = make()
    does(session, "hello?", "/good", "dog.wav", "one", "/good", "two", "three", "/bad", "/good a «dog»", "four", "/bad")
    rows, _ = exported(session, name)
    assert [(row.instruction, row.output) for row in rows] == [
        ("hello?", "I heard: hello?"),
        ("one", "I heard: one"),
        ("three", "a «dog»"),
    ]
    assert {(row.task, row.dataset) for row in rows} == {("chat", "gama-chat")}
    assert rows[0].audio is None
    for row in rows[1:]:
        assert row.audio is not None and row.audio.samefile("dog.wav")
    relative = '"dog.wav"' in Path(name).read_text()
    assert relative == (not name.startswith("below"))  # below the manifest: they move together


def test_spans_and_windows_are_written_as_they_were_heard(make: Make, clips: Path) -> None:
    session = make()
    does(session, "/audio long.wav 3-5.5", "one", "/good", "long.wav", "two", "/good")
    rows, _ = exported(session, "rows.json")
    heard = [part for clip in session.shelf if clip.waveform for part in audio.windows(clip.waveform)]
    assert len(rows) == 4
    assert [audio.load(row.audio).sha256 for row in rows if row.audio] == [window.sha256 for window in heard]
    assert [row.output for row in rows] == ["I heard: one", *["I heard: two"] * 3]
    assert sorted(p.name for p in Path("rows_clips").iterdir() if p.suffix != ".wav") == []


def test_what_cannot_be_a_row_is_told(make: Make, clips: Path) -> None:
    session = make()
    does(session, "dog.wav", "one", "/good", "bells.flac", "@all two", "/good", "long.wav", "three", "/good right")
    does(session, "bells.flac", "four", "/good", "/drop bells-2")
    rows, notes = exported(session, "rows.json")
    assert [row.instruction for row in rows] == ["one"]
    text = "\n".join(notes)
    for reason in ("two: it is about several clips", "three: one right answer for 3 windows", "four: its clip bells-2"):
        assert reason in text


def test_nothing_to_write(make: Make, clips: Path) -> None:
    session = make()
    does(session, "dog.wav", "one")
    (failed,) = does(session, "/export-manifest rows.json")
    assert isinstance(failed, Failed) and "/good" in str(failed)
    assert not Path("rows.json").exists()
    Path("rows.json").write_text("[]")
    (failed,) = does(session, "/good", "/export-manifest rows.json")[1:]
    assert isinstance(failed, Failed) and "--force" in str(failed)
    assert Path("rows.json").read_text() == "[]" and not Path("rows_clips").exists()
