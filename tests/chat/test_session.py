"""Lines go in, events come out: questions, clips, memory, and everything that can go wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from chat.stub import CLIP_TOKENS, Stub

from gama.chat import voices
from gama.chat.commands import COMMANDS
from gama.chat.events import Answered, Asking, Attached, Event, Failed, Left, Note, Piece, Shown, row
from gama.chat.session import Session
from gama.chat.settings import Model

Make = Callable[..., Session]


def does(session: Session, *lines: str) -> list[Event]:
    """The events of lines typed one after the other."""
    return [event for line in lines for event in session.line(line)]


def only(events: Iterable[Event], kind: type) -> Any:
    found = [event for event in events if isinstance(event, kind)]
    assert len(found) == 1, found
    return found[0]


def told(stub: Stub) -> list[tuple[str, str, int]]:
    """The turns of the last question: who, what, and how many windows."""
    return [(turn.role, turn.text, len(turn.windows)) for turn in stub.told[-1]]


# --- questions


def test_a_question_streams_and_is_remembered(make: Make, clips: Path, stubs: list[Stub]) -> None:
    session = make()
    events = does(session, "dog.wav", "what happened?")
    assert only(events, Attached).clip.name == "dog"
    answer = only(events, Answered).exchange
    assert only(events, Asking) == Asking("what happened?", ("dog",))
    assert "".join(e.text for e in events if isinstance(e, Piece)) == answer.answer == "I heard: what happened?"
    assert (answer.question, answer.clips, answer.finish) == ("what happened?", ("dog",), "stop")
    assert session.exchanges == [answer]
    assert told(stubs[0]) == [("user", "what happened?", 1)]


def test_without_a_clip(make: Make, stubs: list[Stub]) -> None:
    does(make(), "hello there")
    assert told(stubs[0]) == [("user", "hello there", 0)]


def test_blank_lines_are_nothing(make: Make) -> None:
    assert does(make(), "", "   ", "\n") == []


def test_the_model_is_loaded_once_and_when_it_is_wanted(make: Make, stubs: list[Stub]) -> None:
    session = make()
    does(session, "/help", "/clips", "/set")
    assert stubs == []
    does(session, "one", "two")
    assert len(stubs) == 1


def test_settings_reach_the_model(make: Make, stubs: list[Stub]) -> None:
    session = make()
    does(session, "/set temperature 0.3", "/set top_p=0.9", "/set seed 7", "/set max_new_tokens 2", "what is this?")
    chosen = {"temperature": 0.3, "top_p": 0.9, "seed": 7, "max_new_tokens": 2, "template": None}
    assert stubs[0].options == [chosen | {"top_k": 0, "repetition_penalty": 1.0}]
    assert session.exchanges[0].finish == "length"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/set temperature warm", "temperature is 'warm', a number from 0 on was expected"),
        ("/set temperature nan", "temperature is 'nan'"),
        ("/set top_p 0", "above 0 and at most 1"),
        ("/set max_new_tokens 0", "from 1 on"),
        ("/set seed -1", "from 0 on, or none"),
        ("/set memory some", "full, last or none"),
        ("/set template nope", "unknown template 'nope'"),
        ("/set colour red", "there is no setting 'colour'"),
    ],
)
def test_a_wrong_setting_changes_nothing(make: Make, line: str, message: str) -> None:
    session = make()
    before = session.settings
    assert message in str(only(does(session, line), Failed))
    assert session.settings == before


# --- clips


@pytest.mark.parametrize(
    "line",
    [
        "dog.wav",
        "./dog.wav",
        "'dog.wav'",
        '"dog.wav"',
        "{}/dog.wav",
        "file://{}/dog.wav",
        "/audio dog.wav",
        "/audio 'dog.wav'",
        "  dog.wav  ",
    ],
)
def test_a_path_is_a_clip(make: Make, clips: Path, line: str) -> None:
    clip = only(does(make(), line.format(clips)), Attached).clip
    assert (clip.name, clip.path, clip.facts["duration_s"]) == ("dog", clips / "dog.wav", 1.0)


@pytest.mark.parametrize("line", ["a b.wav", "'a b.wav'", "a\\ b.wav", "file://{}/a%20b.wav", "/audio a b.wav"])
def test_a_path_with_a_space(make: Make, clips: Path, line: str) -> None:
    assert only(does(make(), line.format(clips)), Attached).clip.name == "a-b"


def test_paths_before_a_question(make: Make, clips: Path, stubs: list[Stub]) -> None:
    events = does(make(), "dog.wav 'a b.wav' which is louder?")
    assert [e.clip.name for e in events if isinstance(e, Attached)] == ["dog", "a-b"]
    assert told(stubs[0]) == [("user", "which is louder?", 2)]


def test_a_question_about_a_word_that_is_a_file_too(make: Make, clips: Path, stubs: list[Stub]) -> None:
    (clips / "what").write_text("")
    events = does(make(), "what is this?", "isn't dog.wav loud?", "it's 5 o'clock")
    assert len([e for e in events if isinstance(e, Answered)]) == 3


def test_a_span_and_a_name(make: Make, clips: Path) -> None:
    session = make()
    does(session, "/audio long.wav 3-5.5", "/audio long.wav 0:20- as end", "/audio long.wav -2")
    assert [(c.name, c.facts["start_s"], c.facts["duration_s"]) for c in session.shelf] == [
        ("long", 3.0, 2.5),
        ("end", 20.0, 5.0),
        ("long-2", 0.0, 2.0),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/audio", "no clip is named"),
        ("/audio nothing.wav", "nothing.wav: no such file"),
        ("{}/nothing.wav", "no such file"),
        ("file://{}/nothing.wav", "no such file"),
        ("file://elsewhere/dog.wav", "a file on 'elsewhere'"),
        ("broken.wav", "broken.wav"),
        ("/audio .", "is a directory"),
        ("/audio dog.wav 5-6", "a span from 5.0 s was asked for, the clip lasts 1.00 s"),
        ("/audio dog.wav as all", "the name 'all' is taken"),
    ],
)
def test_a_clip_that_cannot_be_read_says_why(make: Make, clips: Path, line: str, message: str) -> None:
    session = make()
    does(session, "bells.flac", "what?")
    assert message in str(only(does(session, line.format(clips)), Failed))
    assert session.shelf.names == ("bells",) and len(session.exchanges) == 1
    assert only(does(session, "and then?"), Answered).exchange.clips == ("bells",)


def test_what_a_question_is_about(make: Make, clips: Path, stubs: list[Stub]) -> None:
    session = make()
    does(session, "dog.wav", "one", "bells.flac", "two", "three", "@dog four", "@dog @bells: five", "@all six")
    about = [exchange.clips for exchange in session.exchanges]
    both = ("dog", "bells")
    assert about == [("dog",), ("bells",), ("bells",), ("dog",), both, both]
    assert [exchange.question for exchange in session.exchanges] == ["one", "two", "three", "four", "five", "six"]
    assert "louder" in only(does(session, "is @dog louder than @bells or me@home?"), Answered).exchange.question
    assert session.exchanges[-1].question == "is dog louder than bells or me@home?"
    assert "no clip is called 'cat'" in str(only(does(session, "@cat where?"), Failed))


def test_a_second_clip_is_told_about(make: Make, clips: Path) -> None:
    session = make()
    note = only(does(session, "dog.wav", "one", "bells.flac"), Note)
    assert "@dog @bells" in note.text and "about bells" in note.text


def test_a_long_clip_is_answered_window_by_window(make: Make, clips: Path, stubs: list[Stub]) -> None:
    session = make(memory="full")
    answer = only(does(session, "long.wav", "what?"), Answered).exchange
    assert answer.answer == "\n".join(f"[{span} s] I heard: what?" for span in ("0.0–10.2", "10.2–20.5", "20.5–25.0"))
    assert [(round(p.start, 2), round(p.end, 2)) for p in answer.parts] == [(0, 10.24), (10.24, 20.48), (20.48, 25)]
    does(session, "and then?")
    for turns, group in zip(stubs[0].told[3:], stubs[0].told[:3], strict=True):  # each window is told of itself
        assert [(t.role, t.text, len(t.windows)) for t in turns] == [
            ("user", "what?", 1), ("assistant", "I heard: what?", 0), ("user", "and then?", 0),
        ]  # fmt: skip
        assert [w.sha256 for w in turns[0].windows] == [w.sha256 for w in group[0].windows]


def test_dropped(make: Make, clips: Path, stubs: list[Stub]) -> None:
    session = make(memory="full")
    does(session, "dog.wav", "one", "bells.flac", "two")
    assert "no longer told 1 turn(s)" in only(does(session, "/drop dog"), Note).text
    assert session.shelf.names == ("bells",)
    does(session, "three")
    assert told(stubs[0]) == [("user", "two", 1), ("assistant", "I heard: two", 0), ("user", "three", 0)]
    assert "no clip is called 'dog'" in str(only(does(session, "/drop dog"), Failed))
    does(session, "/drop", "four")
    assert told(stubs[0])[-1] == ("user", "four", 0)
    assert only(does(session, "dog.wav"), Attached).clip.name == "dog-2"  # the name belongs to the transcript


# --- memory


def test_memory_none_last_full(make: Make, clips: Path, stubs: list[Stub]) -> None:
    session = make()
    does(session, "dog.wav", "one", "two", "three")
    assert told(stubs[0]) == [("user", "three", 1)]
    does(session, "/set memory last", "four")
    assert told(stubs[0]) == [("user", "three", 1), ("assistant", "I heard: three", 0), ("user", "four", 0)]
    does(session, "/set memory full", "/system be brief", "five")
    assert [text for _, text, _ in told(stubs[0])] == [
        "be brief", "one", "I heard: one", "two", "I heard: two", "three", "I heard: three", "four", "I heard: four",
        "five",
    ]  # fmt: skip
    assert [windows for _, _, windows in told(stubs[0])] == [0, 1, *[0] * 8]


def test_a_clip_stands_where_it_changes(make: Make, clips: Path, stubs: list[Stub]) -> None:
    session = make(memory="full")
    does(session, "dog.wav", "one", "bells.flac", "two", "three", "@dog four")
    assert [windows for role, _, windows in told(stubs[0]) if role == "user"] == [1, 1, 0, 1]
    hashes = [w.sha256 for turn in stubs[0].told[-1] for w in turn.windows]
    assert hashes[0] == hashes[2] != hashes[1]


def test_the_oldest_turns_go_first_and_that_is_told(make: Make, clips: Path, stubs: list[Stub]) -> None:
    session = make(context=CLIP_TOKENS + 160, memory="full", max_new_tokens=20)
    notes: list[str] = []
    for number in range(20):
        events = does(session, *(["dog.wav"] if number == 0 else []), f"question {number} of many words about it")
        notes += [event.text for event in events if isinstance(event, Note)]
        turns = stubs[0].told[-1]
        assert turns[-1].text.startswith(f"question {number} ") and len(turns[0].windows) == 1
        assert stubs[0].measure(turns) + 20 <= stubs[0].context
    kept = len(stubs[0].told[-1])
    assert 3 <= kept < 39
    assert re.fullmatch(r"the context is full: the model is no longer told the oldest \d of \d turns", notes[0])
    assert 2 <= len(notes) < 9  # several turns go at once, and not with every question
    assert len(session.exchanges) == 20  # they are not forgotten here
    does(session, "/clear", "once more")
    assert told(stubs[0]) == [("user", "once more", 1)]


def test_an_empty_answer_is_not_told(make: Make, stubs: list[Stub]) -> None:
    session = make(memory="full")
    session.stop.set()
    does(session, "one")
    session.stop.clear()
    assert session.exchanges[0].finish == "interrupted" and session.exchanges[0].answer == ""
    does(session, "two")
    assert told(stubs[0]) == [("user", "two", 0)]


# --- the conversation


def test_retry_replaces_the_answer(make: Make, clips: Path, stubs: list[Stub]) -> None:
    session = make(seed=5, temperature=1.0, memory="full")
    does(session, "dog.wav", "one", "two", "/retry", "/retry")
    assert [e.question for e in session.exchanges] == ["one", "two"]
    assert [options["seed"] for options in stubs[0].options] == [5, 5, 6, 7]
    assert told(stubs[0])[-1][:2] == ("user", "two") and len(told(stubs[0])) == 3
    does(session, "/set temperature 0", "three")
    assert stubs[0].options[-1]["seed"] == 5
    assert "temperature is 0" in only(does(session, "/retry"), Note).text


def test_retry_after_an_error(make: Make, clips: Path, stubs: list[Stub], monkeypatch: pytest.MonkeyPatch) -> None:
    session = make()
    does(session, "dog.wav", "one")

    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("CUDA out of\nmemory")
        yield

    with monkeypatch.context() as broken:
        broken.setattr(Stub, "say", fails)
        failed = only(does(session, "two"), Failed)
        assert (failed.message, failed.internal) == ("RuntimeError: CUDA out of memory", True)
        assert isinstance(does(session, "/retry")[-1], Failed)
    assert [e.question for e in session.exchanges] == ["one"]
    assert only(does(session, "/retry"), Answered).exchange.question == "two"


def test_undo(make: Make, clips: Path) -> None:
    session = make()
    does(session, "dog.wav", "one", "bells.flac", "two")
    assert only(does(session, "/undo"), Note).text == "taken back: two"
    assert only(does(session, "three"), Answered).exchange.clips == ("bells",)
    does(session, "/undo", "/undo")
    assert only(does(session, "four"), Answered).exchange.clips == ("dog",)
    does(session, "/undo")
    for line in ("/undo", "/retry", "/good", "/bad"):
        assert isinstance(only(does(session, line), Failed), Failed)


def test_stopped_between_two_words(make: Make) -> None:
    session = make()
    events = []
    for event in session.line("tell me slowly"):
        events.append(event)
        if isinstance(event, Piece) and event.text == " word3":
            session.stop.set()
    answer = only(events, Answered).exchange
    assert (answer.answer, answer.finish) == ("word0 word1 word2 word3", "interrupted")


# --- the model


def test_another_model(make: Make, clips: Path, stubs: list[Stub]) -> None:
    session = make()
    does(session, "one")
    assert "other on cpu, quantization none" in only(does(session, "/model other"), Shown).text
    assert "quantization 4bit" in only(does(session, "/quant 4bit"), Shown).text
    does(session, "two")
    assert [stub.model.model for stub in stubs] == [None, "other", "other"] and len(stubs[-1].told) == 1
    assert [e.question for e in session.exchanges] == ["one", "two"]


def test_a_model_that_cannot_be_loaded_leaves_the_old_one(make: Make) -> None:
    session = make()
    does(session, "one", "/model good")
    assert "'broken' holds no model (give another)" in str(only(does(session, "/model broken"), Failed))
    assert session.model.model == "good"
    assert only(does(session, "two"), Answered).exchange.answer == "I heard: two"


def test_a_model_that_cannot_be_is_refused_before_the_old_one_goes(stubs: list[Stub]) -> None:
    def opened(model: Model) -> Stub:
        stubs.append(Stub(model))
        return stubs[-1]

    session = Session(opened, check=voices.check)
    does(session, "one")
    assert "no model 'nowhere'" in str(only(does(session, "/model nowhere"), Failed))
    assert "no quantization is called '3bit'" in str(only(does(session, "/quant 3bit"), Failed))
    does(session, "two")
    assert len(stubs) == 1 and len(stubs[0].told) == 2


# --- commands


def test_every_command_is_in_the_help(make: Make) -> None:
    text = only(does(make(), "/help"), Shown).text
    for command in COMMANDS:
        assert f"/{command.name} " in text and command.help in text
        assert command.help in only(does(make(), f"/help {command.name}"), Shown).text


@pytest.mark.parametrize(
    ("line", "hint"),
    [("/clps", "/clips"), ("/retyr", "/retry"), ("/halp", "/help"), ("/zzz", "/help"), ("/help sav", "/save")],
)
def test_an_unknown_command_suggests_the_nearest(make: Make, line: str, hint: str) -> None:
    assert hint in (only(does(make(), line), Failed).hint or "")


@pytest.mark.parametrize("line", ["/exit", "/quit", "/bye", "exit", "quit"])
def test_leaving(make: Make, line: str) -> None:
    assert does(make(), line) == [Left()]


def test_stats(make: Make, clips: Path) -> None:
    session = make()
    does(session, "dog.wav", "one", "two")
    shown = only(does(session, "/stats"), Shown)
    assert shown.data["stats"]["turns"] == 2 and shown.data["stats"]["tokens"]["prompt"] == 2 * (CLIP_TOKENS + 1)
    assert "2 turn(s), 1 clip(s)" in shown.text


def test_no_event_is_without_a_row(make: Make, clips: Path) -> None:
    session = make()
    events = does(session, "dog.wav", "one", "/clips", "/clps", "/undo", "/exit")
    names = [row(event)["event"] for event in events]
    assert names[:2] == ["attached", "asking"] and {"piece", "answer", "shown", "error", "note", "end"} <= {*names}


@pytest.mark.parametrize("command", [c.name for c in COMMANDS if c.name not in ("exit", "record", "play")])
@pytest.mark.parametrize("rest", ["", "x", "'", "--force", "\x00", "a" * 5000, "7 7 7"])
def test_nothing_typed_after_a_command_ends_the_session(make: Make, clips: Path, command: str, rest: str) -> None:
    session = make()
    events = does(session, "one", f"/{command} {rest}")
    assert not [event for event in events if isinstance(event, Failed) and event.internal]
    assert only(does(session, "two"), Answered).exchange.question == "two"
