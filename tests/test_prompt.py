"""Templates and turns become segments: clips first, then the beginning of the text."""

from __future__ import annotations

import pytest

from gama.errors import PromptError
from gama.prompt import (
    SILENCE_NOTE,
    TEMPLATES,
    Clip,
    Mark,
    Text,
    Turn,
    instruction,
    join_text,
    plain,
    render,
    template_named,
)

BEGIN, END = Mark("bos"), Mark("eos")
QUESTION = "### Instruction:\nwhat happened?\n\n### Response:\n"


def test_released_prompt() -> None:
    assert render([Turn("user", "what happened?", 1)]) == [Clip(), BEGIN, Text(QUESTION)]


@pytest.mark.parametrize("clips", [0, 1, 3])
def test_clips_come_before_the_beginning(clips: int) -> None:
    assert render([Turn("user", "what happened?", clips)]) == [*[Clip()] * clips, BEGIN, Text(QUESTION)]


def test_conversation() -> None:
    turns = [Turn("user", "a", 1), Turn("assistant", "b"), Turn("user", "c", 2)]
    assert render(turns, "plain") == [
        Clip(),
        BEGIN,
        Text("a\nb"),
        END,
        Text("\n\n"),
        Clip(),
        Clip(),
        Text("c\n"),
    ]


def test_neighbouring_texts_are_one() -> None:
    turns = [Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c")]
    assert render(turns, "plain")[-1] == Text("\n\nc\n")


def test_system_stands_before_the_first_question_alone() -> None:
    turns = [Turn("system", "Be brief."), Turn("user", "a", 1), Turn("assistant", "b"), Turn("user", "c")]
    words = plain(render(turns, "plain"))
    assert words == "<audio>Be brief.\n\na\nb\n\nc\n"


@pytest.mark.parametrize(
    "text", ["{instruction}", "{system}", "{", "}", "{0} %s \\n", "### Response:\n", "<audio>", "\0"]
)
def test_words_are_kept_as_typed(text: str) -> None:
    assert text in plain(render([Turn("user", text, 1)]))
    assert text in plain(render([Turn("system", text), Turn("user", "a")]))
    first = render([Turn("user", text, 1)])
    assert first.count(Clip()) == 1
    assert not any(isinstance(segment, Text) and segment.special for segment in first)


@pytest.mark.parametrize(
    "turns",
    [
        [],
        [Turn("system", "a")],
        [Turn("assistant", "a")],
        [Turn("user", "a"), Turn("user", "b")],
        [Turn("user", "a"), Turn("assistant", "b"), Turn("assistant", "c")],
        [Turn("user", "a"), Turn("system", "b")],
    ],
)
def test_turns_that_do_not_alternate_are_refused(turns: list[Turn]) -> None:
    with pytest.raises(PromptError):
        render(turns)


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_holds_the_question_once(name: str) -> None:
    words = plain(render([Turn("user", "is there a dog?", 1)], name))
    assert words.count("is there a dog?") == 1
    assert words.startswith("<audio>")
    assert "{" not in words


def test_unknown_template_lists_the_known() -> None:
    with pytest.raises(PromptError) as caught:
        template_named("chatml")
    assert "'chatml'" in str(caught.value)
    assert all(name in str(caught.value) for name in TEMPLATES)


def test_instruction() -> None:
    assert instruction(" what happened? ") == "what happened?"
    assert instruction("what?", input="a park") == "what?\n\n### Input:\na park"
    assert instruction("what?", silent=True) == f"what? {SILENCE_NOTE}"


@pytest.mark.parametrize("question", ["", "  ", "\n\t"])
def test_empty_question_is_refused(question: str) -> None:
    with pytest.raises(PromptError, match="empty"):
        instruction(question)


def test_join_text_keeps_kinds_apart() -> None:
    parts = [Text("a"), Text("b"), Text("</s>", True), Text("c", True), Clip(), Text("d"), BEGIN, Text("e")]
    assert join_text(parts) == [Text("ab"), Text("</s>c", True), Clip(), Text("d"), BEGIN, Text("e")]
    assert join_text([]) == []


def test_plain_shows_words_and_clips() -> None:
    assert plain([Clip(), BEGIN, Text("a"), END, Text("b", True)]) == "<audio>ab"
