"""``gama.audio``: what is heard equals a plain reference, and what cannot be heard is refused in one line."""

from __future__ import annotations

import io
import math
import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

import gama.audio
from gama.audio import SAMPLE_RATE, Resampler, Waveform, resample, windows
from gama.errors import AudioError, MissingPackageError

Float = NDArray[np.float32]
FORMATS = [
    ("WAV", "PCM_U8", 8_000),
    ("WAV", "PCM_16", 44_100),
    ("WAV", "PCM_24", 48_000),
    ("WAV", "PCM_32", 16_000),
    ("WAV", "FLOAT", 22_050),
    ("WAV", "DOUBLE", 16_000),
    ("RF64", "PCM_16", 16_000),
    ("AIFF", "PCM_16", 44_100),
    ("FLAC", "PCM_16", 44_100),
    ("FLAC", "PCM_24", 96_000),
    ("OGG", "VORBIS", 44_100),
    ("OGG", "OPUS", 48_000),
    ("MP3", "MPEG_LAYER_III", 44_100),
    ("MP3", "MPEG_LAYER_III", 16_000),
]


def noise(rate: int, seconds: float, channels: int = 1, seed: int = 0) -> Float:
    random = np.random.default_rng(seed)
    return (0.1 * random.standard_normal((round(rate * seconds), channels))).astype(np.float32)


def encoded(form: str, subtype: str, rate: int, samples: Float) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    return file.getvalue()


def wav(seconds: float = 1.0, rate: int = 16_000, channels: int = 1, subtype: str = "PCM_16") -> bytes:
    return encoded("WAV", subtype, rate, noise(rate, seconds, channels))


def patched(content: bytes, **fields: int) -> bytes:
    """A canonical WAV with other 32-bit header fields."""
    places = {"riff": 4, "rate": 24, "data": 40}
    changed = bytearray(content)
    for name, value in fields.items():
        changed[places[name] : places[name] + 4] = value.to_bytes(4, "little")
    return bytes(changed)


def refused(*args: Any, **options: Any) -> str:
    with pytest.raises(AudioError) as error:
        gama.audio.load(*args, **options)
    text = str(error.value)
    assert text.isprintable() and "\n" not in text
    return text


def reference_resample(samples: Float, orig: int, new: int) -> Float:
    """The definition, one output at a time: a sinc in a Hann window, 6 zero crossings, rolloff 0.99."""
    common = math.gcd(orig, new)
    orig, new = orig // common, new // common
    cutoff = 0.99 * min(orig, new)
    width = math.ceil(6 * orig / cutoff)
    padded = np.pad(samples.astype(np.float64), (width, width + orig + 1))
    taps = np.arange(-width, width + orig)
    out = []
    for index in range(math.ceil(new * len(samples) / orig)):
        hop, phase = divmod(index, new)
        t = np.clip((taps / orig - phase / new) * cutoff, -6, 6)
        kernel = np.sinc(t) * np.cos(t * math.pi / 12) ** 2 * cutoff / orig
        out.append(kernel @ padded[hop * orig : hop * orig + len(taps)])
    return np.array(out, dtype=np.float32)


# --- resampling


@pytest.mark.parametrize("rate", [44_100, 48_000, 8_000, 22_050, 11_025, 32_000, 96_000, 1_000, 15_999])
def test_resample_equals_the_definition(rate: int) -> None:
    samples = noise(rate, 0.15 if rate > 1_000 else 1.0)[:, 0]
    ours, reference = resample(samples, rate), reference_resample(samples, rate, SAMPLE_RATE)
    assert ours.dtype == np.float32 and ours.shape == reference.shape
    np.testing.assert_allclose(ours, reference, atol=3e-7, rtol=0)


def test_resample_to_other_rates_and_of_channels() -> None:
    samples = noise(44_100, 0.1, 2).T
    both = resample(samples, 44_100, 22_050)
    np.testing.assert_allclose(both[1], reference_resample(samples[1], 44_100, 22_050), atol=3e-7)
    assert both.shape == (2, 2205)
    np.testing.assert_array_equal(resample(samples[0], 16_000), samples[0])


@pytest.mark.parametrize("rate", [44_100, 48_000, 8_000, 16_000, 44_101])
def test_blocks_give_the_same_as_the_whole(rate: int) -> None:
    random, samples = np.random.default_rng(1), noise(rate, 3.1)[:, 0]
    resampler, parts, at = Resampler(rate), [], 0
    while at < len(samples):
        size = int(random.integers(0, 40_000))
        parts.append(resampler.push(samples[at : at + size]))
        at += size
    parts.append(resampler.finish())
    np.testing.assert_array_equal(np.concatenate(parts), resample(samples, rate))


@pytest.mark.parametrize("count", [0, 1, 2, 440, 441, 442, 65_268, 65_303, 65_304])
def test_resampled_length(count: int) -> None:
    assert len(resample(np.zeros(count, np.float32), 44_100)) == math.ceil(160 * count / 441)


@pytest.mark.parametrize("rate", [0, 1, 999, 768_001, 800_000_000, 44_100.5, math.nan, math.inf, True])
def test_absurd_rates_are_refused(rate: float) -> None:
    with pytest.raises(AudioError, match="Hz"):
        resample(np.zeros(100, np.float32), rate)  # type: ignore[arg-type]


# --- decoding


@pytest.mark.parametrize(("form", "subtype", "rate"), FORMATS)
@pytest.mark.parametrize("channels", [1, 2])
def test_load_equals_decode_mix_resample(form: str, subtype: str, rate: int, channels: int, tmp_path: Path) -> None:
    content = encoded(form, subtype, rate, noise(rate, 1.7, channels))
    decoded = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)[0]
    path = tmp_path / "misnamed.txt"
    path.write_bytes(content)
    loaded = gama.audio.load(path)
    np.testing.assert_allclose(loaded.samples, resample(decoded.mean(axis=1), rate), atol=1e-6)
    assert (loaded.source, loaded.original_rate, loaded.channels, loaded.start) == (str(path), rate, channels, 0.0)
    picked = gama.audio.load(path, channel=channels - 1).samples
    np.testing.assert_allclose(picked, resample(decoded[:, -1], rate), atol=1e-6)
    assert loaded.samples.ndim == 1 and loaded.samples.flags.c_contiguous


def test_many_channels() -> None:
    samples = noise(16_000, 0.5, 6)
    content = encoded("WAV", "FLOAT", 16_000, samples)
    np.testing.assert_allclose(gama.audio.load(content).samples, samples.mean(axis=1), atol=1e-6)
    assert "6 channels, 0 to 5" in refused(content, channel=6)
    assert "2 channels, 0 to 1" in refused(wav(channels=2), channel=-1)
    assert "index 0" in refused(wav(), channel=1)
    assert "'left'" in refused(wav(), channel="left")
    assert "65 channels" in refused(encoded("WAV", "PCM_16", 16_000, noise(16_000, 0.1, 65)))


def test_bytes_file_and_stdin_give_the_same(tmp_path: Path) -> None:
    content = wav(0.5)
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    program = "import gama.audio, sys; w = gama.audio.load('-'); print(w.sha256, w.source)"
    heard = subprocess.run([sys.executable, "-c", program], input=content, capture_output=True, check=True, timeout=60)
    expected = gama.audio.load(str(path)).sha256
    assert heard.stdout.decode().split() == [expected, "-"]
    with path.open("rb") as file:
        assert gama.audio.load(file).sha256 == expected
    assert gama.audio.load(content, name="my clip").source == "my clip"


@pytest.mark.parametrize(
    ("dtype", "zero", "scale"), [("u1", 128, 128), ("i2", 0, 2**15), ("i4", 0, 2**31), ("f4", 0, 1), ("f8", 0, 1)]
)
def test_arrays(dtype: str, zero: int, scale: int) -> None:
    array = (noise(16_000, 0.5, 2).T * scale + zero).astype(dtype)
    expected = (array.astype(np.float64) - zero) / scale
    np.testing.assert_allclose(
        gama.audio.load(array, sampling_rate=16_000, channel=1).samples, expected[1], atol=1e-7, rtol=1e-6
    )
    np.testing.assert_allclose(
        gama.audio.load(array[0], sampling_rate=16_000).samples, expected[0], atol=1e-7, rtol=1e-6
    )


def test_array_errors() -> None:
    assert "sampling_rate" in refused(np.zeros(16_000, np.float32))
    assert "channels" in refused(np.zeros((16_000, 2), np.float32), sampling_rate=16_000)
    assert "64 bits" in refused(np.full(16_000, 2**20), sampling_rate=16_000)
    assert "(1, 1, 9)" in refused(np.zeros((1, 1, 9), np.float32), sampling_rate=16_000)
    overshooting = np.where(np.arange(44_100) % 100 < 50, np.float32(3.4e38), np.float32(-3.4e38))
    assert "too large" in refused(overshooting, sampling_rate=44_100)
    assert "infinite" in refused(np.full(16_000, 1e300), sampling_rate=16_000)
    assert "sampling_rate" in refused(wav(), sampling_rate=16_000)


def test_facts() -> None:
    tone = (0.5 * np.sin(np.arange(16_000) * 2 * math.pi * 0.05)).astype(np.float32)
    heard = gama.audio.load(tone, sampling_rate=16_000)
    assert heard.duration == 1.0 and not heard.is_silent
    assert heard.peak_db == pytest.approx(-6.02, abs=0.1) and heard.rms_db == pytest.approx(-9.03, abs=0.1)
    silent = gama.audio.load(np.zeros(16_000, np.int16), sampling_rate=16_000)
    assert silent.is_silent and silent.peak_db == silent.rms_db == -math.inf
    assert gama.audio.load(tone * np.float32(1e-4), sampling_rate=16_000).is_silent
    assert heard.sha256 != silent.sha256 and len(heard.sha256) == 64


# --- spans


@pytest.mark.parametrize(
    ("form", "subtype", "rate"), [row for row in FORMATS if row[0] != "RF64"] + [("WAV", "PCM_16", 44_101)]
)
def test_a_span_is_a_slice_of_the_whole(form: str, subtype: str, rate: int) -> None:
    content = encoded(form, subtype, rate, noise(rate, 6.3, 2))
    whole = gama.audio.load(content).samples
    for start, end in [(None, 1.0), (0.3, 0.9), (1.23456, 5.5), (3.3, None), (6.2, 99.0), (0.0, math.inf)]:
        span = gama.audio.load(content, start=start, end=end)
        first = round((start or 0) * SAMPLE_RATE)
        last = None if end is None or math.isinf(end) else round(end * SAMPLE_RATE)
        assert span.start == first / SAMPLE_RATE
        assert span.samples.shape == whole[first:last].shape
        np.testing.assert_allclose(span.samples, whole[first:last], atol=1e-6)


@pytest.mark.parametrize(
    ("start", "end"), [(1.0, None), (5.0, 6.0), (-1, None), (math.nan, None), (0, math.nan), (0.5, 0.5), (0.5, 0.1)]
)
def test_wrong_spans_tell_the_duration(start: float, end: float | None) -> None:
    assert "lasts 1.00 s" in refused(wav(1.0), start=start, end=end)


def test_a_span_shorter_than_a_frame() -> None:
    assert "10.00 ms" in refused(wav(), start=0.5, end=0.51)


# --- limits


def ogg_crc(page: bytes) -> int:
    crc = 0
    for byte in page:
        crc = (crc << 8 & 0xFFFFFFFF) ^ OGG_TABLE[crc >> 24 ^ byte]
    return crc


def _ogg_table_entry(value: int) -> int:
    value <<= 24
    for _ in range(8):
        value = (value << 1 ^ 0x04C11DB7 if value & 0x80000000 else value << 1) & 0xFFFFFFFF
    return value


OGG_TABLE = [_ogg_table_entry(value) for value in range(256)]


def ogg_page(flags: int, granule: int, number: int, packets: list[bytes]) -> bytes:
    lacing = bytes(len(packet) for packet in packets)
    head = b"OggS\0" + bytes([flags]) + granule.to_bytes(8, "little") + (7).to_bytes(4, "little")
    head += number.to_bytes(4, "little")
    rest = bytes([len(packets)]) + lacing + b"".join(packets)
    return head + ogg_crc(head + bytes(4) + rest).to_bytes(4, "little") + rest


@pytest.fixture(scope="module")
def nine_hours() -> bytes:
    """An Opus file of 9 h in pages of 255 empty packets of 60 ms."""
    header = b"OpusHead\x01\x01" + (0).to_bytes(2, "little") + (48_000).to_bytes(4, "little") + bytes(3)
    pages = [ogg_page(2, 0, 0, [header]), ogg_page(0, 0, 1, [b"OpusTags" + bytes(8)])]
    count = 9 * 3600 * 50 // 3 // 255
    for number in range(count):
        pages.append(ogg_page(4 * (number == count - 1), (number + 1) * 255 * 2880, number + 2, [b"\x18"] * 255))
    return b"".join(pages)


def test_nine_hours_are_refused_and_a_span_of_them_is_heard(nine_hours: bytes) -> None:
    begun = time.perf_counter()
    message = refused(nine_hours, name="long.opus")
    assert "8 h 59 min" in message and "30 min 0 s" in message and "--max-duration" in message and "--from" in message
    heard = gama.audio.load(nine_hours, start=8 * 3600, end=8 * 3600 + 10)
    assert time.perf_counter() - begun < 3
    assert heard.duration == 10 and heard.start == 28_800 and heard.is_silent
    assert "its span lasts" in refused(nine_hours, start=3600)


def test_max_duration_counts_the_span() -> None:
    content = wav(3.0)
    assert gama.audio.load(content, max_duration=3.0).duration == 3.0
    assert "limit is 2.99 s" in refused(content, max_duration=2.99)
    assert gama.audio.load(content, start=1.0, max_duration=2.0).duration == 2.0
    for wrong in (0, -1, math.nan):
        assert "longest duration" in refused(content, max_duration=wrong)


def test_a_long_clip_is_read_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", 96_000, 2, subtype="PCM_16") as file:
        for _ in range(60):
            file.write(np.zeros((96_000, 2), np.int16))
    tracemalloc.start()
    heard = gama.audio.load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert heard.duration == 60.0
    assert peak < heard.samples.nbytes + 6 * 2**20  # decoded at once it would be 46 MB more


def test_speed() -> None:
    content = wav(10.0)
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        gama.audio.load(content)
        times.append(time.perf_counter() - begun)
    assert min(times) < 0.005


# --- what cannot be heard


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "empty (0 bytes)"),
        (b"#!/bin/sh\necho hello\n" * 50, "not a sound file"),
        (bytes(5000), "not a sound file"),
        (b"RIFF", "not a sound file"),
        (b"fLaC", "no FLAC stream information"),
        (b"OggS" + bytes(100), "the Ogg page at byte 0 of 104 is damaged"),
        (b"ID3\x04\0\0\0\0\0\0", "not a sound file"),
        (wav(0.0), "holds no samples"),
        (wav(1 / 16_000), "1 sample at 16 kHz"),
        (wav(399 / 16_000), "24.94 ms (399 samples"),
        (wav()[:30], "cut off"),
        (wav()[:-1], "promises 32000 bytes of samples, 31999 are there"),
        (wav()[:1000], "cut off"),
        (patched(wav(), data=1_000_000), "cut off"),
        (patched(wav(), rate=0), "0 Hz"),
        (patched(wav(), rate=1), "1 Hz"),
        (patched(wav(), rate=800_000_000), "800000000 Hz"),
        (encoded("AIFF", "PCM_16", 16_000, noise(16_000, 1))[:-9], "cut off"),
        (b"fLaC\0\0\0\x22" + bytes(60), "last FLAC frame"),
    ],
)
def test_broken_files(content: bytes, expected: str) -> None:
    message = refused(content, name="odd name.wav")
    assert message.startswith("odd name.wav: ") and expected in message


@pytest.mark.parametrize(("form", "subtype", "rate"), FORMATS)
@pytest.mark.parametrize("part", [0.95, 0.6, 0.3, 0.05])
def test_truncated_files(form: str, subtype: str, rate: int, part: float, capfd: pytest.CaptureFixture[str]) -> None:
    content = encoded(form, subtype, rate, noise(rate, 2.0))
    message = refused(content[: int(len(content) * part)])
    assert any(word in message for word in ("cut off", "broken", "cannot be decoded", "not a sound file"))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("form", "subtype", "rate"), FORMATS)
def test_trailing_bytes_are_no_damage(form: str, subtype: str, rate: int, capfd: pytest.CaptureFixture[str]) -> None:
    content = encoded(form, subtype, rate, noise(rate, 2.0))
    tagged = content + b"TAG" + bytes(125)
    np.testing.assert_array_equal(gama.audio.load(tagged).samples, gama.audio.load(content).samples)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("form", "subtype"), [("OGG", "VORBIS"), ("FLAC", "PCM_16"), ("MP3", "MPEG_LAYER_III")])
def test_damage_inside_is_refused(form: str, subtype: str, capfd: pytest.CaptureFixture[str]) -> None:
    content = bytearray(encoded(form, subtype, 44_100, noise(44_100, 3)))
    middle = len(content) // 2
    content[middle : middle + 3000] = np.random.default_rng(0).bytes(3000)
    assert "broken" in refused(bytes(content))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_samples_that_are_no_numbers(value: float) -> None:
    samples = noise(44_100, 1.0, 2)
    samples[22_050, 1] = value
    content = encoded("WAV", "FLOAT", 44_100, samples)
    message = refused(content)
    assert ("NaN" if math.isnan(value) else "infinite") in message and "0.500 s" in message
    assert gama.audio.load(content, channel=0).duration == 1.0


@pytest.mark.parametrize(
    ("riff", "data"), [(0xFFFFFFFF, 0xFFFFFFFF), (0, 0), (36, 0), (0xFFFFFFFF, 0), (0x7FFFFFFF, 0x7FFFFFDB)]
)
def test_a_wav_from_a_pipe_is_read_to_its_end(riff: int, data: int) -> None:
    content = wav()
    assert gama.audio.load(patched(content, riff=riff, data=data)).sha256 == gama.audio.load(content).sha256


def test_one_wrong_bit_and_a_missing_page_in_ogg_are_noticed() -> None:
    content = encoded("OGG", "OPUS", 48_000, noise(48_000, 3))
    starts = [at for at in range(len(content)) if content.startswith(b"OggS\0", at)]
    assert len(starts) >= 5
    flipped = bytearray(content)
    flipped[starts[3] + 500] ^= 1
    assert "damaged" in refused(bytes(flipped))
    assert "missing before" in refused(content[: starts[2]] + content[starts[3] :])
    assert "last Ogg page is missing" in refused(content[: starts[-1]])
    assert "several clips" in refused(content + content)


def test_a_flac_from_a_pipe_is_read_to_its_end() -> None:
    content = encoded("FLAC", "PCM_16", 44_100, noise(44_100, 2.0, 2))
    piped = bytearray(content)
    piped[21] &= 0xF0
    piped[22:26] = bytes(4)
    assert gama.audio.load(bytes(piped)).sha256 == gama.audio.load(content).sha256
    assert "last FLAC frame" in refused(bytes(piped[:-1]))


def test_an_mp3_without_a_frame_count_is_read_to_its_end(capfd: pytest.CaptureFixture[str]) -> None:
    rate = 44_100
    samples = np.concatenate([noise(rate, 2), np.zeros((rate * 5, 1), np.float32), noise(rate, 2)])
    file = io.BytesIO()
    with soundfile.SoundFile(
        file, "w", rate, 1, format="MP3", bitrate_mode="VARIABLE", compression_level=0.5
    ) as writer:
        writer.write(samples)
    content = file.getvalue()
    second = content.index(content[:2], 4)  # the frame after the one that holds the Xing header
    tagged = b"ID3\x04\0\0\0\0\x07\x68" + bytes(1000) + content[second:]
    heard = gama.audio.load(tagged)
    assert 9.0 <= heard.duration < 9.1
    assert capfd.readouterr().err == ""
    plain = soundfile.info(io.BytesIO(content[second:]))
    assert plain.duration < 5, "libsndfile no longer guesses the length: mpeg.py may go"


def test_paths(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "missing.wav")
    assert "is a directory" in refused(tmp_path)
    assert "not a name" in refused("a\0b.wav")
    assert "empty file name" in refused("")
    assert "URL" in refused("https://example.org/dog.wav") and "download" in refused("https://example.org/dog.wav")
    assert "URL" in refused(Path("https://example.org/dog.wav"))
    assert refused("\x1b[31mred\n.wav") == r"\x1b[31mred\x0a.wav: no such file"
    assert "not a regular file" in refused("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refused(tmp_path / "pipe")
    assert "int was given" in refused(3)
    assert "bytes were expected" in refused(io.StringIO("text"))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "secret.wav"
    path.write_bytes(wav())
    path.chmod(0)
    assert "no permission" in refused(path)


def test_permission_by_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.wav"
    path.write_bytes(wav())

    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", denied)
    with pytest.raises(AudioError, match="no permission"):
        gama.audio.load(path)


def test_anything_gives_a_waveform_or_one_line() -> None:
    random = np.random.default_rng(7)
    whole = [encoded(form, subtype, rate, noise(rate, 0.3, 2)) for form, subtype, rate in FORMATS]
    heard = 0
    for turn in range(400):
        content = bytearray(whole[turn % len(whole)])
        kind = int(random.integers(4))
        if kind == 0:
            content = content[: int(random.integers(len(content)))]
        elif kind == 1:
            for place in random.integers(0, min(len(content), 200), 4):
                content[place] = int(random.integers(256))
        elif kind == 2:
            for place in random.integers(0, len(content), 8):
                content[place] = int(random.integers(256))
        else:
            content = bytearray(content[:4] + random.bytes(300))
        try:
            heard += isinstance(gama.audio.load(bytes(content)), Waveform)
        except AudioError as error:
            assert str(error).startswith("bytes: ") and "\n" not in str(error)
    assert 0 < heard < 400


# --- windows


def ramp(seconds: float) -> Waveform:
    return Waveform(np.arange(round(seconds * SAMPLE_RATE), dtype=np.float32), "ramp", 16_000, 1, start=5.0)


@pytest.mark.parametrize("seconds", [0.5, 10.24, 10.25, 11.0, 11.3, 20.48, 20.49, 30.0, 100.0])
def test_windows_drop_nothing(seconds: float) -> None:
    whole = ramp(seconds)
    cut = windows(whole)
    heard = np.zeros(len(whole.samples), bool)
    for window in cut:
        first = round((window.start - 5.0) * SAMPLE_RATE)
        np.testing.assert_array_equal(window.samples, whole.samples[first : first + len(window.samples)])
        heard[first : first + len(window.samples)] = True
        assert window.duration <= 10.24 and window.source == "ramp"
        assert len(cut) == 1 or window.duration >= 1.0
    assert heard.all()
    assert len(cut) == math.ceil(seconds / 10.24)
    assert seconds > 10.24 or cut[0] is whole


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf, 0.001])
def test_windows_need_a_length(seconds: float) -> None:
    with pytest.raises(AudioError, match="window"):
        windows(ramp(3), seconds)


# --- PyAV


@pytest.mark.parametrize(
    "head", [b"\0\0\0\x20ftypisom", b"\x1aE\xdf\xa3" + bytes(20), b"\xff\xf1\x50\x80", b"RIFF\0\0\0\0AVI "]
)
def test_media_without_pyav_say_what_to_install(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    message = refused(head + bytes(600), name="film.mp4")
    assert message.startswith("film.mp4: ") and "pip install 'gama-audio[media]'" in message
    with pytest.raises(MissingPackageError):
        gama.audio.load(head + bytes(600))


@pytest.fixture(scope="module")
def container() -> Callable[..., bytes]:
    """Write 4 s of stereo sound, 5 s of video, or both, with PyAV."""
    av = pytest.importorskip("av", reason="PyAV (the extra [media]) is not installed")

    def write(form: str, codec: str | None, rate: int = 44_100, video: bool = False) -> bytes:
        file = io.BytesIO()
        with av.open(file, "w", format=form) as out:
            sound = out.add_stream(codec, rate=rate) if codec else None
            if sound is not None:
                sound.layout = "stereo"
            film = out.add_stream("mpeg4", rate=10) if video else None
            if film is not None:
                film.width = film.height = 32
                film.pix_fmt = "yuv420p"
                for _ in range(50):
                    out.mux(film.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
                out.mux(film.encode(None))
            if sound is not None:
                tone = 0.3 * np.sin(2 * math.pi * 440 * np.arange(4 * rate) / rate, dtype=np.float32)
                frame = av.AudioFrame.from_ndarray(np.stack([tone, tone]), format="fltp", layout="stereo")
                frame.sample_rate, frame.pts = rate, 0
                size = 1024 if codec == "aac" else 960
                fit = av.AudioResampler(sound.codec_context.format.name, "stereo", rate, frame_size=size)
                for part in [*fit.resample(frame), *fit.resample(None)]:
                    out.mux(sound.encode(part))
                out.mux(sound.encode(None))
        return file.getvalue()

    return write


MEDIA = [("mp4", "aac", 44_100, False), ("mp4", "aac", 44_100, True), ("adts", "aac", 44_100, False)]
MEDIA += [("webm", "libopus", 48_000, False), ("matroska", "flac", 44_100, False)]


@pytest.mark.parametrize(("form", "codec", "rate", "video"), MEDIA)
def test_media(
    container: Callable[..., bytes], form: str, codec: str, rate: int, video: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    content = container(form, codec, rate, video)
    heard = gama.audio.load(content)
    assert heard.duration == pytest.approx(4.0, abs=0.06) and (heard.original_rate, heard.channels) == (rate, 2)
    spectrum = np.abs(np.fft.rfft(heard.samples[16_000:32_000]))
    assert int(spectrum.argmax()) == 440 and heard.rms_db == pytest.approx(-13.5, abs=0.3)
    span = gama.audio.load(content, start=1.5, end=2.5)
    np.testing.assert_allclose(span.samples, heard.samples[24_000:40_000], atol=1e-4)
    assert refused(content[: len(content) // 2])
    assert "--max-duration" in refused(content, max_duration=2)
    assert "3 was asked for, it has 2" in refused(content, channel=3)
    assert capfd.readouterr().err == ""


def test_media_are_entered_near_the_span(container: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gama.audio.media._SEEK_BEYOND", 0.0)
    content = container("mp4", "aac")
    whole = gama.audio.load(content).samples
    np.testing.assert_allclose(gama.audio.load(content, start=2.0, end=3.0).samples, whole[32_000:48_000], atol=1e-3)


def test_a_video_without_sound(container: Callable[..., bytes]) -> None:
    assert "only video" in refused(container("mp4", None, video=True))


# --- real recordings


def test_real_recordings() -> None:
    folder = Path(__file__).parents[2] / "shared" / "audio" / "clips"
    clips = sorted(folder.glob("*"))[:40] if folder.is_dir() else []
    if not clips:
        pytest.skip(f"no recordings in {folder}")
    for clip in clips:
        assert gama.audio.load(clip).duration > 0.5, clip
