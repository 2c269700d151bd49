"""Requests that are none: an error each, and the session goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chat.person import PATIENCE, STUB
from chat.stub import Stub
from torture.bad_chat import run

from gama.chat.events import Answered, Failed
from gama.chat.paths import file_named, home_expanded, wanted
from gama.chat.protocol import checked, perform, read_json
from gama.chat.session import LONGEST_QUESTION, Session
from gama.errors import AudioError, PromptError
from gama_cli.chat_json import LONGEST_LINE, _lines

PROGRAM = (sys.executable, str(STUB))


@pytest.mark.parametrize(
    "text",
    ["NaN", "[Infinity]", '{"id": -Infinity}', "1e999", "-1e999", '{"a": [1e400]}', "[" * 10**5, "9" * 5000, "{"],
)
def test_what_is_no_json(text: str) -> None:
    with pytest.raises(ValueError):
        read_json(text)


def test_what_is_json() -> None:
    text = '{"a": [1, -2.5e3, 1e308, true, null, "\\ud800"], "b": 123456789012345678901234567890}'
    assert read_json(text) == json.loads(text)


@pytest.mark.parametrize("request_id", [7, -1, 2**62, 0.5, "x", "", None, "\ud800", "x" * 1000])
def test_an_id(request_id: Any) -> None:
    assert checked({"do": "end", "id": request_id})["id"] == request_id


@pytest.mark.parametrize("request_id", [[], {}, [[1]], 2**63, -(10**40), "x" * 1001])
def test_no_id(request_id: Any) -> None:
    with pytest.raises(PromptError, match="the id of a request is .{1,200}$"):
        checked({"do": "end", "id": request_id})


@pytest.mark.parametrize("value", [10**400, -(10**10), 1e300, True, "5", []])
def test_no_second(value: Any) -> None:
    with pytest.raises(PromptError, match="'from' of a request to attach is .*, a number was expected"):
        checked({"do": "attach", "path": "x.wav", "from": value})


@pytest.mark.parametrize("text", ["~nosuchuser/x", "~nosuchuser"])
def test_a_home_that_there_is_not(text: str) -> None:
    assert home_expanded(text) == file_named(text) == wanted(text).path == Path(text)


@pytest.mark.parametrize("text", ["\ud800", "a\0b", "x\udfff.wav" if os.name == "nt" else "\udbff.wav"])
def test_what_no_file_is_called(text: str) -> None:
    for read in (home_expanded, file_named, wanted):
        with pytest.raises(PromptError, match="is not a name that a file can have"):
            read(text)


def test_an_address_that_is_none() -> None:
    with pytest.raises(AudioError, match=r"file://\[x/y: not an address: Invalid IPv6 URL"):
        file_named("file://[x/y")


def test_what_a_request_does_wrong_is_an_event(make: Callable[..., Session]) -> None:
    session = make()
    for path in ("~nosuchuser/x.wav", "\ud800", "\0"):
        (event,) = perform(session, {"do": "attach", "path": path})
        assert isinstance(event, Failed) and not event.internal, event


def test_a_question_longer_than_any_context(make: Callable[..., Session]) -> None:
    session = make()
    (event,) = perform(session, {"do": "ask", "question": "x" * (LONGEST_QUESTION + 1)})
    assert isinstance(event, Failed) and "has 100001 characters, 100000 at most" in event.message
    assert session.exchanges == []


def test_an_error_is_short() -> None:
    assert len(Failed("x" * 10**6).message) < 700
    assert Failed("short").message == "short"


def test_a_conversation_that_is_no_json(make: Callable[..., Session], clips: Path) -> None:
    Path("odd.json").write_text('{"format": "gama-chat", "version": NaN}')
    (event,) = make().line("/load odd.json")
    assert isinstance(event, Failed) and "NaN is no number of JSON" in event.message
    (event,) = make().line("/load /dev/zero")
    assert isinstance(event, Failed) and "has more than 67108864 bytes" in event.message


# -- a process ---------------------------------------------------------------------------------------------------------


def served(content: bytes) -> list[dict[str, Any]]:
    """The events of a process that gets these bytes."""
    done = subprocess.run(
        [*PROGRAM, "chat", "--json"], input=content, capture_output=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_three_that_ended_it(clips: Path) -> None:
    lines = [
        b'{"do": "ask", "question": "hi", "id": NaN}',
        b'{"do": "ask", "question": "hi", "id": 1e999}',
        b'{"do": "attach", "path": "~nosuchuser/x", "id": 3}',
        b'{"do": "ask", "question": "still there?", "id": 4}',
    ]
    events = served(b"\n".join(lines))
    kinds = [event["event"] for event in events if event["event"] not in ("piece", "asking")]
    assert kinds == ["ready", "error", "done", "error", "done", "error", "done", "answer", "done", "end"]
    assert events[5] == {
        "event": "error",
        "message": "~nosuchuser/x: no such file",
        "hint": None,
        "kind": "user",
        "id": 3,
    }


def test_a_line_without_end_takes_no_memory(tmp_path: Path) -> None:
    """60 MB in one line, then another."""
    file = tmp_path / "lines"
    file.write_bytes(b"x" * 60_000_000 + b"\nshort\n" + b"y" * LONGEST_LINE + b"\n" + b"z" * (LONGEST_LINE + 1))
    with file.open("rb") as opened:
        tracemalloc.start()
        try:
            lines = list(_lines(opened.fileno()))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert lines == [None, b"short", b"y" * LONGEST_LINE, None]
    assert peak < 8 * LONGEST_LINE


def test_a_line_that_is_too_long_is_an_error(clips: Path) -> None:
    long = b'{"do": "ask", "question": "' + b"x" * 3_000_000 + b'"}'
    events = served(long + b'\n{"do": "ask", "question": "hi", "id": 1}\n')
    assert events[1]["message"] == f"a line has more than {LONGEST_LINE} bytes"
    assert [event["event"] for event in events if event.get("id") == 1][-1] == "done"


def test_a_line_without_end_through_a_pipe(clips: Path) -> None:
    text = "x" * 3_000_000 + "\nhi\n"
    done = subprocess.run([*PROGRAM, "chat"], input=text, capture_output=True, timeout=PATIENCE, check=False, text=True)
    assert (done.returncode, done.stdout) == (1, "I heard: hi\n")
    assert done.stderr == "error: a line has more than 1048576 characters (ask in short)\n"


CLOSED = "error: standard output: cannot be written: it is closed (give another path)\n"


@pytest.mark.skipif(os.name != "posix", reason="descriptors are closed by a shell")
@pytest.mark.parametrize(
    ("words", "status", "out", "error"),
    [
        ("chat --json <&-", 0, ["ready", "end"], ""),
        ("chat <&-", 0, [], ""),
        ("chat --json >&-", 1, [], CLOSED),
        ("chat >&- <&-", 0, [], ""),
    ],
)
def test_closed_streams(clips: Path, words: str, status: int, out: list[str], error: str) -> None:
    command = ["sh", "-c", f'exec "$0" "$1" {words}', *PROGRAM]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, check=False, stdin=subprocess.DEVNULL
    )
    assert (done.returncode, done.stderr) == (status, error)
    assert [json.loads(line)["event"] for line in done.stdout.splitlines()] == out


def test_malformed_lines_at_random(clips: Path) -> None:
    """A sample of the battery of ``tests/torture/bad_chat.py``."""
    assert run(1, 150, PROGRAM).failures == ()


def test_half_a_character_in_the_system_text(make: Callable[..., Session], stubs: list[Stub]) -> None:
    """A tokenizer takes none, and every question after it failed."""
    session = make(memory="full")
    session.system = "b\udce9"  # as of --system with an undecodable byte
    assert [type(event) for event in session.line("one")][-1] is Answered
    list(session.line("/system a\ud800b"))
    assert [type(event) for event in session.line("two \udfff")][-1] is Answered
    assert [[turn.text for turn in turns] for turns in stubs[0].told] == [
        ["b?", "one"],
        ["a?b", "one", "I heard: one", "two ?"],
    ]
