"""Chat templates with an end, in time, memory and length; the others as transformers renders them."""

from __future__ import annotations

import os
from typing import Any

import pytest
from transformers.utils import chat_template_utils

from gama.errors import PromptError
from gama.model import bounded_jinja
from gama.model.bounded_jinja import render_jinja_template

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

CHATML = """
{%- for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}
{%- if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}
{{- '<|im_end|>\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' + bos_token }}{% endif %}"""
TALK = [{"role": "user", "content": "hé \ud800 \ue0000\ue001"}, {"role": "assistant", "content": "yes"}]
LONG = "{% for i in range(99999) %}{% for j in range(99999) %}"
ENDS = "{% endfor %}{% endfor %}"


@pytest.mark.parametrize("options", [{}, {"add_generation_prompt": True}, {"return_assistant_tokens_mask": True}])
def test_as_transformers_does(options: dict[str, Any]) -> None:
    given = {"conversations": [TALK, TALK[:1]], "chat_template": CHATML, "bos_token": "<s>", **options}
    expected, spans = chat_template_utils.render_jinja_template(**given)
    assert render_jinja_template(**given) == (expected, [list(each) for each in spans] if spans else [])


@pytest.mark.parametrize(
    ("template", "what"),
    [
        (f"{LONG}{ENDS}", "does not end within 1 s and 1024 MiB"),
        (f"{LONG}x{ENDS}", "does not end within 1 s"),
        ("{{ 'x' * 10 ** 10 }}", "fails: MemoryError|does not end"),
        (
            "{% set n = namespace(x='x' * 1000) %}{% for i in range(40) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
            "fails: MemoryError|does not end",
        ),
        ("{{ ('x' * 10000)|replace('x', 'x' * 10000)|replace('x', 'x' * 10000) }}", "fails: MemoryError|does not end"),
        ("{{ 2 ** (10 ** 10) }}", "does not end|fails"),
        ("{{ 'x' * 5000000 }}", "writes more than 4194304 characters"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "fails: maximum recursion depth"),
        ("{{ raise_exception('no system turn') }}", "fails: no system turn"),
        ("{{ ''.__class__.__mro__ }}", "fails: access to attribute '__class__'"),
        ("{% for %}", "fails: "),
        ("{{ 1 / 0 }}", "fails: division by zero"),
    ],
)
def test_what_has_no_end(monkeypatch: pytest.MonkeyPatch, template: str, what: str) -> None:
    monkeypatch.setattr(bounded_jinja, "SECONDS", 1)
    with pytest.raises(PromptError, match=what) as error:
        render_jinja_template([TALK], template)
    text = str(error.value)
    assert text.startswith("the chat template of the model ({") and template[:10] in text
    assert "chat_template in the model's folder" in text and "\n" not in text and len(text) < 500


def test_no_process_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_jinja, "SECONDS", 1)
    started: list[int] = []
    fork = os.fork

    def noted() -> int:
        started.append(fork())
        return started[-1]

    monkeypatch.setattr(bounded_jinja.os, "fork", noted)
    with pytest.raises(PromptError):
        render_jinja_template([TALK], f"{LONG}{ENDS}")
    (child,) = started
    with pytest.raises(ChildProcessError):  # it was waited for
        os.waitpid(child, os.WNOHANG)


def test_the_same_prompt_needs_no_second_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    first = render_jinja_template([TALK], "{{ messages|length }} turns, again")
    monkeypatch.setattr(bounded_jinja.os, "fork", lambda: pytest.fail("forked again"))
    assert render_jinja_template([[dict(turn) for turn in TALK]], "{{ messages|length }} turns, again") == first


def test_tools_that_are_functions() -> None:
    def level(db: float) -> str:
        """Set the level.

        Args:
            db: decibels.
        """
        return str(db)

    rendered, _ = render_jinja_template([TALK], "{{ tools[0].function.name }}", tools=[level])
    assert rendered == ["level"]
