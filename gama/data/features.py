"""Fbank of every clip of a manifest, computed once and kept as a half-precision array on disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap

from gama import audio
from gama.fbank import FRAME_LENGTH, FRAME_SHIFT, KaldiFbank

_VERSION = 1  # raise when the front end changes


def _key(paths: Sequence[Path]) -> str:
    facts = [[str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns] for p in paths]
    return hashlib.sha256(json.dumps([_VERSION, facts]).encode()).hexdigest()[:16]


def _fbank_of(path: Path) -> tuple[np.ndarray, int]:
    samples = audio.load(path).samples
    frames = 1 + (len(samples) - FRAME_LENGTH) // FRAME_SHIFT
    values = KaldiFbank()(torch.from_numpy(samples).unsqueeze(0))[0]
    return values.numpy().astype(np.float16), min(frames, len(values))


def _single_thread() -> None:
    torch.set_num_threads(1)


class FbankStore:
    """The features of a list of clips: ``store[i]`` is (1024, 128) float16, ``store.frames[i]`` its true frames.

    Args:
        paths: clips, in the order of their index.
        folder: where the array is kept; one file for each list of clips.
        workers: processes that compute what is missing.

    Raises:
        AudioError: naming the first clip that cannot be read.
    """

    def __init__(self, paths: Sequence[Path], folder: Path, *, workers: int = 1) -> None:
        self.path = folder / f"fbank-{_key(paths)}.npy"
        if not self.path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            self._compute(paths, workers)
        self.values: np.ndarray = np.load(self.path, mmap_mode="r")
        self.frames: np.ndarray = np.load(self.path.with_suffix(".frames.npy"))

    def _compute(self, paths: Sequence[Path], workers: int) -> None:
        partial = self.path.with_suffix(f".{os.getpid()}.tmp")
        values = open_memmap(partial, mode="w+", dtype=np.float16, shape=(len(paths), 1024, 128))
        frames = np.zeros(len(paths), dtype=np.int32)
        with ProcessPoolExecutor(workers, initializer=_single_thread) as pool:
            for index, (clip, count) in enumerate(pool.map(_fbank_of, paths, chunksize=16)):
                values[index], frames[index] = clip, count
        values.flush()
        np.save(self.path.with_suffix(".frames.npy"), frames)
        os.replace(partial, self.path)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.values[index]
