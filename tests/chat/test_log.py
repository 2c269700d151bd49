"""A session that is logged can be gone through again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chat.stub import Stub

from gama.chat.log import Log, replay
from gama.chat.protocol import perform
from gama.chat.session import Session
from gama.chat.settings import Settings
from gama.errors import PromptError

Make = Callable[..., Session]
TALK = ("dog.wav", "one", "/set memory full", "two", "/clps", "/retry", "/undo", "/exit")


def logged(session: Session, path: Path, *lines: str) -> None:
    log = Log(path, session)
    for line in lines:
        request = {"do": "line", "text": line}
        for _ in log.watched(request, perform(session, request)):
            pass
    log.close()


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_goes_in_and_out_is_written(make: Make, clips: Path) -> None:
    logged(make(temperature=0.5), clips / "log.jsonl", *TALK)
    head, *rest = rows(clips / "log.jsonl")
    assert head["log"] == "gama-chat-log" and head["settings"]["temperature"] == 0.5
    assert [r["in"]["text"] for r in rest if "in" in r] == list(TALK)
    answers = [r["out"]["answer"] for r in rest if "out" in r and r["out"]["event"] == "answer"]
    assert answers == ["I heard: one", "I heard: two", "I heard: two"]
    assert not [r for r in rest if "out" in r and r["out"]["event"] == "piece"]
    attached = next(r["out"] for r in rest if "out" in r and r["out"]["event"] == "attached")
    assert len(attached["sha256"]) == 64


def test_the_same_session_again(make: Make, clips: Path, stubs: list[Stub]) -> None:
    path = clips / "log.jsonl"
    logged(make(), path, *TALK)
    logged(make(max_new_tokens=2), path, "four five six")  # a second session in the same file
    compared = list(replay(path, lambda settings: make(**settings.__dict__)))
    assert len(compared) == 5 and all(c.is_same for c in compared)
    assert compared[-1].now == "I heard:"
    different = list(replay(path, lambda settings: make(**Settings().__dict__)))
    assert [c.is_same for c in different] == [True] * 4 + [False]


def test_what_was_stopped_then_is_a_beginning_now(make: Make, clips: Path) -> None:
    session = make()
    session.stop.set()
    logged(session, clips / "log.jsonl", "stopped before a word")
    (compared,) = replay(clips / "log.jsonl", lambda settings: make())
    assert (compared.before, compared.interrupted, compared.is_same) == ("", True, True)


@pytest.mark.parametrize("content", ["", "{}\n", "nope\n", "[]\n"])
def test_no_log(make: Make, clips: Path, content: str) -> None:
    Path("other").write_text(content)
    if not content:
        assert list(replay(Path("other"), lambda settings: make())) == []
        return
    with pytest.raises(PromptError, match="--log"):
        list(replay(Path("other"), lambda settings: make()))


@pytest.mark.parametrize("line", ["5", "[]", "null", '"in"', '{"out": NaN}'])
def test_a_line_that_is_no_record(make: Make, clips: Path, line: str) -> None:
    logged(make(), clips / "log.jsonl", "one")
    with (clips / "log.jsonl").open("a") as log:
        log.write(f"{line}\n")
    with pytest.raises(PromptError, match=r"log\.jsonl: line 5 is .*--log"):
        list(replay(clips / "log.jsonl", lambda settings: make()))
