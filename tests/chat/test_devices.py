"""``/record`` and ``/play`` with machines that have what they need, and with those that do not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from gama.chat import playing
from gama.chat.events import Attached, Event, Failed, Note
from gama.chat.session import Session

Make = Callable[..., Session]


def does(session: Session, *lines: str) -> list[Event]:
    return [event for line in lines for event in session.line(line)]


def failure(events: list[Event]) -> str:
    (found,) = [event for event in events if isinstance(event, Failed)]
    assert not found.internal, found
    return str(found)


class Microphone(ModuleType):
    """The package sounddevice, as far as it is used; it hears a ramp."""

    class PortAudioError(Exception):
        pass

    def __init__(self, *, broken: bool = False, interrupted_after: int = 10**9) -> None:
        super().__init__("sounddevice")
        outer = self

        class InputStream:
            def __init__(self, *, samplerate: int, channels: int, dtype: str) -> None:
                assert (samplerate, channels, dtype) == (16_000, 1, "float32")
                if broken:
                    raise outer.PortAudioError("Error querying device -1")
                self.read_so_far = 0

            def __enter__(self) -> InputStream:
                return self

            def __exit__(self, *_: Any) -> None: ...

            def read(self, frames: int) -> tuple[np.ndarray[Any, Any], bool]:
                if self.read_so_far >= interrupted_after:
                    raise KeyboardInterrupt
                block = np.arange(self.read_so_far, self.read_so_far + frames, dtype=np.float32) / 32768
                self.read_so_far += frames
                return block.reshape(-1, 1), False

        self.InputStream = InputStream


def test_recorded(make: Make, clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", Microphone())
    session = make()
    events = does(session, "/record 1.5")
    clip = next(e.clip for e in events if isinstance(e, Attached))
    assert clip.facts["duration_s"] == 1.5 and clip.path.parent == clips / "home" / "recordings"
    assert clip.waveform is not None and clip.waveform.samples[12_000] == pytest.approx(12_000 / 32768)
    assert session.fresh == (clip.name,)


def test_a_recording_that_is_ended_early_is_kept(make: Make, clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", Microphone(interrupted_after=8000))
    clip = next(e.clip for e in does(make(), "/record 60") if isinstance(e, Attached))
    assert clip.facts["duration_s"] == 0.5


def test_without_a_microphone(make: Make, clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", Microphone(broken=True))
    assert "the microphone cannot be used: Error querying device -1" in failure(does(make(), "/record"))
    monkeypatch.setitem(sys.modules, "sounddevice", None)  # not installed
    assert "pip install 'gama-audio[record]'" in failure(does(make(), "/record"))
    assert not (clips / "home").exists()


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "ten", "601"])
def test_no_length(make: Make, seconds: str) -> None:
    assert "up to 600 was expected" in failure(does(make(), f"/record {seconds}"))


def player(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program ``aplay`` that does this, and no other program at all."""
    file = folder / "bin" / "aplay"
    file.parent.mkdir()
    file.write_text(f"#!{sys.executable}\n{script}\n")
    file.chmod(0o755)
    monkeypatch.setenv("PATH", str(file.parent))


def test_played(make: Make, clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    player(clips, "import sys, shutil; shutil.copy(sys.argv[-1], 'played.wav')", monkeypatch)
    session = make()
    does(session, "/audio long.wav 1-3", "bells.flac")
    events = does(session, "/play long")
    assert [type(e) for e in events] == [Note]
    from gama import audio

    assert audio.load("played.wav").duration == 2.0
    does(session, "/play")
    assert audio.load("played.wav").duration == pytest.approx(2.0, abs=0.01)


def test_a_player_that_fails(make: Make, clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    player(clips, "import sys; sys.exit('no sound card')", monkeypatch)
    assert "aplay could not play dog: no sound card" in failure(does(make(), "dog.wav", "/play"))


def test_a_player_that_hangs(make: Make, clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    player(clips, "import time; time.sleep(60)", monkeypatch)
    monkeypatch.setattr(playing, "_GRACE", 0.2)
    assert "aplay did not end" in failure(does(make(), "dog.wav", "/play"))


def test_without_a_player(make: Make, clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = make()
    assert "no clip is named" in failure(does(session, "/play"))
    monkeypatch.setenv("PATH", str(clips))
    assert "install one of afplay" in failure(does(session, "dog.wav", "/play"))
