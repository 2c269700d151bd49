"""A model that is loaded in the background."""

from __future__ import annotations

import _thread
import signal
import threading

import pytest
from chat.stub import Stub

from gama.chat.opening import Opening
from gama.errors import CheckpointError


def test_waits_and_gives_what_was_opened() -> None:
    gate, stub = threading.Event(), Stub()

    def slow() -> Stub:
        gate.wait(30)
        return stub

    opening = Opening(slow)
    assert not opening.is_done and not opening.is_ready
    gate.set()
    assert opening.result() is stub and opening.is_done and opening.is_ready
    assert opening.result() is stub


def test_ctrl_c_ends_the_waiting_and_not_the_loading() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    gate, stub = threading.Event(), Stub()

    def slow() -> Stub:
        gate.wait(30)
        return stub

    opening = Opening(slow)
    threading.Timer(0.3, _thread.interrupt_main).start()
    with pytest.raises(KeyboardInterrupt):
        opening.result()
    signal.signal(signal.SIGINT, before)
    assert not opening.is_done
    gate.set()
    assert opening.result() is stub


def test_an_error_is_raised_where_the_voice_is_wanted() -> None:
    def broken() -> Stub:
        raise CheckpointError("no such model")

    opening = Opening(broken)
    for _ in range(2):
        with pytest.raises(CheckpointError, match="no such model"):
            opening.result()
    assert opening.is_done and not opening.is_ready
