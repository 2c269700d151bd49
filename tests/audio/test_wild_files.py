"""Files as they come: what libsndfile or PyAV can decode is heard, all else is refused in one line that says why."""

from __future__ import annotations

import io
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import gama.audio
from gama.audio.containers import Checked
from gama.audio.formats import PROBED, Format
from gama.audio.source import Source
from gama.errors import AudioError, MissingPackageError

RATE = 16_000


def tone(seconds: float = 1.0, frequency: float = 440.0, channels: int = 1, rate: int = RATE) -> np.ndarray:
    one = 0.3 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)
    return np.repeat(one[:, None], channels, axis=1).astype(np.float32)


def encoded(form: str, subtype: str, samples: np.ndarray, rate: int = RATE, **options: Any) -> bytes:
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", rate, samples.shape[1], format=form, subtype=subtype, **options) as out:
        out.write(samples)
    return file.getvalue()


def frequency_of(samples: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(samples * np.hanning(len(samples)))).argmax()) * 16_000 / len(samples)


def refused(clip: Any, **options: Any) -> str:
    with pytest.raises(AudioError) as error:
        gama.audio.load(clip, **options)
    text = str(error.value)
    assert text.isprintable()
    return text


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def wav_of(*chunks: bytes) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


# --- codecs and containers


@pytest.mark.parametrize(
    ("form", "subtype"),
    [("WAV", "GSM610"), ("WAV", "G721_32"), ("WAV", "NMS_ADPCM_16"), ("AIFF", "GSM610"), ("AU", "G723_24")],
)
def test_codecs_that_go_forward_only(form: str, subtype: str) -> None:
    content = encoded(form, subtype, tone(2.0), rate=8_000)
    heard = gama.audio.load(content)
    assert heard.duration == pytest.approx(4.0, abs=0.05)
    assert frequency_of(heard.samples[8_000:40_000]) == pytest.approx(220, abs=3)
    span = gama.audio.load(content, start=1.0, end=2.0)
    np.testing.assert_allclose(span.samples, heard.samples[16_000:32_000], atol=1e-6)


KINDS = [
    *(
        ("W64", "PCM_16"),
        ("NIST", "PCM_16"),
        ("AU", "PCM_16"),
        ("CAF", "PCM_24"),
        ("CAF", "ALAC_16"),
        ("VOC", "PCM_16"),
    ),
    *(("IRCAM", "FLOAT"), ("PVF", "PCM_16"), ("PAF", "PCM_24"), ("HTK", "PCM_16"), ("MAT4", "DOUBLE")),
    *(("MAT5", "PCM_16"), ("SVX", "PCM_16"), ("SDS", "PCM_16"), ("MPC2K", "PCM_16"), ("AVR", "PCM_16")),
    *(("RF64", "PCM_16"), ("WAVEX", "FLOAT"), ("AIFF", "FLOAT"), ("CAF", "FLOAT")),
]


@pytest.mark.parametrize(("form", "subtype"), KINDS)
def test_containers_of_libsndfile(form: str, subtype: str) -> None:
    content = encoded(form, subtype, tone())
    expected = soundfile.read(io.BytesIO(content), dtype="float32")[0]
    np.testing.assert_array_equal(gama.audio.load(content, name="named.txt").samples, expected)
    tagged = b"ID3\x03\0\0\0\0\0\x0a" + bytes(10) + content
    np.testing.assert_array_equal(gama.audio.load(tagged).samples, expected)


LENGTHLESS = {"IRCAM", "PVF", "PAF"}


@pytest.mark.parametrize(("form", "subtype"), [kind for kind in KINDS if kind[0] not in LENGTHLESS])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_a_length_in_the_header_is_compared(form: str, subtype: str, part: float) -> None:
    content = encoded(form, subtype, tone())
    assert "cut off" in refused(content[: int(len(content) * part)])


def test_chunks_that_are_no_sound() -> None:
    samples = tone(channels=2)
    form = struct.pack("<HHIIHH", 3, 2, RATE, 8 * RATE, 8, 32)
    peak = struct.pack("<IIfI", 1, 0, 0.3, 5)  # of one channel
    for others in (
        [chunk(b"PEAK", peak)],
        [chunk(b"LIST", b"INFOxx"), chunk(b"bext", b"?")],
        [chunk(b"cue ", b"\xff" * 9)],
    ):
        content = wav_of(chunk(b"fmt ", form), *others, chunk(b"data", samples.tobytes()))
        heard = gama.audio.load(content)
        assert heard.channels == 2
        np.testing.assert_allclose(heard.samples, samples[:, 0], atol=1e-7)
    aiff = encoded("AIFF", "FLOAT", samples)
    at = aiff.index(b"PEAK")
    size = int.from_bytes(aiff[at + 4 : at + 8], "big")
    shorter = aiff[: at + 4] + (size - 8).to_bytes(4, "big") + aiff[at + 8 : at + size] + aiff[at + 8 + size :]
    np.testing.assert_allclose(gama.audio.load(shorter).samples, samples[:, 0], atol=1e-7)


def test_a_size_that_counts_header_bytes_in() -> None:
    content = bytearray(encoded("WAV", "PCM_16", tone()))
    whole = gama.audio.load(bytes(content)).sha256
    for excess in (1, 8, 36, 44):
        content[40:44] = (32_000 + excess).to_bytes(4, "little")
        assert gama.audio.load(bytes(content)).sha256 == whole
    content[40:44] = (32_000 + 45).to_bytes(4, "little")
    assert "cut off" in refused(bytes(content))
    content[4:8], content[40:44] = (32_037).to_bytes(4, "little"), (32_001).to_bytes(4, "little")
    assert "cut off" in refused(bytes(content))  # both sizes say that a byte is missing


def test_bw64_is_rf64() -> None:
    content = encoded("RF64", "PCM_16", tone())
    assert gama.audio.load(b"BW64" + content[4:]).sha256 == gama.audio.load(content).sha256


# --- MP3


def mp3(frequency: float, seconds: float = 2.0, rate: int = RATE, channels: int = 1, mode: str = "CONSTANT") -> bytes:
    samples = tone(seconds, frequency, channels, rate)
    return encoded("MP3", "MPEG_LAYER_III", samples, rate, bitrate_mode=mode, compression_level=0.5)


TAGS = [
    b"",
    b"TAG" + bytes(125),
    b"ID3\x04\0\0\0\0\0\x0a" + bytes(10),
    b"TAG" + bytes(125) + b"ID3\x04\0\0\0\0\0\x0a" + bytes(10),
    b"APETAGEX" + struct.pack("<IIII", 2000, 32, 0, 0) + bytes(8),
    bytes(300),
]


@pytest.mark.parametrize("tag", TAGS)
def test_mp3s_one_after_the_other_are_heard_whole(tag: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    heard = gama.audio.load(mp3(440) + tag + mp3(880) + tag)
    assert heard.duration == pytest.approx(4.1, abs=0.15)
    assert frequency_of(heard.samples[4_000:28_000]) == pytest.approx(440, abs=2)
    assert frequency_of(heard.samples[38_000:62_000]) == pytest.approx(880, abs=2)
    assert capfd.readouterr().err == ""


def test_mp3s_of_two_kinds_are_refused() -> None:
    for other in (mp3(880, channels=2), mp3(880, rate=32_000)):
        assert "several clips of different kinds" in refused(mp3(440) + TAGS[1] + other)
    assert "cut off" in refused(mp3(440) + TAGS[1] + mp3(880)[:-500])


@pytest.mark.parametrize("mode", ["CONSTANT", "AVERAGE", "VARIABLE"])
@pytest.mark.parametrize(("rate", "channels"), [(44_100, 2), (22_050, 1), (8_000, 1)])
def test_mp3_spans_are_exact_and_silent(rate: int, channels: int, mode: str, capfd: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(rate)
    samples = tone(5.0, 300, channels, rate) + 0.1 * random.standard_normal((5 * rate, 1)).astype(np.float32)
    samples[::2] *= (np.sin(np.arange(len(samples[::2])) / rate) > 0)[:, None]
    content = encoded("MP3", "MPEG_LAYER_III", samples, rate, bitrate_mode=mode, compression_level=0.5)
    for clip in (content, content[content.index(content[:2], 4) :]):
        whole = gama.audio.load(clip).samples
        for start, end in ((1.9, 2.6), (3.3, 4.0), (4.2, None)):
            span = gama.audio.load(clip, start=start, end=end).samples
            expected = whole[round(start * 16_000) : None if end is None else round(end * 16_000)]
            assert span.shape == expected.shape
            np.testing.assert_allclose(span, expected, atol=1e-5)
    assert capfd.readouterr().err == ""


def test_damaged_frames_print_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """Bits that no checksum covers are flipped in the middle; libmpg123 would write about some of it."""
    from gama.audio.quiet import without_mpg123

    random = np.random.default_rng(5)
    whole = [mp3(440, mode="VARIABLE"), mp3(440, rate=44_100, channels=2)]
    for turn in range(60):
        content = bytearray(whole[turn % 2])
        for at in random.integers(200, len(content), 10):
            content[at] = int(random.integers(256))
        try:
            gama.audio.load(bytes(content))
        except AudioError:
            continue
    assert capfd.readouterr() == ("", "")
    with without_mpg123(True), without_mpg123(True):
        os.write(2, b"[src/libmpg123/layer3.c:1] error: part2_3_length\nsomebody else's line\n")
        assert capfd.readouterr().err == ""
    assert capfd.readouterr().err == "somebody else's line\n"


def test_forty_bytes_of_an_mp3() -> None:
    content = bytes.fromhex("fffb9064") + bytes(32) + b"Xing"
    for count in (36, 38, 39, 40, 43):
        assert "cut off" in refused(content[:count].ljust(count, b"\0"))


def test_mp3_in_wav_is_heard() -> None:
    plain = mp3(440)
    form = struct.pack("<HHIIHHHHIHHH", 0x55, 1, RATE, 8_000, 1, 0, 12, 1, 2, 417, 1, 1393)
    content = wav_of(chunk(b"fmt ", form), chunk(b"data", plain))
    np.testing.assert_array_equal(gama.audio.load(content).samples, gama.audio.load(plain).samples)
    assert "MPEG" in refused(wav_of(chunk(b"fmt ", form), chunk(b"data", plain[:-9])))


def test_a_file_named_dot_underscore_is_not_read(tmp_path: Path) -> None:
    """libsndfile looks for the resource fork of a nameless file, before it finds out that it is an MP3."""
    (tmp_path / "._").touch()
    (tmp_path / "a.mp3").write_bytes(mp3(440))
    program = "import gama.audio; print(gama.audio.load('a.mp3').duration)"
    words = [sys.executable, "-c", program]
    environment = os.environ | {"PYTHONPATH": str(Path(gama.audio.__file__).parents[2])}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.stdout.strip(), done.stderr) == ("2.0", "")


# --- what is no sound


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4665\nsize 1234\n", "git lfs pull"),
        (b"<!DOCTYPE html><html><title>Virus scan warning</title></html>" * 3, "is a web page"),
        (b"\n\n <HTML>\n", "is a web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is a web page or XML"),
        (b"#EXTM3U\nhttp://127.0.0.1:1/a.ts\n", "is a playlist"),
        (b"MThd\0\0\0\6\0\0\0\1\0\x60", "is MIDI"),
        (b"PK\3\4" + bytes(90), "is a zip archive"),
        ('{"error": "nicht gefunden: übermäßig"}'.encode(), "is text"),
        (b"FLV\nv=0\nc=IN IP4 127.0.0.1\nm=audio 45678 RTP/AVP 0\n", "is text"),
        (b"RIFF\x24\0\0\0sfbkLIST" + bytes(90), "not a sound file"),
    ],
)
def test_what_stands_in_place_of_a_clip(content: bytes, expected: str) -> None:
    assert expected in refused(content, name="clip.wav")


def test_random_bytes_are_no_sound() -> None:
    random = np.random.default_rng(3)
    for turn in range(300):
        content = [random.bytes(2_000), bytes(random.integers(0, 8, 2_000, np.uint8)), random.bytes(8) + bytes(900)]
        refused(content[turn % 3])


# --- names


def test_file_urls(tmp_path: Path) -> None:
    path = tmp_path / "a clip é.wav"
    path.write_bytes(encoded("WAV", "PCM_16", tone()))
    url = path.as_uri()
    assert "%20" in url
    assert gama.audio.load(url).duration == 1.0
    assert gama.audio.load(url.replace("file://", "file://localhost")).duration == 1.0
    assert gama.audio.load(Path(url)).duration == 1.0  # pathlib takes two of its slashes
    assert "on the machine nas" in refused("file://nas/share/a.wav")
    assert refused(f"{url}.gone").endswith("no such file")


def test_urls_behind_a_folder() -> None:
    assert "is a URL" in refused(Path("sc") / "https://example.org/a.wav")
    assert refused(Path("https://example.org/a.wav")).startswith("https://example.org/a.wav: is a URL")


# --- levels


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_values_beyond_any_scale(rate: int) -> None:
    for value in (1e38, -1e38, 1e11):
        samples = tone(rate=rate)
        samples[rate // 2] = value
        message = refused(encoded("WAV", "FLOAT", samples, rate), name="big.wav")
        assert message.startswith("big.wav: holds values too large for sound at 0.")


def test_over_range() -> None:
    assert gama.audio.load(encoded("WAV", "FLOAT", tone() * 30_000)).over_range
    assert not gama.audio.load(encoded("WAV", "FLOAT", tone() * 5)).over_range  # a peak of 1.5
    assert not gama.audio.load(encoded("WAV", "PCM_16", tone())).over_range


# --- damage is named, and where it is


def test_a_cut_flac_says_where() -> None:
    random = np.random.default_rng(0)
    content = encoded("FLAC", "PCM_16", (0.1 * random.standard_normal((4 * RATE, 1))).astype(np.float32))
    message = refused(content[: len(content) * 3 // 4])
    at = float(message.split("near ")[1].split(" s")[0])
    assert 2.6 < at <= 3.0 and "promises 4.00 s" in message


class _Failing(io.BytesIO):
    """A file on a disk that fails behind 9000 bytes."""

    def readinto(self, buffer: Any) -> int:
        self._fail()
        return super().readinto(buffer)

    def read(self, count: int | None = -1) -> bytes:
        self._fail()
        return super().read(count)

    def _fail(self) -> None:
        if self.tell() > 9_000:
            raise OSError(5, "Input/output error")


@pytest.mark.parametrize("raised", [OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_what_fails_inside_a_callback_is_raised(
    raised: BaseException, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gama.audio import decoding

    content = encoded("WAV", "PCM_16", tone(60.0))
    file = io.BytesIO(content)
    guarded = decoding.GuardedFile(Source(file, len(content), "clip"), file)

    def fail(*_: object) -> int:
        raise raised

    sound = soundfile.SoundFile(guarded)
    monkeypatch.setattr(
        guarded, "_file", type("Broken", (), {"read": fail, "readinto": fail, "seek": file.seek, "tell": file.tell})()
    )
    assert len(sound.read(500_000)) < 500_000
    with pytest.raises((AudioError, KeyboardInterrupt)) as error:
        guarded.check()
    assert isinstance(error.value, KeyboardInterrupt) or "cannot be read: Input/output error" in str(error.value)
    assert capfd.readouterr().err == ""


def test_a_read_that_fails_is_an_error_of_the_clip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encoded("WAV", "PCM_16", tone(4.0)))
    monkeypatch.setattr("gama.audio.source.open", lambda *_: _Failing(path.read_bytes()), raising=False)
    assert refused(path) == f"{path}: cannot be read: Input/output error"


# --- PyAV


av = pytest.importorskip("av", reason="PyAV (the extra [media]) is not installed")


def media(form: str, codec: str, rate: int = 48_000, channels: int = 2, seconds: float = 2.0) -> bytes:
    """A tone of 440 Hz in a container of FFmpeg."""
    layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}.get(channels, f"{channels} channels")
    file = io.BytesIO()
    with av.open(file, "w", format=form) as out:
        stream = out.add_stream(codec, rate=rate, layout=layout, options={"strict": "-2"})
        stream.codec_context.open()
        packed = np.ascontiguousarray(tone(seconds, 440, channels, rate).reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        size = stream.codec_context.frame_size or 1024
        fit = av.AudioResampler(stream.codec_context.format.name, layout, rate, frame_size=size)
        for part in [*fit.resample(frame), *fit.resample(None), None]:
            out.mux(stream.encode(part))
    return file.getvalue()


def is_the_tone(waveform: gama.audio.Waveform, seconds: float = 2.0) -> bool:
    middle = waveform.samples[8_000:-8_000]
    return abs(waveform.duration - seconds) < 0.15 and abs(frequency_of(middle) - 440) < 3


@pytest.mark.parametrize(
    ("form", "codec", "channels"),
    [
        *(("mp4", "aac", 8), ("matroska", "aac", 8), ("webm", "libopus", 8), ("flac", "flac", 8)),
        *(("matroska", "pcm_f32le", 12), ("mov", "pcm_s16le", 16), ("mp4", "aac", 6), ("au", "pcm_s16be", 8)),
    ],
)
def test_many_channels_do_not_kill_the_process(form: str, codec: str, channels: int) -> None:
    heard = gama.audio.load(media(form, codec, channels=channels))
    assert heard.channels == channels and is_the_tone(heard)


@pytest.mark.parametrize(
    ("form", "codec", "rate", "channels"),
    [
        *(("wav", "aac", 44_100, 1), ("wav", "g722", 16_000, 1), ("wav", "g726", 8_000, 1), ("wav", "ac3", 48_000, 2)),
        *(
            ("ogg", "flac", 44_100, 1),
            ("caf", "adpcm_ima_qt", 44_100, 2),
            ("flv", "ac3", 48_000, 2),
            ("w64", "ac3", 48_000, 2),
        ),
    ],
)
def test_codecs_that_libsndfile_lacks(form: str, codec: str, rate: int, channels: int) -> None:
    assert is_the_tone(gama.audio.load(media(form, codec, rate, channels)))


@pytest.mark.parametrize(
    ("form", "codec", "rate", "named"),
    [
        ("wav", "aac", 44_100, "holds AAC"),
        ("wav", "g722", 16_000, "holds G.722"),
        ("caf", "adpcm_ima_qt", 44_100, "holds 'ima4'"),
    ],
)
def test_without_pyav_the_codec_is_named(
    form: str, codec: str, rate: int, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = media(form, codec, rate, 1)
    monkeypatch.setitem(sys.modules, "av", None)
    message = refused(content, name="a.wav")
    assert message.startswith(f"a.wav: {named}") and "pip install 'gama-audio[media]'" in message
    with pytest.raises(MissingPackageError):
        gama.audio.load(content)


def test_flac_in_ogg_needs_no_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    content = media("ogg", "flac", 44_100, 1)
    monkeypatch.setitem(sys.modules, "av", None)
    heard = gama.audio.load(content)
    assert is_the_tone(heard)
    span = gama.audio.load(content, start=1.0, end=1.5).samples
    np.testing.assert_allclose(span, heard.samples[16_000:24_000], atol=1e-6)
    assert "cut off" in refused(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("form", "codec"),
    [
        *(("avi", "mp2"), ("mpegts", "aac"), ("mpegts", "ac3"), ("flv", "aac"), ("asf", "libmp3lame"), ("mp4", "aac")),
        *(("matroska", "vorbis"), ("caf", "pcm_s16be"), ("au", "pcm_s16be"), ("wv", "wavpack"), ("tta", "tta")),
    ],
)
def test_cut_media(form: str, codec: str) -> None:
    content = media(form, codec)
    for part in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        assert refused(content[: int(len(content) * part)])


def test_a_rate_that_changes() -> None:
    content = media("adts", "aac", 22_050) + media("adts", "aac", 44_100)
    heard = gama.audio.load(content)
    assert heard.duration == pytest.approx(4.0, abs=0.2)
    assert frequency_of(heard.samples[40_000:60_000]) == pytest.approx(440, abs=3)
    assert frequency_of(heard.samples[8_000:28_000]) == pytest.approx(440, abs=3)


def test_channels_that_change_are_refused() -> None:
    content = media("adts", "aac", 44_100, 2) + media("adts", "aac", 44_100, 6)
    assert "changes its number of channels from 2 to 6" in refused(content)


SCRIPTS = {
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 45678 RTP/AVP 0\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:{port}/a.ts\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile 'http://127.0.0.1:{port}/a.wav'\nfile '{clip}'\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period>'
    '<AdaptationSet mimeType="audio/mp4">'
    "<Representation><BaseURL>http://127.0.0.1:{port}/a.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>",
}


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("ending", ["flv", "sdp", "m3u8", "mpd", "%d.wav"])
def test_no_socket_and_no_other_file_is_opened(name: str, ending: str, tmp_path: Path) -> None:
    """As a file under a name that FFmpeg would believe, and given to FFmpeg itself behind the check for text."""
    from gama.audio.media import open_media

    clip = tmp_path / "other.wav"
    clip.write_bytes(encoded("WAV", "PCM_16", tone()))
    connected = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        text = SCRIPTS[name].replace("{port}", str(server.getsockname()[1])).replace("{clip}", str(clip))
        path = tmp_path / f"script.{ending}"
        path.write_text(text)
        begun = time.monotonic()
        assert "script." in refused(path)
        with path.open("rb") as file:
            source = Source(file, path.stat().st_size, "script")
            with pytest.raises(AudioError), open_media(Checked(source, Format("unknown", PROBED), file)):
                pass
        try:
            server.accept()
            connected.set()
        except TimeoutError:
            pass
    assert not connected.is_set() and time.monotonic() - begun < 5  # a session waits for packets


def test_what_ffmpeg_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, Any]] = []
    opened = av.open

    content = media("mp4", "aac")

    def spied(file: Any, **options: Any) -> Any:
        assert not hasattr(file, "name")
        given.append(options)
        return opened(file, **options)

    monkeypatch.setattr(av, "open", spied)
    gama.audio.load(content)
    refused(b"\x01\x02\x03\x04" * 300)
    assert [one["options"]["protocol_whitelist"] for one in given] == ["none", "none"]
    assert given[0]["options"]["format_whitelist"] == "mov"
    unsafe = {"sdp", "rtsp", "rtp", "sap", "hls", "applehttp", "dash", "concat", "image2", "imf", "lavfi", "vobsub"}
    assert unsafe.isdisjoint(given[1]["options"]["format_whitelist"].split(","))


# --- the page


def test_the_table_of_the_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Some rows, made anew."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "docs"))
    monkeypatch.chdir(tmp_path)
    import audio_table

    page = audio_table.PAGE.read_text(encoding="utf-8")
    rows = audio_table.rows_of(frozenset({"caf", "w64", "amr", "adts", "webm", "s16le"}))
    lines = audio_table.table(rows).splitlines()[2:]
    assert len(lines) >= 7
    for line in lines:
        assert line in page
    assert list(tmp_path.iterdir()) == []
