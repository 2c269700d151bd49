"""What the terminal of ``gama chat`` is made of: wrapped text, the editor's rules, completion."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pyte
import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from rich.cells import cell_len

from gama.chat.paths import Wanted
from gama.chat.session import Session
from gama_cli.chat_editor import _Names, is_complete, unfenced
from gama_cli.chat_wrap import Wrapped, folded


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def wrapped(monkeypatch: pytest.MonkeyPatch, columns: int, *pieces: str) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    screen = Screen()
    writer = Wrapped(screen)
    for piece in pieces:
        writer.write(piece)
    writer.end()
    return screen.getvalue()


@pytest.mark.parametrize("columns", [1, 4, 7, 10, 11, 80])
@pytest.mark.parametrize(
    "text",
    ["A dog is barking, then church bells are ringing.", "犬が 吠えて います。 鐘が 鳴る", "one\ntwo  three\n\nfour"],
)
def test_words_are_kept_whole_and_in_order(monkeypatch: pytest.MonkeyPatch, columns: int, text: str) -> None:
    pieces = [text[i : i + 3] for i in range(0, len(text), 3)]
    out = wrapped(monkeypatch, columns, *pieces)
    assert out == wrapped(monkeypatch, columns, text) and out.endswith("\n")
    assert out.split() == text.split()
    assert [line for line in out.split("\n") if line != line.rstrip()] == []
    screen = pyte.Screen(columns, 80)
    pyte.Stream(screen).feed(out.replace("\n", "\r\n"))
    for word in text.split():  # a word that has room in a row is not broken
        assert cell_len(word) > columns or any(word in row for row in screen.display)
    if columns == 80:
        assert out.rstrip("\n") == text


def test_the_width_of_the_moment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    screen = Screen()
    writer = Wrapped(screen)
    writer.write("one two three ")
    monkeypatch.setenv("COLUMNS", "15")
    writer.write("four five six")
    writer.end()
    assert screen.getvalue() == "one two three\nfour five six\n"


def test_a_word_is_shown_when_it_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    screen = Screen()
    writer = Wrapped(screen)
    writer.write("A dog")
    assert screen.getvalue() == "A"
    writer.write("s bark ")
    assert screen.getvalue() == "A dogs bark"


def test_elsewhere_text_goes_through_as_it_is() -> None:
    stream = io.StringIO()
    writer = Wrapped(stream)
    for piece in ("A d", "og ", "x" * 500):
        writer.write(piece)
    writer.end()
    assert stream.getvalue() == "A dog " + "x" * 500 + "\n"


@pytest.mark.parametrize("columns", [2, 5, 20, 40, 60, 80, 200])
def test_folded_lines_fit(columns: int) -> None:
    text = "/audio PATH [from-to]  Add a clip, or a span of it: 12-20.\n/clips                 List the clips.\n\nend"
    lines = folded(text, columns)
    assert max(map(len, lines)) <= columns
    assert "".join("".join(lines).split()) == "".join(text.split())
    if columns == 60:
        assert lines[:2] == [
            "/audio PATH [from-to]  Add a clip, or a span of it: 12-20.",
            "/clips                 List the clips.",
        ]
    if columns == 50:
        assert lines[1].startswith(" " * 23)


@pytest.mark.parametrize(
    ("text", "complete"),
    [("one", True), ("one\\", False), ('"""one', False), ('"""one\ntwo"""', True), ("", True), ('a """ b', False)],
)
def test_when_enter_sends(text: str, complete: bool) -> None:
    assert is_complete(text) is complete


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("one", "one"),
        ("one\\\ntwo", "one\ntwo"),
        ('"""one\ntwo"""', "one\ntwo"),
        ('""""""', ""),
        ('say """x""" now', 'say """x""" now'),
    ],
)
def test_what_was_meant(typed: str, meant: str) -> None:
    assert unfenced(typed) == meant


def test_completion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np
    import soundfile

    monkeypatch.chdir(tmp_path)
    for name in ("dog.wav", "door.wav"):
        soundfile.write(name, np.ones(800), 16_000)
    os.mkdir("doors")
    session = Session(lambda model: pytest.fail("no model is needed"))
    list(session.attach(Wanted(Path("dog.wav"))))

    def completed(text: str) -> list[str]:
        found = _Names(session).get_completions(Document(text, len(text)), CompleteEvent())
        return [text[: len(text) + completion.start_position] + completion.text for completion in found]

    assert completed("/re") == ["/record", "/retry"]
    assert completed("@d") == ["@dog"] and completed("is @") == ["is @dog", "is @all"]
    assert completed("/set te") == ["/set temperature", "/set template"]
    assert completed("/drop ") == ["/drop dog"]
    assert completed("/audio doo") == ["/audio door.wav", "/audio doors"]
    assert completed("./dog") == ["./dog.wav"]
    assert completed("what do") == []
