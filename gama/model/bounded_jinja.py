"""Chat templates of models that somebody else made: rendered with an end, in time, memory and length.

A template is a program: loops in loops, recursion and ``'x' * 10**10`` end neither soon nor in memory. Jinja's sandbox
keeps it from files and attributes, not from that. So it runs in a fork of this process that the system stops: what it
may use of the processor and of memory beyond what is used already is limited, and what it writes is read up to a limit.
Systems without fork or such limits (Windows; memory on macOS) run it as transformers does.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from transformers.utils import chat_template_utils

from gama.errors import PromptError
from gama.text import printable

SECONDS = 5
"""Of the processor, that rendering may take; templates take milliseconds."""
_WAITING = 12  # times as long, until an answer has to be there: the machine may be busy
_MEMORY = 2**30  # bytes beyond what the process has
_LONGEST = 4 * 2**20  # characters of rendered text; contexts have thousands of tokens
_SHOWN = 60  # characters of a template in an error

_Rendered = tuple[list[str], list[list[tuple[int, int]]]]


def render_jinja_template(conversations: list[Any], chat_template: str, **options: Any) -> _Rendered:
    """What the function of that name in transformers does, with an end.

    Args:
        conversations: lists of messages; plain values.
        chat_template: Jinja source.
        options: of transformers' function, and variables of the template.

    Returns:
        The texts, and where an assistant wrote in each, as transformers returns them.

    Raises:
        PromptError: for a template that does not end in time or memory, writes too much, or fails; it quotes it.
    """
    if not hasattr(os, "fork"):
        return _render(conversations, chat_template, options)
    try:
        key = json.dumps([conversations, options], sort_keys=True)
    except (TypeError, ValueError):  # functions as tools, what templates read from objects
        return _forked(_Call(chat_template, None, conversations, options))
    return _remembered(_Call(chat_template, key, conversations, options))


@dataclass(frozen=True)
class _Call:
    """A template and what it is rendered with; ``key`` stands for the latter where calls are compared."""

    template: str
    key: str | None
    conversations: list[Any] = field(compare=False)
    options: dict[str, Any] = field(compare=False)


@lru_cache(maxsize=256)
def _remembered(call: _Call) -> _Rendered:
    """Most prompts of a run differ in the words that are put in afterwards, and no fork is needed for those."""
    return _forked(call)


def _forked(call: _Call) -> _Rendered:
    read, write = os.pipe()
    with warnings.catch_warnings():  # the fork touches nothing that another thread could hold but Jinja's cache
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.close(read)
        _in_child(write, call)
    os.close(write)
    try:
        content = _received(read, time.monotonic() + _WAITING * SECONDS)
    finally:
        os.close(read)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return _answered(content, call.template)


def _render(conversations: list[Any], chat_template: str, options: dict[str, Any]) -> _Rendered:
    try:
        rendered, spans = chat_template_utils.render_jinja_template(
            conversations=conversations, chat_template=chat_template, **options
        )
    except Exception as error:  # a template may raise whatever it likes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise _error(chat_template, f"fails: {printable(reason[:200])}") from error
    return list(rendered), list(spans or [])


def _in_child(write: int, call: _Call) -> None:
    """Render and write the outcome as JSON; never returns."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        _limit()
        try:
            rendered, spans = _render(call.conversations, call.template, call.options)
            if sum(map(len, rendered)) > _LONGEST:
                raise _error(call.template, f"writes more than {_LONGEST} characters")
            outcome = {"rendered": rendered, "spans": spans}
        except PromptError as error:
            outcome = {"message": error.message}
        _write(write, json.dumps(outcome).encode())
    finally:
        os._exit(0)


def _limit() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        with open("/proc/self/statm", encoding="ascii") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        limit = used + _MEMORY if most == resource.RLIM_INFINITY else min(used + _MEMORY, most)
        resource.setrlimit(resource.RLIMIT_AS, (limit, most))


def _write(descriptor: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


def _received(read: int, until: float) -> bytes | None:
    """What the fork wrote; None where it takes longer or writes more than it may."""
    pieces: list[bytes] = []
    while (seconds := until - time.monotonic()) > 0 and sum(map(len, pieces)) < 8 * _LONGEST:
        ready, _, _ = select.select([read], [], [], seconds)
        if not ready:
            break
        piece = os.read(read, 2**20)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
    return None


def _answered(content: bytes | None, chat_template: str) -> _Rendered:
    try:
        outcome = json.loads(content or b"")
    except ValueError:
        raise _error(chat_template, f"does not end within {SECONDS} s and {_MEMORY // 2**20} MiB") from None
    if "message" in outcome:
        raise PromptError(outcome["message"], _HINT)
    return outcome["rendered"], [[(begin, end) for begin, end in spans] for spans in outcome["spans"]]


_HINT = "see chat_template in the model's folder; --template gama takes GAMA's own prompt"


def _error(chat_template: str, what: str) -> PromptError:
    begins = printable(" ".join(chat_template.split())[:_SHOWN])
    return PromptError(f"the chat template of the model ({begins} …) {what}", _HINT)


__all__ = ["SECONDS", "render_jinja_template"]
