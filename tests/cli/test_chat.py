"""``gama chat`` as a person uses it: in a terminal, through a pipe, from another program.

A stub answers where the model does not matter; the packaged model does in one test of each form.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from chat.person import ALT_ENTER, CTRL_C, CTRL_D, PATIENCE, STUB, UP, Person
from chat.sounds import write_clips

REAL = (sys.executable, "-m", "gama_cli.main")
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "dog_then_bells.flac"


@pytest.fixture
def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with the clips of :mod:`chat.sounds`."""
    write_clips(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GAMA_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture
def home(clips: Path) -> dict[str, str | None]:
    """An environment with its own GAMA_HOME, in the folder of clips."""
    return {"GAMA_HOME": str(clips / "home"), "PROMPT_TOOLKIT_NO_CPR": "1"}


def piped(*words: str, text: str, program: tuple[str, ...] = (sys.executable, str(STUB))) -> Any:
    return subprocess.run(
        [*program, "chat", *words], input=text, capture_output=True, text=True, timeout=3 * PATIENCE, check=False
    )


def events(done: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


# --- in a terminal


def test_a_person_talks(clips: Path, home: dict[str, str | None]) -> None:
    with Person("chat", "dog.wav", environment=home, folder=clips) as person:
        person.sees_prompt()
        assert "dog: 1.0 s, 16 kHz, mono" in person.text and "▀" in person.text and "\x1b[38;5;" in person.raw
        person.asks("what happened?")
        person.sees("I heard: what happened?")
        person.sees_prompt()
        person.types(f"first{ALT_ENTER}second\r")
        person.sees("... second")
        person.sees("I heard: first second")
        person.sees_prompt()
        person.types("\x1b[200~" + f"'{clips}/a b.wav'" + "\x1b[201~\r")  # a path dragged into the window
        person.sees("a-b: 0.5 s")
        person.sees_prompt()
        person.asks("broken.wav")
        person.sees("error: broken.wav")
        person.sees_prompt()
        person.asks("/clps")
        person.sees("did you mean /clips?")
        person.sees_prompt()
        os.write(person.child.child_fd, b"odd \xff byte\r")
        person.sees("I heard: odd")
        person.sees_prompt()
        person.types("half a lin")
        person.sees("half a lin")
        person.types(CTRL_C)
        person.sees("Ctrl-D or /exit leaves")
        person.sees_prompt()
        person.types(CTRL_D)
        assert person.sees_the_end() == 0
    assert (clips / "home" / "history").stat().st_mode & 0o777 == 0o600


def test_ctrl_c_stops_the_answer_and_not_the_session(clips: Path, home: dict[str, str | None]) -> None:
    with Person("chat", environment=home, folder=clips) as person:
        person.sees_prompt()
        person.asks("tell me slowly")
        person.sees("word3")  # it streams
        person.types(CTRL_C)
        person.sees("stopped; /retry asks again")
        person.sees_prompt()
        assert "word99" not in person.text
        person.asks("and now?")
        person.sees("I heard: and now?")
        person.sees_prompt()
        person.asks("/exit")
        assert person.sees_the_end() == 0
    with Person("chat", environment=home, folder=clips) as person:  # what was typed is recalled in the next session
        person.sees_prompt()
        person.types(UP + UP)
        person.sees(">>> and now?")
        person.types("\r")
        person.sees("I heard: and now?")


def test_narrow_wide_and_resized(clips: Path, home: dict[str, str | None]) -> None:
    with Person("chat", "dog.wav", environment=home, folder=clips, columns=30) as person:
        person.sees_prompt()
        assert max(line.count("▀") for line in person.lines) == 29
        person.asks("tell me slowly")
        person.sees("word3")
        person.sees_prompt()
        words = [line for line in person.lines if line.startswith("word")]
        assert words[0] == "word0 word1 word2 word3 word4" and max(map(len, words)) <= 30
        person.resizes(100)
        person.asks("bells.flac")
        person.sees(lambda text: any(line.count("▀") == 72 for line in text.split("\n")))
        person.sees_prompt()
        begun = len(person.raw)
        person.asks("once more slowly")
        person.sees(" word11 word12 word13 word14", since=begun)  # one wide line
        person.resizes(20)
        person.sees("word99", since=begun)
        late = re.findall(r"^word\d.*$", person.raw[begun:].replace("\r", ""), re.MULTILINE)[-10:]
        assert max(map(len, late)) <= 20 and late[-1].split()[-1] == "word99"


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["NO_COLOR", "dumb"])
def test_without_colour(clips: Path, home: dict[str, str | None], variables: dict[str, str | None]) -> None:
    with Person("chat", "dog.wav", environment={**home, **variables}, folder=clips) as person:
        person.sees(">>>")
        assert "[38;5;" not in person.raw and any(mark in person.raw for mark in "░▒▓█") and "▀" not in person.raw
        person.asks("/bogus")
        person.sees("no command /bogus")
        assert "\x1b[31" not in person.raw


def test_the_packaged_model_in_a_terminal(clips: Path, home: dict[str, str | None]) -> None:
    with Person("chat", EXAMPLE, "--no-picture", program=REAL, environment=home, folder=clips) as person:
        person.sees_prompt()  # before the model is there
        assert "▀" not in person.text
        person.asks("what happened?")
        person.sees(lambda text: text.rstrip().endswith(">>>") and text.count(">>>") == 2)
        person.asks("/stats")
        person.sees("1 turn(s), 1 clip(s)")
        person.sees_prompt()
        person.types(CTRL_D)
        assert person.sees_the_end() == 0


def test_leaving_while_the_model_is_loaded(clips: Path, home: dict[str, str | None]) -> None:
    with Person("chat", "--runtime", "torch", program=REAL, environment=home, folder=clips) as person:
        person.sees_prompt()
        person.types(CTRL_D)
        assert person.sees_the_end() == 0


# --- through a pipe


def test_a_line_is_a_question(clips: Path) -> None:
    done = piped("dog.wav", text="what happened?\n\nbells.flac\nand now?\n/set memory last\nlast\n")
    assert done.returncode == 0
    assert done.stdout == "I heard: what happened?\nI heard: and now?\nI heard: last\n"
    assert "dog: 1.0 s" in done.stderr and "bells: 2.0 s" in done.stderr and "\x1b" not in done.stdout + done.stderr


def test_what_fails_is_told_and_the_rest_is_done(clips: Path) -> None:
    done = piped("broken.wav", text="one\n/clps\n/load broken.wav\ntwo")
    assert (done.returncode, done.stdout) == (1, "I heard: one\nI heard: two\n")
    assert "error: broken.wav" in done.stderr and "did you mean /clips?" in done.stderr


def test_what_is_no_session(clips: Path) -> None:
    for words in (("--model", "nowhere"), ("--template", "nope"), ("--memory", "some")):
        done = piped(*words, text="one\n")
        assert done.returncode in (1, 2) and done.stdout == "" and done.stderr.startswith("error: ")


def test_a_log_and_its_replay(clips: Path) -> None:
    assert piped("dog.wav", "--log", "log.jsonl", text="one\ntwo\n/clps\n").returncode == 1
    done = piped("--replay", "log.jsonl", text="")
    assert (done.returncode, done.stdout) == (0, "") and "3 answer(s) compared, 0 differ" in done.stderr
    log = Path("log.jsonl")
    log.write_text(log.read_text().replace("I heard: two", "I heard: three"))
    done = piped("--replay", "log.jsonl", text="")
    assert (done.returncode, done.stdout) == (1, "then: I heard: three\nnow:  I heard: two\n")


def test_the_packaged_model_through_a_pipe(clips: Path) -> None:
    done = piped(str(EXAMPLE), text="what happened?\nis there a dog?\n", program=REAL)
    asked = [
        subprocess.run([*REAL, "ask", EXAMPLE, q], capture_output=True, text=True, check=True, timeout=3 * PATIENCE)
        for q in ("what happened?", "is there a dog?")
    ]
    assert done.stdout == "".join(one.stdout for one in asked)


def test_bytes_that_are_no_text(clips: Path) -> None:
    odd = os.fsencode(clips) + b"/\xff.wav"
    shutil.copy("dog.wav", odd)
    command = [sys.executable, str(STUB), "chat"]
    done = subprocess.run(
        command, input=odd + b"\nwhat \xff is?\n", capture_output=True, timeout=3 * PATIENCE, check=False
    )
    assert (done.returncode, done.stdout) == (0, b"I heard: what ? is?\n")
    assert b"clip: 1.0 s" in done.stderr


# --- from another program


def test_requests_and_events(clips: Path) -> None:
    requests: list[Any] = [
        {"do": "ask", "question": "what happened?", "id": 7},
        {"do": "attach", "path": "long.wav", "from": 3, "to": 5.5, "name": "rain"},
        {"do": "ask", "question": "both?", "clips": ["dog", "rain"]},
        {"do": "line", "text": "/set temperature 0.3", "id": "s"},
        {"do": "ask", "question": "about what?", "clips": ["cat"], "id": 8},
        {"do": "sing"},
        {"do": "ask"},
        7,
        {"do": "end"},
        {"do": "ask", "question": "too late"},
    ]
    done = piped("dog.wav", "--json", text="".join(json.dumps(r) + "\n" for r in requests) + "no JSON\n")
    assert (done.returncode, done.stderr) == (0, "")
    seen = events(done)
    assert [e["event"] for e in seen[:3]] == ["ready", "attached", "asking"]
    first = [e for e in seen if e.get("id") == 7]
    assert "".join(e["text"] for e in first if e["event"] == "piece") == "I heard: what happened?"
    assert (first[-2]["answer"], first[-2]["finish"], first[-1]) == (
        "I heard: what happened?", "stop", {"event": "done", "id": 7},
    )  # fmt: skip
    rain = next(e for e in seen if e.get("name") == "rain")
    assert (rain["start_s"], rain["duration_s"]) == (3.0, 2.5)
    assert next(e for e in seen if e.get("question") == "both?")["clips"] == ["dog", "rain"]
    assert [e["message"] for e in seen if e["event"] == "error"] == [
        "no clip is called 'cat'",
        "a request does 'sing'",
        "'question' of a request to ask is None, text was expected",
        "a request is int, an object was expected",
    ]
    assert seen[-1] == {"event": "end"} and sum(e["event"] == "done" for e in seen) == 8


@pytest.mark.parametrize("by", ["request", "signal"])
def test_an_answer_is_stopped_from_outside(clips: Path, by: str) -> None:
    command = [sys.executable, str(STUB), "chat", "--json"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdin and process.stdout and process.stderr

        def send(**request: Any) -> None:
            print(json.dumps(request), file=process.stdin, flush=True)

        def until(event: str) -> dict[str, Any]:
            for line in process.stdout:  # type: ignore[union-attr]
                if json.loads(line)["event"] == event:
                    return dict(json.loads(line))
            raise AssertionError(f"no event {event!r}")

        send(do="ask", question="tell me slowly")
        until("piece")
        send(do="stop") if by == "request" else process.send_signal(signal.SIGINT)
        stopped = until("answer")
        assert stopped["finish"] == "interrupted" and "word99" not in stopped["answer"]
        send(do="ask", question="slowly, then stopped before it begins")
        send(do="ask", question="slowly, too")
        time.sleep(0.2)
        send(do="stop")
        send(do="ask", question="and this?")
        assert [until("answer")["finish"] for _ in range(3)] == ["interrupted", "interrupted", "stop"]
        if by == "request":
            send(do="end")  # while stdin stays open
            assert until("end") and process.wait(PATIENCE) == 0
        else:
            process.send_signal(signal.SIGINT)  # nothing is being answered
            assert process.wait(PATIENCE) == 130
        assert process.stderr.read().strip() == ""


def test_the_packaged_model_as_json(clips: Path) -> None:
    done = piped(str(EXAMPLE), "--json", text='{"do": "ask", "question": "what happened?"}\n' * 2, program=REAL)
    first, second = [e for e in events(done) if e["event"] == "answer"]
    assert first["answer"] == second["answer"] and first["tokens"]["audio"] == 96
    assert first["tokens"]["reused"] == 0 and second["tokens"]["reused"] == second["tokens"]["prompt"] - 1
