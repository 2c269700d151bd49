"""Writes the table of docs/audio.md: each container and codec that libsndfile and FFmpeg can write here, read again.

    python docs/audio_table.py            # write the table anew: two minutes
    python docs/audio_table.py caf mp4    # print the rows of these containers

A tone of 440 Hz and two seconds is written in every way there is. It counts as heard when it comes back as that tone
and that long; anything else is shown as it is. Then the file is cut at 60 % and at 95 %, to see if that is noticed.
"""

from __future__ import annotations

import io
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from gama import audio
from gama.errors import AudioError

PAGE = Path(__file__).with_name("audio.md")
BEGIN, END = "<!-- table: docs/audio_table.py -->\n", "<!-- end of table -->"
SECONDS = 2.0
SHAPES = ((48_000, 2), (44_100, 2), (22_050, 2), (16_000, 1), (8_000, 1))
"""Rates and channels that an encoder is tried with: the first it takes."""

# Muxers that write no file of sound: checksums, streams over a network, many files at once, devices, text.
NO_FILES = frozenset(
    """
    alsa oss fbdev caca sdl opengl xv pulse audiotoolbox decklink crc md5 hash streamhash framecrc framehash framemd5
    null uncodedframecrc ffmetadata rtp rtp_mpegts rtsp sap whip hls hds dash smoothstreaming segment tee fifo image2
    webm_chunk webm_dash_manifest mkvtimestamp_v2 data rawvideo stream_segment,ssegment ssegment stream_segment
    video4linux2,v4l2 chromaprint
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Row:
    """What became of one container and codec.

    Attributes:
        writer: libsndfile or FFmpeg.
        result: ``heard``, or the message of the refusal, or what is wrong with what was heard.
        cut: whether the file, cut, was refused.
    """

    writer: str
    container: str
    codec: str
    result: str
    cut: bool


def tone(rate: int, channels: int) -> np.ndarray:
    """(N, C) float32."""
    one = 0.3 * np.sin(2 * math.pi * 440 * np.arange(round(SECONDS * rate)) / rate)
    return np.repeat(one[:, None], channels, axis=1).astype(np.float32)


def judged(content: bytes, rate: int) -> tuple[str, bool]:
    """Whether the tone is heard, and whether a cut file is refused."""
    try:
        waveform = audio.load(content, name="clip")
    except AudioError as error:
        return str(error).removeprefix("clip: "), True
    wrong = _fault(waveform)
    return wrong or "heard", all(_is_refused(content[: int(len(content) * part)]) for part in (0.6, 0.95))


def _fault(waveform: audio.Waveform) -> str:
    if abs(waveform.duration - SECONDS) > 0.15:
        return f"heard, {waveform.duration:.2f} s long"
    middle = waveform.samples[8_000:24_000]
    loudest = int(np.abs(np.fft.rfft(middle)).argmax())
    return "" if abs(loudest - 440) <= 5 else f"heard, as {loudest} Hz"


def _is_refused(content: bytes) -> bool:
    try:
        audio.load(content)
    except AudioError:
        return True
    return False


# --- libsndfile


def by_libsndfile(wanted: frozenset[str] = frozenset()) -> Iterator[Row]:
    for container in soundfile.available_formats():
        if container in ("RAW", "SD2") or (wanted and container.lower() not in wanted):
            continue
        # SD2 keeps its header in a file of its own, named ._ without a name: neither written nor read here
        rate = {"WVE": 8_000, "XI": 44_100}.get(container, 16_000)  # the only ones they know
        for codec in soundfile.available_subtypes(container):
            file = io.BytesIO()
            try:
                with soundfile.SoundFile(file, "w", rate, 1, format=container, subtype=codec) as writer:
                    writer.write(tone(rate, 1))
            except (soundfile.LibsndfileError, ValueError, TypeError):
                continue
            yield Row("libsndfile", container.lower(), codec.lower(), *judged(file.getvalue(), rate))


# --- FFmpeg


def encoders() -> dict[str, tuple[int, int]]:
    """FFmpeg's encoders of sound, each with a rate and number of channels that it takes."""
    import av

    found = {}
    for name in sorted(av.codecs_available):
        try:
            codec = av.codec.Codec(name, "w")
        except (av.FFmpegError, ValueError):
            continue
        if codec.type == "audio" and codec.name == name and name not in ("anull", "comfortnoise"):
            shapes = SHAPES if name != "libopencore_amrnb" else SHAPES[-1:]  # it takes other rates and writes 8 kHz
            shape = next((shape for shape in shapes if _takes(name, *shape)), None)
            if shape is not None:
                found[name] = shape
    return found


def _takes(codec: str, rate: int, channels: int) -> bool:
    import av

    context = av.CodecContext.create(codec, "w")
    context.sample_rate, context.layout = rate, "stereo" if channels == 2 else "mono"
    context.format = context.codec.audio_formats[0] if context.codec.audio_formats else "s16"
    context.options = {"strict": "-2"}
    try:
        context.open()
    except (av.FFmpegError, ValueError):
        return False
    return True


def muxers() -> list[str]:
    import av

    names = []
    for name in sorted(av.formats_available):
        try:
            form = av.ContainerFormat(name, "w")
        except (av.FFmpegError, ValueError):
            continue
        if name not in NO_FILES and form.name not in NO_FILES:
            names.append(name)
    return names


def written(container: str, codec: str, rate: int, channels: int) -> bytes | None:
    """The tone in a file, None where the two do not go together."""
    import av

    file = io.BytesIO()
    layout = "stereo" if channels == 2 else "mono"
    try:
        with av.open(file, "w", format=container, options={"strict": "-2"}) as out:
            stream = out.add_stream(codec, rate=rate, layout=layout, options={"strict": "-2"})
            for packet in _encoded(stream, tone(rate, channels), layout, rate):
                out.mux(packet)
    except Exception:  # whatever FFmpeg and PyAV say to a pair that does not go together
        return None
    return file.getvalue() or None


def _encoded(stream: Any, samples: np.ndarray, layout: str, rate: int) -> Iterator[Any]:
    import av

    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout=layout)
    frame.sample_rate, frame.pts = rate, 0
    stream.codec_context.open()
    size = stream.codec_context.frame_size or 1024
    fit = av.AudioResampler(stream.codec_context.format.name, layout, rate, frame_size=size)
    for part in [*fit.resample(frame), *fit.resample(None)]:
        yield from stream.encode(part)
    yield from stream.encode(None)


def by_ffmpeg(wanted: frozenset[str] = frozenset()) -> Iterator[Row]:
    import av

    av.logging.set_level(None)
    shapes = encoders()
    for container in muxers():
        if wanted and container not in wanted:
            continue
        for codec, (rate, channels) in shapes.items():
            content = written(container, codec, rate, channels)
            if content is not None:
                yield Row("FFmpeg", container, codec, *judged(content, rate))


# --- the page


def table(rows: list[Row]) -> str:
    """A row for each container: what is heard, what is refused and why, and whether a cut is noticed."""
    lines = ["| container | written by | heard | not heard | cut file |", "|---|---|---|---|---|"]
    for writer, container in dict.fromkeys((row.writer, row.container) for row in rows):
        same = [row for row in rows if (row.writer, row.container) == (writer, container)]
        good = [row.codec for row in same if row.result == "heard"]
        reasons = dict.fromkeys(row.result for row in same if row.result != "heard")
        bad = "; ".join(f"{', '.join(r.codec for r in same if r.result == why)}: {why}" for why in reasons)
        noticed = [row.cut for row in same if row.result == "heard"]
        cut = "" if not noticed else "refused" if all(noticed) else "heard" if not any(noticed) else _some(same)
        lines.append(f"| {container} | {writer} | {', '.join(good)} | {bad.replace('|', '/')} | {cut} |")
    return "\n".join(lines) + "\n"


def _some(rows: list[Row]) -> str:
    return "refused, but of " + ", ".join(row.codec for row in rows if row.result == "heard" and not row.cut)


def rows_of(wanted: frozenset[str] = frozenset()) -> list[Row]:
    """All rows, or those of some containers."""
    makers: list[Callable[[frozenset[str]], Iterator[Row]]] = [by_libsndfile, by_ffmpeg]
    return [row for maker in makers for row in maker(wanted)]


def main() -> None:
    wanted = frozenset(name.lower() for name in sys.argv[1:])
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:  # a muxer that writes files of its own does it there
        os.chdir(folder)
        try:
            text = table(rows_of(wanted))
        finally:
            os.chdir(here)
    if wanted:
        print(text, end="")
        return
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    PAGE.write_text(before + BEGIN + "\n" + text + "\n" + END + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    main()
