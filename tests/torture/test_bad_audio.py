"""A few of the damaged clips of the battery; ``python tests/torture/bad_audio.py`` tries as many as one likes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def bad_audio() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bad_audio", Path(__file__).with_name("bad_audio.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bad_audio"] = module
    spec.loader.exec_module(module)
    return module


def test_damaged_clips(bad_audio: ModuleType) -> None:
    figures = bad_audio.run(seed=7, count=250)
    assert figures.failures == ()
    assert (figures.tried, figures.held) == (250, 250)
    assert 20 < figures.decoded < 230


def test_a_killed_child_is_counted_and_named(bad_audio: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The results of a child that dies at its third input."""
    lines = r'{"begun": "#0"}\n{"done": "#0", "failure": "", "decoded": true}\n{"begun": "#1 cut x"}\n'
    program = f"import os,sys; sys.stdout.write('{lines}'); sys.stdout.flush(); os.kill(os.getpid(), 11)"
    started = bad_audio.subprocess.Popen
    monkeypatch.setattr(bad_audio.subprocess, "Popen", lambda _, **o: started([sys.executable, "-c", program], **o))
    results = list(bad_audio._lines(1, 0, 5))
    assert [result["done"] for result in results] == ["#0", "#1 cut x"]
    assert results[1]["failure"] == "the process ended: SIGSEGV"
