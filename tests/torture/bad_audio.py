"""Damaged clips of every kind: each is decoded or refused by an AudioError, and none takes the process along.

    python tests/torture/bad_audio.py --seed 1 --count 4500

Inputs are made from a seed, so that a number names one again. They run in a child: what kills it is counted and named,
and the rest goes on. What is written on stderr, by libmpg123 say, counts as a failure too, and so does one input that
takes longer than half a minute.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

KINDS = ("cut", "header", "bytes", "moved", "mixed")
_ROOT = Path(__file__).parents[2]
_SECONDS = 0.4
_LONGEST = 30.0  # seconds for one input
_MEDIA = (  # container, codec, rate, channels
    ("mp4", "aac", 44_100, 2),
    ("mp4", "aac", 48_000, 8),
    ("mov", "pcm_s24le", 48_000, 2),
    ("ipod", "alac", 44_100, 2),
    ("adts", "aac", 22_050, 1),
    ("latm", "aac", 44_100, 2),
    ("matroska", "vorbis", 44_100, 2),
    ("matroska", "pcm_f32le", 16_000, 12),
    ("webm", "libopus", 48_000, 2),
    ("webm", "libopus", 48_000, 8),
    ("ogg", "flac", 44_100, 1),
    ("ogg", "libopus", 48_000, 2),
    ("avi", "mp2", 44_100, 2),
    ("avi", "ac3", 48_000, 2),
    ("mpegts", "aac", 48_000, 2),
    ("mpegts", "ac3", 48_000, 6),
    ("mpeg", "mp2", 44_100, 2),
    ("flv", "aac", 44_100, 2),
    ("asf", "wmav2", 44_100, 2),
    ("ac3", "ac3", 48_000, 2),
    ("eac3", "eac3", 48_000, 2),
    ("amr", "libopencore_amrnb", 8_000, 1),
    ("wv", "wavpack", 44_100, 2),
    ("tta", "tta", 44_100, 2),
    ("wav", "aac", 44_100, 1),
    ("wav", "g722", 16_000, 1),
    ("wav", "g726", 8_000, 1),
    ("wav", "libmp3lame", 44_100, 2),
    ("wav", "ac3", 48_000, 2),
    ("wav", "wmav2", 44_100, 2),
    ("caf", "aac", 44_100, 2),
    ("caf", "libopus", 48_000, 2),
    ("caf", "adpcm_ima_qt", 44_100, 2),
    ("au", "g722", 16_000, 1),
    ("aiff", "adpcm_ima_qt", 44_100, 1),
    ("w64", "pcm_s24le", 48_000, 8),
    ("mp3", "libmp3lame", 44_100, 2),
    ("mp2", "mp2", 48_000, 2),
    ("flac", "flac", 48_000, 8),
    ("nut", "flac", 44_100, 2),
    ("rm", "ac3", 48_000, 2),
    ("mxf", "pcm_s16le", 48_000, 2),
    ("gxf", "pcm_s16le", 48_000, 1),
    ("wtv", "mp2", 48_000, 2),
    ("swf", "libmp3lame", 44_100, 2),
)


@dataclass(frozen=True)
class Figures:
    """What became of the inputs.

    Attributes:
        tried: inputs.
        held: those that were decoded or refused by an AudioError, with nothing printed.
        decoded: of these, the decoded ones.
        failures: a line for every other.
        unforeseen: lines of those that were refused only because every exception of decoding is: not failures.
    """

    tried: int
    held: int
    decoded: int = 0
    failures: tuple[str, ...] = ()
    unforeseen: tuple[str, ...] = field(default=(), repr=False)


# --- inputs


def clips() -> list[tuple[str, bytes]]:
    """Small whole clips, in every container and codec of libsndfile and in many of FFmpeg, with their names."""
    return [*_by_libsndfile(), *_by_ffmpeg()]


def _tone(rate: int, channels: int) -> np.ndarray:
    times = np.arange(round(rate * _SECONDS)) / rate
    return np.stack([0.3 * np.sin(2 * math.pi * (300 + 50 * c) * times) for c in range(channels)], 1).astype(np.float32)


def _by_libsndfile() -> Iterator[tuple[str, bytes]]:
    import soundfile

    for form in soundfile.available_formats():
        for subtype in soundfile.available_subtypes(form) if form not in ("RAW", "SD2") else ():
            file = io.BytesIO()
            with contextlib.suppress(soundfile.LibsndfileError, ValueError, TypeError):
                with soundfile.SoundFile(file, "w", 8_000, 1, format=form, subtype=subtype) as out:
                    out.write(_tone(8_000, 1))
                yield f"{form}/{subtype}", file.getvalue()


def _by_ffmpeg() -> Iterator[tuple[str, bytes]]:
    try:
        import av
    except ImportError:
        return
    av.logging.set_level(None)
    for form, codec, rate, channels in _MEDIA:
        file = io.BytesIO()
        with contextlib.suppress(av.FFmpegError, ValueError, KeyError):
            _write(av, file, form, codec, rate, channels)
            yield f"{form}/{codec}/{channels}", file.getvalue()


def _write(av: Any, file: io.BytesIO, form: str, codec: str, rate: int, channels: int) -> None:
    layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}.get(channels, f"{channels} channels")
    with av.open(file, "w", format=form, options={"strict": "-2"}) as out:
        stream = out.add_stream(codec, rate=rate, layout=layout, options={"strict": "-2"})
        stream.codec_context.open()
        packed = np.ascontiguousarray(_tone(rate, channels).reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        size = stream.codec_context.frame_size or 1024
        fit = av.AudioResampler(stream.codec_context.format.name, layout, rate, frame_size=size)
        for part in [*fit.resample(frame), *fit.resample(None), None]:
            out.mux(stream.encode(part))


def damaged(whole: list[tuple[str, bytes]], seed: int, number: int) -> tuple[str, bytes]:
    """Input ``number`` of ``seed``: what it is, and its bytes."""
    random = np.random.default_rng([seed, number])
    name, content = whole[int(random.integers(len(whole)))]
    kind = KINDS[number % len(KINDS)]
    data = bytearray(content)
    if kind == "cut":
        del data[int(random.integers(len(data))) :]
    elif kind == "header":
        for at in random.integers(0, min(len(data), 256), int(random.integers(1, 9))):
            data[at] = int(random.choice([0, 0xFF, 0x7F, 0x80, int(random.integers(256))]))
    elif kind == "bytes":
        for at in random.integers(0, len(data), int(random.integers(1, 40))):
            data[at] = int(random.integers(256))
    elif kind == "moved":
        begin, end = sorted(int(at) for at in random.integers(0, len(data), 2))
        end = min(end, begin + 5_000)
        at, how = int(random.integers(len(data))), int(random.integers(3))
        block = bytes(data[begin:end]) if how else random.bytes(end - begin)
        if how == 2:
            del data[begin:end]
        data[at:at] = block
    else:
        other, second = whole[int(random.integers(len(whole)))]
        head, skipped = int(random.integers(1, 200)), int(random.integers(200))
        data = data[:head] + second[skipped:]
        name = f"{name}+{other}"
    return f"#{number} {kind} {name}", bytes(data)


# --- the child


def _child(seed: int, first: int, last: int) -> None:
    """A line of JSON before and after each input."""
    sys.path.insert(0, str(_ROOT))
    import gama.audio
    from gama.errors import AudioError

    with tempfile.TemporaryFile() as errors, os.fdopen(os.dup(1), "w") as out:
        os.dup2(errors.fileno(), 1)  # what a library prints must not stand among the lines
        os.dup2(errors.fileno(), 2)
        whole = clips()
        for number in range(first, last):
            name, content = damaged(whole, seed, number)
            print(json.dumps({"begun": name}), file=out, flush=True)
            result: dict[str, Any] = {"done": name, "failure": "", "unforeseen": "", "decoded": False}
            before = os.fstat(errors.fileno()).st_size
            try:
                waveform = gama.audio.load(content)
                result["decoded"] = bool(np.isfinite(waveform.samples).all()) or _fail("not finite")
            except AudioError as refused:
                result["unforeseen"] = _unforeseen(refused)
                if not str(refused).isprintable():
                    result["failure"] = f"not one line: {refused!r}"
            except BaseException as failed:
                result["failure"] = f"{type(failed).__name__}: {failed}"
            if os.fstat(errors.fileno()).st_size > before:
                errors.seek(before)
                result["failure"] = result["failure"] or f"printed: {errors.read(200).decode(errors='replace')!r}"
            print(json.dumps(result), file=out, flush=True)


def _fail(message: str) -> bool:
    raise AssertionError(message)


def _unforeseen(refused: Exception) -> str:
    cause = refused.__cause__
    named = cause is not None and f"cannot be decoded: {type(cause).__name__}" in str(refused)
    return f"{type(cause).__name__}: {cause}" if named else ""


# --- the parent


def run(seed: int, count: int) -> Figures:
    """Try ``count`` inputs of a seed, the kinds of damage in turn."""
    failures: list[str] = []
    unforeseen: list[str] = []
    held = decoded = done = 0
    while done < count:
        for result in _lines(seed, done, count):
            done += 1
            if result.get("unforeseen"):
                unforeseen.append(f"{result['done']}: {result['unforeseen']}")
            if result["failure"]:
                failures.append(f"{result['done']}: {result['failure']}")
            else:
                held += 1
                decoded += bool(result["decoded"])
    return Figures(done, held, decoded, tuple(failures), tuple(unforeseen))


def _lines(seed: int, first: int, last: int) -> Iterator[dict[str, Any]]:
    """The results of one child, up to the input that ends it."""
    words = [sys.executable, __file__, "--child", str(first), "--seed", str(seed), "--count", str(last)]
    environment = os.environ | {"PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        begun = ""
        buffered = b""
        while True:
            ready, _, _ = select.select([child.stdout], [], [], _LONGEST if begun else 4 * _LONGEST)
            if not ready:
                child.kill()
                yield {"done": begun or f"#{first}", "failure": f"took longer than {_LONGEST:.0f} s"}
                return
            block = os.read(child.stdout.fileno(), 2**16)
            *lines, buffered = (buffered + block).split(b"\n")
            for line in lines:
                result = json.loads(line)
                begun = result.get("begun", "")
                if "done" in result:
                    yield result
            if not block:
                break
        status = child.wait()
    if begun or status:
        ended = signal.Signals(-status).name if status < 0 else f"status {status}"
        yield {"done": begun or f"#{first}", "failure": f"the process ended: {ended}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=4_500)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child is not None:
        _child(given.seed, given.child, given.count)
        return
    figures = run(given.seed, given.count)
    print(f"{figures.tried} tried, {figures.held} held ({figures.decoded} decoded), {len(figures.failures)} failed")
    for line in (*figures.failures, *figures.unforeseen):
        print(" ", line)
    raise SystemExit(bool(figures.failures))


if __name__ == "__main__":
    main()
