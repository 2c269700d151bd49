"""Rows a second that come out of the collator: the original's way, and ours without and with the feature cache.

    python benchmarks/collator.py --markdown                         # FLAC, 16 kHz mono, 10 s
    python benchmarks/collator.py --kind wav44 --markdown            # wav, 44.1 kHz stereo, 10 s: resampled as well

The original's collator decodes every clip of a batch anew each time it is asked for, and computes its Kaldi fbank, one
clip at a time: written plainly below, by torchaudio where it imports. Ours computes features once (``gama prepare
features``: decode and fbank in all processes, written to shards) and reads them afterwards. The row without cache is
that first pass and the collator behind it; the row with the cache is every epoch after it. Starting the processes is
not counted, in neither way. The ways take turns; medians.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor

from gama.checkpoints.bundled import model_folder
from gama.data import shards
from gama.data.collator import AnswerCollator
from gama.data.dataset import ClipDataset
from gama.data.shards import Job
from gama.model.processing import GamaProcessor
from gama.prompt import TEMPLATES

try:
    import torchaudio
except (ImportError, OSError):  # not there, or built for another torch
    torchaudio = None

BATCH = 4  # rows; per_device_train_batch_size of stage 1
KINDS = {"flac16": (16_000, 1, "flac"), "wav44": (44_100, 2, "wav")}
FRAME_LENGTH, FRAME_SHIFT, FFT, BINS, FRAMES, RATE = 400, 160, 512, 128, 1024, 16_000
TOLERANCE = 5e-3  # of normalised log-mel: rounding in float32, and half precision


# -- the original's way ------------------------------------------------------------------------------------------------


def mel_banks() -> Tensor:
    """Kaldi's triangles (BINS, FFT / 2 + 1), made anew for every clip as torchaudio does."""
    low, high = (1127.0 * math.log(1.0 + hertz / 700.0) for hertz in (20.0, RATE / 2))
    step = (high - low) / (BINS + 1)
    number = torch.arange(BINS).unsqueeze(1)
    left, centre, right = (low + (number + shift) * step for shift in (0.0, 1.0, 2.0))
    mel = 1127.0 * (1.0 + (RATE / FFT) * torch.arange(FFT // 2) / 700.0).log().unsqueeze(0)
    rising, falling = (mel - left) / (centre - left), (right - mel) / (right - centre)
    return torch.nn.functional.pad(torch.max(torch.zeros(1), torch.min(rising, falling)), (0, 1))


def plain_fbank(samples: Tensor) -> Tensor:
    """(N,) -> (T, BINS): step by step, over whole tensors each."""
    count = 1 + (len(samples) - FRAME_LENGTH) // FRAME_SHIFT
    frames = samples.as_strided((count, FRAME_LENGTH), (FRAME_SHIFT, 1))
    frames = frames - frames.mean(dim=1, keepdim=True)
    torch.max(frames.pow(2).sum(1), torch.tensor(1e-10)).log()  # the energy, which nothing reads
    before = torch.nn.functional.pad(frames.unsqueeze(0), (1, 0), mode="replicate").squeeze(0)
    frames = frames - 0.97 * before[:, :-1]
    frames = frames * torch.hann_window(FRAME_LENGTH, periodic=False).unsqueeze(0)
    frames = torch.nn.functional.pad(frames.unsqueeze(0), (0, FFT - FRAME_LENGTH)).squeeze(0)
    power = torch.fft.rfft(frames).abs().pow(2.0)
    energies = torch.mm(power, mel_banks().T)
    return torch.max(energies, torch.tensor(torch.finfo(torch.float32).eps)).log()


def plain_resample(waveform: Tensor, rate: int) -> Tensor:
    """(C, N) -> (C, M) at 16 kHz: a windowed sinc for every phase, made anew for each clip, over all channels."""
    common = math.gcd(rate, RATE)
    orig, new = rate // common, RATE // common
    base = min(orig, new) * 0.99
    width = math.ceil(6 * orig / base)
    taps = torch.arange(-width, width + orig, dtype=torch.float64)[None, None] / orig
    time_of = (torch.arange(0, -new, -1, dtype=torch.float64)[:, None, None] / new + taps) * base
    time_of = time_of.clamp(-6, 6)
    window = torch.cos(time_of * math.pi / 6 / 2) ** 2
    angle = time_of * math.pi
    kernels = torch.where(angle == 0, 1.0, angle.sin() / angle) * window * base / orig
    padded = torch.nn.functional.pad(waveform, (width, width + orig))
    ready = torch.nn.functional.conv1d(padded[:, None], kernels.float(), stride=orig)
    length = math.ceil(new * waveform.shape[1] / orig)
    return ready.transpose(1, 2).reshape(waveform.shape[0], -1)[:, :length]


def plain_features(path: str) -> Tensor:
    """A clip from file to (FRAMES, BINS): the original hears its first channel."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    waveform = torch.from_numpy(samples.T.copy())
    if rate != RATE:
        resample = plain_resample if torchaudio is None else _torchaudio_resample
        waveform = resample(waveform, rate)
    waveform = waveform - waveform.mean()
    fbank = plain_fbank(waveform[0]) if torchaudio is None else _torchaudio_fbank(waveform)
    missing = FRAMES - fbank.shape[0]
    fbank = torch.nn.functional.pad(fbank, (0, 0, 0, missing)) if missing > 0 else fbank[:FRAMES]
    return (fbank + 5.081) / 4.4849


def _torchaudio_resample(waveform: Tensor, rate: int) -> Tensor:
    return torchaudio.functional.resample(waveform, rate, RATE)


def _torchaudio_fbank(waveform: Tensor) -> Tensor:
    return torchaudio.compliance.kaldi.fbank(
        waveform,
        htk_compat=True,
        sample_frequency=RATE,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=BINS,
        dither=0.0,
        frame_shift=10,
    )


def plain_batch(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Rows with the ids they were tokenized to before -> a batch, ids padded on the left to a multiple of 8."""
    width = -(-max(len(row["ids"]) for row in rows) // 8) * 8
    ids = torch.tensor([[2] * (width - len(row["ids"])) + row["ids"] for row in rows])
    labels = torch.tensor([[-100] * (width - len(row["ids"])) + row["ids"] for row in rows])
    audio = torch.stack([plain_features(row["audio_id"]) for row in rows])
    return {"input_ids": ids, "labels": labels, "audio_input": audio}


def plain_rows(rows: list[dict[str, Any]]) -> int:
    """Collate rows, batch by batch."""
    for begin in range(0, len(rows), BATCH):
        plain_batch(rows[begin : begin + BATCH])
    return len(rows)


# -- ours --------------------------------------------------------------------------------------------------------------


def opened(manifest: Path, features: Path) -> ClipDataset:
    return ClipDataset([manifest], features, seed=0, questions=1, packing=False)


def read(dataset: ClipDataset, collate: AnswerCollator) -> None:
    for begin in range(0, len(dataset), BATCH):
        collate([dataset[index] for index in range(begin, min(begin + BATCH, len(dataset)))])


# -- the measurement ---------------------------------------------------------------------------------------------------


def written(folder: Path, kind: str, count: int, seconds: float) -> tuple[Path, list[dict[str, Any]]]:
    """Clips of noise and a manifest of one row each; the same rows with their ids."""
    rate, channels, suffix = KINDS[kind]
    chance = np.random.default_rng(0)
    processor = GamaProcessor.from_pretrained(model_folder())
    rows = []
    for number in range(count):
        loud = 0.1 * np.abs(np.sin(np.arange(round(rate * seconds)) * (2 * np.pi * (1 + number % 5) / rate)))
        samples = (loud[:, None] * chance.standard_normal((len(loud), channels))).astype(np.float32)
        path = folder / f"{number:05d}.{suffix}"
        soundfile.write(path, samples, rate, subtype="PCM_16")
        asked = {"instruction": f"What can be heard in clip {number}?", "output": "A dog barks, then a bell rings."}
        text = TEMPLATES[processor.template].question.replace("{instruction}", asked["instruction"]) + asked["output"]
        ids = processor.tokenizer(text)["input_ids"] + [processor.tokenizer.eos_token_id]
        rows.append({"audio_id": str(path), "dataset": "noise", "task": "open", **asked, "ids": ids})
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps([{k: v for k, v in row.items() if k != "ids"} for row in rows]), encoding="utf-8")
    return manifest, rows


Everywhere = Callable[[Callable[[Any], Any], list[Any]], list[Any]]


@contextmanager
def processes(count: int) -> Iterator[Everywhere]:
    """Processes that have started and loaded everything, as one function: results of a function of each item."""
    if count == 1:
        yield lambda function, items: list(map(function, items))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=context, initializer=shards.single_thread) as pool:
        list(pool.map(ready, range(4 * count)))
        yield lambda function, items: list(pool.map(function, items))


def ready(_: int) -> None:
    """Keeps one process busy while the others start."""
    shards.kaldi_fbank()(torch.zeros(1, RATE))
    time.sleep(0.2)


def checked(rows: list[dict[str, Any]], dataset: ClipDataset, kind: str) -> float:
    """The largest difference of the two ways' features; ends where it is no rounding."""
    if KINDS[kind][1] > 1:
        return math.nan  # ours hears the mean of the channels, the original the first
    pairs = [(plain_features(row["audio_id"]), dataset[n].fbank) for n, row in enumerate(rows[:4])]
    largest = max(float((one - other).abs().max()) for one, other in pairs if other is not None)
    if largest > TOLERANCE:
        raise SystemExit(f"the features differ by {largest}")
    return largest


def measured(given: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Rows a second of every way."""
    manifest, rows = written(folder, given.kind, given.clips, given.seconds)
    collate = AnswerCollator(GamaProcessor.from_pretrained(model_folder()), train_on_inputs=True)
    clock = time.perf_counter if given.clock == "wall" else time.process_time
    split = [rows[n :: given.workers] for n in range(given.workers)]
    parts = max(1, min(shards.SHARD, given.clips // given.workers))
    taken: dict[str, list[float]] = {}

    def timed(name: str, run: Callable[[], object]) -> None:
        begun = clock()
        run()
        taken.setdefault(name, []).append(clock() - begun)

    with processes(given.workers) as everywhere:
        plain_rows(rows[:BATCH])
        for turn in range(given.repeats):
            features = folder / f"features-{turn}"
            features.mkdir()
            paths = [row["audio_id"] for row in rows]
            jobs = [Job(tuple(paths[n : n + parts]), str(features)) for n in range(0, len(paths), parts)]
            timed("original", lambda: plain_rows(rows))
            if given.workers > 1:
                timed(f"original, {given.workers} processes", lambda: everywhere(plain_rows, split))
            timed("features", lambda jobs=jobs: everywhere(shards.make_shard, jobs))
            dataset = opened(manifest, features)
            timed("ours, from the cache", lambda dataset=dataset: read(dataset, collate))
            if not turn:
                checked(rows, dataset, given.kind)
    seconds = {name: statistics.median(times) for name, times in taken.items()}
    seconds["ours, decode and fbank"] = seconds.pop("features") + seconds["ours, from the cache"]
    return {name: given.clips / value for name, value in sorted(seconds.items(), reverse=True)}


def table(rates: dict[str, float], given: argparse.Namespace) -> str:
    whose = "torchaudio" if torchaudio is not None else "written out"
    lines = [f"| {given.kind}, {given.seconds:g} s, {given.workers} processes | rows/s | / original |", "|---|---|---|"]
    for name, rate in rates.items():
        lines.append(f"| {name} | {rate:,.0f} | {rate / rates['original']:.2f} |")
    return "\n".join([*lines, f"\nfbank of the original: {whose}"])


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--kind", choices=list(KINDS), default="flac16")
    made.add_argument("--clips", type=int, default=512)
    made.add_argument("--seconds", type=float, default=10.0)
    made.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes of ours")
    made.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of torch in the original")
    made.add_argument("--repeats", type=int, default=5)
    made.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu needs --workers 1 --threads 1")
    made.add_argument("--json", action="store_true")
    made.add_argument("--markdown", action="store_true", help="a table (the default)")
    given = made.parse_args()
    if given.clock == "cpu" and (given.workers, given.threads) != (1, 1):
        made.error("--clock cpu counts this process alone: give --workers 1 --threads 1")
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        rates = measured(given, Path(folder))
    print(json.dumps(rates, indent=2) if given.json else table(rates, given))


if __name__ == "__main__":
    main()
