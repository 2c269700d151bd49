"""The filterbank of a batch against Kaldi's one clip at a time, as torchaudio computes it.

    python benchmarks/fbank.py --threads 1 --markdown
    python benchmarks/fbank.py --threads 1 --clock cpu

torchaudio itself where it imports; where it does not, its steps in plain PyTorch, written here from Kaldi's definition
(frames, offset, energy, pre-emphasis, window, padding to 512, FFT, magnitude, power, filters made anew for each clip,
logarithm).
Clips of 10 s of noise; the ways take turns. The difference is the largest of the log-mel.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from printing import Column, emit, parser
from torch import Tensor

from gama import fbank
from gama.bench.timing import alternate

try:
    from torchaudio.compliance import kaldi
except (ImportError, OSError):  # OSError: a wheel for CUDA beside a PyTorch for the CPU
    kaldi = None

COLUMNS = (
    Column("way"),
    Column("threads"),
    Column("clips"),
    Column("ms_median", "ms a clip", ".2f"),
    Column("ms_low", "least quartile", ".2f"),
    Column("ms_high", "upper quartile", ".2f"),
    Column("times", "times as fast", ".2f"),
    Column("difference", "difference", ".0e"),
)


def by_torchaudio(wave: Tensor) -> Tensor:
    """(N,) -> (T, 128), with the original's options."""
    return kaldi.fbank(
        (wave - wave.mean()).unsqueeze(0),
        htk_compat=True,
        sample_frequency=fbank.SAMPLE_RATE,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=128,
        dither=0.0,
        frame_shift=10,
    )


def by_steps(wave: Tensor) -> Tensor:
    """The same, in the steps that torchaudio takes: (N,) -> (T, 128)."""
    wave = wave - wave.mean()
    count = 1 + (len(wave) - fbank.FRAME_LENGTH) // fbank.FRAME_SHIFT
    frames = wave.as_strided((count, fbank.FRAME_LENGTH), (fbank.FRAME_SHIFT, 1))
    frames = frames - frames.mean(dim=1).unsqueeze(1)
    torch.max(frames.pow(2.0).sum(1), torch.tensor(fbank.LOG_FLOOR)).log()  # the energy, computed and not used
    before = torch.nn.functional.pad(frames.unsqueeze(0), (1, 0), mode="replicate").squeeze(0)
    frames = frames - fbank.PREEMPHASIS * before[:, :-1]
    frames = frames * torch.hann_window(fbank.FRAME_LENGTH, periodic=False).unsqueeze(0)
    missing = fbank.FFT_LENGTH - fbank.FRAME_LENGTH
    frames = torch.nn.functional.pad(frames.unsqueeze(0), (0, missing), mode="constant", value=0.0).squeeze(0)
    power = torch.fft.rfft(frames).abs().pow(2.0)
    mel = power @ triangles(128)
    return torch.max(mel, torch.tensor(fbank.LOG_FLOOR)).log()


def triangles(bins: int) -> Tensor:
    """(257, bins), made from the scale as it is for every clip."""
    low, high = (1127.0 * math.log(1.0 + hertz / 700.0) for hertz in (fbank.LOW_HZ, fbank.SAMPLE_RATE / 2))
    step = (high - low) / (bins + 1)
    left = (low + torch.arange(bins) * step).unsqueeze(1)
    hertz = fbank.SAMPLE_RATE / fbank.FFT_LENGTH * torch.arange(fbank.FFT_LENGTH // 2)
    mel = (1127.0 * (1.0 + hertz / 700.0).log()).unsqueeze(0)
    rising, falling = (mel - left) / step, (left + 2.0 * step - mel) / step
    filters = torch.max(torch.zeros(1), torch.min(rising, falling))
    return torch.nn.functional.pad(filters, (0, 1), mode="constant", value=0.0).T


def one_by_one(each: Callable[[Tensor], Tensor], waves: Tensor) -> Tensor:
    """What the original does with each: filterbank, padding, normalisation."""
    done = []
    for wave in waves:
        mel = each(wave)
        mel = torch.nn.functional.pad(mel, (0, 0, 0, 1024 - len(mel)))
        done.append((mel - fbank.MEAN) / fbank.DOUBLE_STD)
    return torch.stack(done)


def main() -> None:
    command = parser(__doc__, repeats=15)
    command.add_argument("--clips", type=int, default=16)
    command.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: with one thread alone")
    options = command.parse_args()
    if options.clock == "cpu" and options.threads != 1:
        command.error("--clock cpu counts all threads together: give --threads 1")
    torch.set_num_threads(options.threads)
    clips, samples = (2, 16_000) if options.smoke else (options.clips, 160_000)
    waves = 0.1 * torch.randn(clips, samples, generator=torch.Generator().manual_seed(0))
    ours = fbank.KaldiFbank()
    name, each = ("its steps in PyTorch", by_steps) if kaldi is None else ("torchaudio", by_torchaudio)
    ways: dict[str, Callable[[], Tensor]] = {
        f"Kaldi fbank one by one ({name})": lambda: one_by_one(each, waves),
        "gama, one by one": lambda: torch.cat([ours(wave.unsqueeze(0)) for wave in waves]),
        "gama, the batch": lambda: ours(waves),
    }
    with torch.inference_mode():
        found = {name: way() for name, way in ways.items()}
        clock = time.process_time if options.clock == "cpu" else time.perf_counter
        times = alternate(ways, options.repeats, clock=clock)
    first, reference = next(iter(times.values())), next(iter(found.values()))
    rows = [
        {
            "way": name,
            "threads": options.threads,
            "clips": clips,
            **{f"ms_{part}": getattr(timing, part) * 1e3 / clips for part in ("median", "low", "high")},
            "times": first.median / timing.median,
            "difference": float((found[name] - reference).abs().max()) * fbank.DOUBLE_STD,
        }
        for name, timing in times.items()
    ]
    emit(options, "filterbank", COLUMNS, rows)


if __name__ == "__main__":
    main()
