"""Saved and loaded is the same conversation; anything else is refused with the session intact."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from chat.stub import Stub

from gama.chat.events import Event, Failed, Note
from gama.chat.session import Session

Make = Callable[..., Session]


def does(session: Session, *lines: str) -> list[Event]:
    return [event for line in lines for event in session.line(line)]


def failure(events: Iterable[Event]) -> str:
    (found,) = [event for event in events if isinstance(event, Failed)]
    assert not found.internal, found
    return str(found)


@pytest.fixture
def talked(make: Make, clips: Path) -> Session:
    session = make(memory="full", temperature=0.5, seed=3)
    does(
        session,
        "/system be brief",
        "dog.wav",
        "one",
        "/good it is a dog",
        "/audio long.wav 1-12 as rain",
        "two | three",
    )
    does(session, "bells.flac", "@all four", "/bad", "/drop bells")
    return session


def state(session: Session) -> Any:
    clips = [(c.name, c.path, c.waveform is None, c.sha256, c.start, c.end) for c in session.shelf.everything]
    return session.exchanges, clips, session.system, session.settings, session.focus or session.fresh


def test_json_is_read_back_whole(talked: Session, make: Make, stubs: list[Stub]) -> None:
    does(talked, "/save talk.json")
    again = make()
    note = does(again, "/load talk.json")[-1]
    assert isinstance(note, Note) and "loaded 3 turn(s) about dog, rain" in note.text
    assert state(again) == state(talked)
    for session in (talked, again):
        does(session, "five")
    assert [[(t.role, t.text, [w.sha256 for w in t.windows]) for t in stub.told[-1]] for stub in stubs[-2:]][0] == [
        (t.role, t.text, [w.sha256 for w in t.windows]) for t in stubs[0].told[-1]
    ]
    record = json.loads(Path("talk.json").read_text())
    assert [clip["sha256"] for clip in record["clips"]] == [c.sha256 for c in talked.shelf.everything]


def test_markdown_is_to_be_read(talked: Session, clips: Path) -> None:
    does(talked, "/save talk.md")
    text = Path("talk.md").read_text()
    assert "**one** (dog)" in text and "> I heard: one" in text and "*good: it is a dog*" in text
    for clip in talked.shelf.everything:
        assert f"`{clip.sha256}`" in text
    before = state(talked)
    assert "Markdown transcript is for reading" in failure(does(talked, "/load talk.md"))
    assert state(talked) == before


def test_what_is_overwritten(talked: Session, clips: Path) -> None:
    Path("mine.md").write_text("my notes")
    assert "--force" in failure(does(talked, "/save mine.md"))
    assert Path("mine.md").read_text() == "my notes"
    does(talked, "/save mine.md --force")
    assert "gama-chat" in Path("mine.md").read_text()
    does(talked, "six")
    assert isinstance(does(talked, "/save mine.md")[0], Note)  # a transcript may be saved again
    assert "six" in Path("mine.md").read_text()
    assert "txt was given" in failure(does(talked, "/save talk.txt"))
    assert "does not exist" in failure(does(talked, "/save nowhere/talk.md"))
    assert sorted(p.name for p in Path().iterdir() if p.suffix == ".tmp") == []


def changed(record: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """The record with one value replaced; the path is keys and numbers with dots between."""
    copy: Any = json.loads(json.dumps(record))
    *way, last = [int(key) if key.isdecimal() else key for key in path.split(".")]
    at = copy
    for key in way:
        at = at[key]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return dict(copy)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("format", "other", "no saved conversation"),
        ("version", 99, "version is 99"),
        ("settings", [], "'settings' is []"),
        ("settings.temperature", "hot", "temperature is 'hot'"),
        ("settings.colour", 1, "setting 'colour'"),
        ("system", None, "'system' is None"),
        ("clips", {}, "'clips' is {}"),
        ("clips.0", 7, "holds int"),
        ("clips.0.name", ..., "'name' is None"),
        ("clips.0.path", 7, "'path' is 7"),
        ("clips.0.path", "gone.wav", "gone.wav: no such file"),
        ("clips.0.sha256", "0" * 64, "is not what it was"),
        ("clips.0.from", "1", "'from' is '1'"),
        ("clips.0.from", 0.5, "is not what it was"),
        ("clips.1.name", "dog", "two of its clips have one name"),
        ("turns.0", None, "holds NoneType"),
        ("turns.0.question", 7, "turn 1: 'question' is 7"),
        ("turns.1.clips", ["cat"], "turn 2: 'clips' names a clip 'cat'"),
        ("turns.1.verdict", "fine", "verdict is 'fine'"),
        ("turns.0.parts.0.finish", "end", "finish is 'end'"),
        ("turns.0.parts.0.text", None, "'text' is None"),
        ("turns.0.parts.0.start", None, "span is missing"),
        ("turns.0.windows", True, "'windows' is True"),
        ("focus", ["bells"], "'focus' names a clip 'bells'"),  # it is dropped
    ],
)
def test_what_is_wrong_is_refused(talked: Session, path: str, value: object, message: str) -> None:
    does(talked, "/save talk.json")
    record = json.loads(Path("talk.json").read_text())
    Path("wrong.json").write_text(json.dumps(changed(record, path, value)))
    before = state(talked)
    assert message in failure(does(talked, "/load wrong.json"))
    assert state(talked) == before
    assert not [e for e in does(talked, "seven") if isinstance(e, Failed)]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"7", b"\xff\xfe", b"[" * 100_000, b'{"format": "gama-chat"}'])
def test_what_is_no_transcript_is_refused(talked: Session, clips: Path, content: bytes) -> None:
    Path("wrong.json").write_bytes(content)
    before = state(talked)
    failure(does(talked, "/load wrong.json"))
    assert state(talked) == before


def test_a_clip_that_has_changed_is_refused(talked: Session, make: Make) -> None:
    does(talked, "/save talk.json")
    soundfile.write("dog.wav", np.zeros(16_000), 16_000)
    assert "'dog' is not what it was" in failure(does(make(), "/load talk.json"))
    Path("dog.wav").unlink()
    assert "dog.wav: no such file" in failure(does(make(), "/load talk.json"))
