"""``/record``: a clip from the microphone, by sounddevice where it is installed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gama import interrupts
from gama.atomic import make_folder, write_bytes
from gama.audio import SAMPLE_RATE
from gama.audio.encoding import encoded
from gama.chat.clips import held
from gama.chat.events import Event, Note
from gama.chat.paths import Wanted
from gama.errors import AudioError, DeviceError, MissingPackageError, PromptError
from gama.home import home
from gama.text import printable

if TYPE_CHECKING:
    from gama.chat.session import Session

DEFAULT_SECONDS = 5.0
LONGEST_SECONDS = 600.0


def record(session: Session, rest: str) -> Iterator[Event]:
    """Record, keep the file under ``GAMA_HOME``, and add it as a clip. Ctrl-C ends it early and keeps what is there.

    Raises:
        PromptError: for a length that is none.
        MissingPackageError: without sounddevice.
        DeviceError: without a microphone.
    """
    seconds = _seconds(rest)
    sounddevice = _sounddevice()
    yield Note(f"recording {seconds:g} s … (Ctrl-C ends it earlier)")
    samples = _recorded(sounddevice, seconds)
    path = _kept(samples)
    yield from session.add(held(Wanted(path), session.shelf.free_name(path), **session.hearing))


def _seconds(rest: str) -> float:
    try:
        seconds = float(rest or DEFAULT_SECONDS)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= LONGEST_SECONDS:
        raise PromptError(f"{printable(rest)!r} seconds, up to {LONGEST_SECONDS:g} was expected", "/record 5")
    return seconds


def _sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError as error:
        raise MissingPackageError(
            "recording needs the package sounddevice", "pip install 'gama-audio[record]'"
        ) from error
    except OSError as error:  # the package is there, the library it stands on is not
        raise MissingPackageError(
            "recording needs the library PortAudio", "on Debian: apt install libportaudio2"
        ) from error
    return sounddevice


def _recorded(sounddevice: Any, seconds: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    """One channel at 16 kHz, as long as was recorded."""
    blocks: list[np.ndarray[Any, np.dtype[np.float32]]] = []
    try:
        with sounddevice.InputStream(samplerate=SAMPLE_RATE, channels=1, dtype="float32") as stream:
            left = round(seconds * SAMPLE_RATE)
            while left > 0:
                block, _ = stream.read(min(left, SAMPLE_RATE // 10))
                blocks.append(np.array(block[:, 0]))
                left -= len(block)
    except KeyboardInterrupt:
        if not blocks:
            raise
        interrupts.clear()
    except sounddevice.PortAudioError as error:
        raise DeviceError(f"the microphone cannot be used: {' '.join(str(error).split())}") from error
    if not blocks:
        raise AudioError("nothing was recorded")
    return np.concatenate(blocks)


def _kept(samples: np.ndarray[Any, np.dtype[np.float32]]) -> Path:
    folder = home() / "recordings"
    make_folder(folder)
    path = folder / f"recording-{datetime.now():%Y%m%d-%H%M%S-%f}.wav"
    write_bytes(path, encoded(samples, "WAV", "PCM_16"))
    return path


__all__ = ["DEFAULT_SECONDS", "record"]
