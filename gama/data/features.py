"""Fbank of every clip of a manifest, computed once and kept as a half-precision array on disk.

Three files a list of clips: the array, the true frames of each clip and a checksum of each. While they are computed
they carry the name ``partial``; a run that was stopped goes on from there, and two runs at once do no harm: both write
the same values.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap

from gama import audio
from gama.errors import AudioError
from gama.fbank import FRAME_LENGTH, FRAME_SHIFT, kaldi_fbank

_VERSION = 1  # raise when the front end changes
_SHAPE = (1024, 128)
_TO_DO = -1  # frames of a clip that is not computed yet


def _key(paths: Sequence[Path]) -> str:
    for path in paths:
        if not path.is_file():
            raise AudioError(f"{path}: no such file", "the manifest names it; put it back or take its rows out")
    facts = [[str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns] for p in paths]
    return hashlib.sha256(json.dumps([_VERSION, facts]).encode()).hexdigest()[:16]


def _fbank_of(path: Path) -> tuple[np.ndarray, int]:
    samples = audio.load(path).samples
    frames = 1 + (len(samples) - FRAME_LENGTH) // FRAME_SHIFT
    values = kaldi_fbank()(torch.from_numpy(samples).unsqueeze(0))[0]
    return values.numpy().astype(np.float16), min(frames, len(values))


def _single_thread() -> None:
    torch.set_num_threads(1)


def _computed(paths: Sequence[Path], workers: int) -> Iterator[tuple[np.ndarray, int]]:
    if workers == 1 or len(paths) < 4 * workers:
        yield from map(_fbank_of, paths)
        return
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_single_thread) as pool:
        yield from pool.map(_fbank_of, paths, chunksize=16)


def _opened(path: Path, shape: tuple[int, ...], dtype: Any, fill: int | None = None) -> np.ndarray:
    """A writable array on disk: the one that is there, or a new one that appears whole or not at all."""
    with suppress(FileNotFoundError, ValueError, EOFError):
        values: np.ndarray = np.load(path, mmap_mode="r+")
        if values.shape == shape and values.dtype == dtype:
            return values
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    values = open_memmap(partial, mode="w+", dtype=dtype, shape=shape)
    if fill is not None:
        values[:] = fill
    os.replace(partial, path)
    return values


class FbankStore:
    """The features of a list of clips: ``store[i]`` is (1024, 128) float16, ``store.frames[i]`` its true frames.

    A damaged file is computed again when the store is opened; a damaged clip is computed again when it is read.

    Args:
        paths: clips, in the order of their index.
        folder: where the array is kept; one file for each list of clips.
        workers: processes that compute what is missing.
        progress: called with how many clips were computed since its last call.

    Raises:
        AudioError: naming the first clip that is not there or cannot be read.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        folder: Path,
        *,
        workers: int = 1,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.paths = list(paths)
        self.path = folder / f"fbank-{_key(paths)}.npy"
        if not self._open():
            folder.mkdir(parents=True, exist_ok=True)
            self._compute(workers, progress or (lambda _: None))
            self._open()

    def _open(self) -> bool:
        """Map what is there; False where it is not whole."""
        count = len(self.paths)
        try:
            self.values: np.ndarray = np.load(self.path, mmap_mode="r")
            self.frames: np.ndarray = np.load(self._beside("frames"))
        except (FileNotFoundError, ValueError, EOFError):  # absent, truncated or no array
            return False
        if self.values.shape != (count, *_SHAPE) or self.values.dtype != np.float16 or self.frames.shape != (count,):
            return False
        try:
            self.sums: np.ndarray = np.load(self._beside("crc32"))
        except (FileNotFoundError, ValueError, EOFError):
            self.sums = np.array([zlib.crc32(clip.data) for clip in self.values], dtype=np.uint32)
            np.save(self._beside("crc32"), self.sums)
        return bool(self.sums.shape == (count,) and (self.frames > 0).all())

    def _beside(self, what: str) -> Path:
        return self.path.with_suffix(f".{what}.npy")

    def _compute(self, workers: int, progress: Callable[[int], None]) -> None:
        count = len(self.paths)
        partial = {what: self.path.with_suffix(f".{what}.partial") for what in ("frames", "crc32", "values")}
        frames = _opened(partial["frames"], (count,), np.int32, fill=_TO_DO)
        sums = _opened(partial["crc32"], (count,), np.uint32)
        values = _opened(partial["values"], (count, *_SHAPE), np.float16)
        left = [i for i in range(count) if frames[i] == _TO_DO or zlib.crc32(values[i].data) != sums[i]]
        progress(count - len(left))
        for index, (clip, true) in zip(left, _computed([self.paths[i] for i in left], workers), strict=True):
            values[index], sums[index] = clip, zlib.crc32(clip.data)
            frames[index] = true  # last: it says that the clip is done
            progress(1)
        for array in (frames, sums, values):
            array.flush()  # type: ignore[attr-defined]
        for what, file in partial.items():
            with suppress(FileNotFoundError):  # another run that made the same was first
                os.replace(file, self.path if what == "values" else self._beside(what))

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> np.ndarray:
        clip = self.values[index]
        return clip if zlib.crc32(clip.data) == self.sums[index] else _fbank_of(self.paths[index])[0]
