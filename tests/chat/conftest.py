"""Clips in the working folder, and sessions with a stub for a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from chat.sounds import write_clips
from chat.stub import Stub

from gama.chat.session import Session
from gama.chat.settings import Model, Settings


@pytest.fixture
def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with the clips of :mod:`chat.sounds`; GAMA_HOME is below it."""
    write_clips(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GAMA_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture
def stubs() -> list[Stub]:
    """Every stub that a session of the test has opened."""
    return []


@pytest.fixture
def make(stubs: list[Stub]) -> Callable[..., Session]:
    """A session that opens stubs."""

    def made(context: int = 1024, **settings: object) -> Session:
        def opened(model: Model) -> Stub:
            from chat.stub import opened as plain

            stub = plain(model)
            stub.context = context
            stubs.append(stub)
            return stub

        return Session(opened, settings=Settings(**settings))  # type: ignore[arg-type]

    return made
