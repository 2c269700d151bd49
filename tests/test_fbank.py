"""The filterbank against a slow float64 Kaldi written here from its definition, and against itself in batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from gama.errors import AudioError
from gama.fbank import KaldiFbank

RATE = 16_000
PADDED = 5.081 / 4.4849  # a frame that is not there: 0 before normalisation

# float32 rounding in a bin that nearly cancels, seen through the logarithm; a wrong option (window, floor, dither,
# pre-emphasis at the frame's start) is off by more than 0.01 somewhere
TOLERANCE = 2e-3


def mel(hertz: float) -> float:
    return 1127.0 * math.log(1.0 + hertz / 700.0)


def triangles(bins: int) -> NDArray[np.float64]:
    """(bins, 257): Kaldi's filters rise and fall linearly in mel; the last DFT bin belongs to none."""
    edges = np.linspace(mel(20.0), mel(8000.0), bins + 2)
    weights = np.zeros((bins, 257))
    for index in range(bins):
        left, center, right = edges[index : index + 3]
        for bin_ in range(256):
            at = mel(bin_ * RATE / 512)
            if left < at <= center:
                weights[index, bin_] = (at - left) / (center - left)
            elif center < at < right:
                weights[index, bin_] = (right - at) / (right - center)
    return weights


def kaldi(samples: NDArray[np.float32], frames: int = 1024, bins: int = 128) -> NDArray[np.float64]:
    """One clip (N,) -> (frames, bins), frame by frame."""
    wave = samples.astype(np.float64) - samples.astype(np.float64).mean()
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(400) / 399)
    filters = triangles(bins)
    out = np.zeros((frames, bins))
    for number in range(min(frames, 1 + (len(wave) - 400) // 160)):
        frame = wave[160 * number : 160 * number + 400]
        frame = frame - frame.mean()
        frame = np.concatenate([frame[:1] * (1.0 - 0.97), frame[1:] - 0.97 * frame[:-1]])
        power = np.abs(np.fft.rfft(frame * window, 512)) ** 2
        out[number] = np.log(np.maximum(filters @ power, np.finfo(np.float32).eps))
    return (out + 5.081) / 4.4849


def noise(count: int, seed: int = 0, offset: float = 0.02) -> NDArray[np.float32]:
    """Pink-like noise, a chirp and an offset: energy in every bin."""
    rng = np.random.default_rng(seed)
    time = np.arange(count) / RATE
    wave = 0.1 * rng.standard_normal(count) + 0.3 * np.sin(2 * np.pi * (200 + 600 * time) * time) + offset
    return wave.astype(np.float32)


def fbank(samples: NDArray[np.float32], *, module: KaldiFbank | None = None) -> NDArray[np.float32]:
    return (module or KaldiFbank())(torch.from_numpy(samples)[None])[0].numpy()


@pytest.mark.parametrize("count", [400, 559, 560, 16_000, 40_123])
def test_against_the_definition(count: int) -> None:
    samples = noise(count)
    got, want = fbank(samples), kaldi(samples)
    assert got.shape == (1024, 128)
    np.testing.assert_allclose(got, want, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("bins", [1, 32, 40, 200])
def test_other_sizes(bins: int) -> None:
    samples = noise(8_000)
    got = fbank(samples, module=KaldiFbank(num_frames=16, num_mel_bins=bins))
    np.testing.assert_allclose(got, kaldi(samples, 16, bins), atol=TOLERANCE, rtol=0)


def test_neighbouring_filters_that_see_no_dft_bin() -> None:
    got = fbank(noise(400), module=KaldiFbank(num_frames=1, num_mel_bins=4_000))
    floor = (math.log(np.finfo(np.float32).eps) + 5.081) / 4.4849
    assert np.allclose(got[0, 32:64], floor) and not np.allclose(got, floor)


@pytest.mark.parametrize("change", ["window", "no pre-emphasis", "offset of a frame", "floor"])
def test_the_reference_notices_another_option(change: str) -> None:
    """What the tolerance is worth: each wrong option is off by far more."""
    samples = noise(4_000, offset=0.3)
    frame = samples[:400].astype(np.float64) - samples.astype(np.float64).mean()
    frame = frame if change == "offset of a frame" else frame - frame.mean()
    amount = 0.0 if change == "no pre-emphasis" else 0.97
    frame = np.concatenate([frame[:1] * (1.0 - amount), frame[1:] - amount * frame[:-1]])
    window = np.hanning(401)[:400] if change == "window" else np.hanning(400)
    power = np.abs(np.fft.rfft(frame * window, 512)) ** 2
    floor = np.finfo(np.float64).eps if change == "floor" else np.finfo(np.float32).eps
    wrong = (np.log(np.maximum(triangles(128) @ power, floor)) + 5.081) / 4.4849
    assert np.abs(wrong - fbank(samples)[0]).max() > 2 * TOLERANCE


def test_padding_is_not_silence() -> None:
    got = fbank(np.concatenate([noise(1_600), np.zeros(1_600, np.float32)]))
    assert np.allclose(got[18:], PADDED)
    silence = fbank(np.zeros(1_600, np.float32))
    floor = (math.log(np.finfo(np.float32).eps) + 5.081) / 4.4849
    assert np.allclose(silence[:8], floor)
    assert np.allclose(silence[8:], PADDED)


def test_shortest_clip_has_one_frame() -> None:
    got = fbank(noise(400))
    assert not np.allclose(got[0], PADDED)
    assert np.allclose(got[1:], PADDED)


def test_what_lies_beyond_counts_in_the_mean_alone() -> None:
    """Longer than 10.24 s: the first 1024 frames; an offset is removed from each frame anyway."""
    samples = noise(RATE * 12)
    np.testing.assert_allclose(fbank(samples), fbank(samples[: 400 + 1023 * 160]), atol=TOLERANCE, rtol=0)


def test_offset_and_sign_do_not_matter() -> None:
    samples = noise(4_000)
    np.testing.assert_allclose(fbank(samples + np.float32(0.2)), fbank(samples), atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(fbank(-samples), fbank(samples), atol=1e-5, rtol=0)


def batch(lengths: list[int], fill: float) -> Tensor:
    rows = torch.full((len(lengths), max(lengths)), fill)
    for row, count in enumerate(lengths):
        rows[row, :count] = torch.from_numpy(noise(count, seed=row))
    return rows


@pytest.mark.parametrize("fill", [0.0, 0.7, math.nan, math.inf])
def test_padded_row_equals_the_row_alone(fill: float) -> None:
    """Whatever the padding holds."""
    lengths = [400, 16_000, 7_777, 180_000]
    got = KaldiFbank()(batch(lengths, fill), torch.tensor(lengths)).numpy()
    for row, count in enumerate(lengths):
        np.testing.assert_allclose(got[row], fbank(noise(count, seed=row)), atol=TOLERANCE / 2, rtol=0)
        frames = 1 + (count - 400) // 160
        assert np.allclose(got[row, frames:], PADDED)


def test_batch_equals_rows() -> None:
    rows = torch.from_numpy(np.stack([noise(8_000, seed=s) for s in range(3)]))
    got = KaldiFbank()(rows).numpy()
    for row in range(3):
        np.testing.assert_allclose(got[row], fbank(rows[row].numpy()), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(1, 399), (1, 0), (16_000,), (1, 1, 16_000)])
def test_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(AudioError, match="400"):
        KaldiFbank()(torch.zeros(shape))


@pytest.mark.parametrize("length", [0, 1, 399])
def test_row_shorter_than_a_frame_is_padding(length: int) -> None:
    got = KaldiFbank()(torch.from_numpy(noise(16_000))[None], torch.tensor([length])).numpy()
    assert np.allclose(got, PADDED)


def test_nothing_is_saved_with_a_model() -> None:
    assert KaldiFbank().state_dict() == {}


def test_half_precision_input_is_computed_in_float32() -> None:
    samples = torch.from_numpy(noise(4_000))[None].bfloat16()
    assert torch.equal(KaldiFbank()(samples), KaldiFbank()(samples.float()))


def test_against_torchaudio() -> None:
    torchaudio = pytest.importorskip("torchaudio", reason="torchaudio is not installed; the definition is tested above")
    samples = torch.from_numpy(noise(40_000))[None]
    want = torchaudio.compliance.kaldi.fbank(
        samples - samples.mean(),
        htk_compat=True,
        sample_frequency=RATE,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=128,
        dither=0.0,
        frame_shift=10,
    )
    got = KaldiFbank()(samples)[0, : len(want)]
    np.testing.assert_allclose(got, (want + 5.081) / 4.4849, atol=TOLERANCE, rtol=0)
