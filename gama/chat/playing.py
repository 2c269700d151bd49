"""``/play``: a clip through whatever player the machine has."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gama.audio import SAMPLE_RATE
from gama.chat.clips import Held
from gama.chat.events import Event, Note
from gama.errors import AudioError, MissingPackageError

PLAYERS: tuple[tuple[str, ...], ...] = (
    ("afplay",),
    ("pw-play",),
    ("paplay",),
    ("aplay", "-q"),
    ("ffplay", "-v", "error", "-nodisp", "-autoexit"),
    ("play", "-q"),
)
"""Tried in this order; each takes a wav file as its last argument."""

_GRACE = 10.0  # seconds beyond the clip's own before a player that hangs is ended


def player() -> tuple[str, ...] | None:
    """The first player that is installed."""
    return next((command for command in PLAYERS if shutil.which(command[0])), None)


def play(clip: Held) -> Iterator[Event]:
    """Play what the model hears of a clip, until its end or Ctrl-C.

    Raises:
        MissingPackageError: when there is no player.
        AudioError: when the player fails.
    """
    command = player()
    if command is None:
        names = ", ".join(player[0] for player in PLAYERS)
        raise MissingPackageError("no program that plays sound was found", f"install one of {names}")
    assert clip.waveform is not None
    yield Note(f"playing {clip.name}, {clip.waveform.duration:.1f} s (Ctrl-C stops)")
    with tempfile.TemporaryDirectory(prefix="gama-") as folder:
        file = Path(folder) / "clip.wav"
        _write(file, clip)
        try:
            done = subprocess.run(
                [*command, str(file)],
                check=False,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=clip.waveform.duration + _GRACE,
            )
        except subprocess.TimeoutExpired:
            raise AudioError(f"{command[0]} did not end after the clip") from None
    if done.returncode:
        reason = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise AudioError(f"{command[0]} could not play {clip.name}: {reason}")


def _write(file: Path, clip: Held) -> None:
    import soundfile

    assert clip.waveform is not None
    soundfile.write(file, clip.waveform.samples, SAMPLE_RATE, subtype="PCM_16")


__all__ = ["PLAYERS", "play", "player"]
