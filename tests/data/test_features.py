"""The feature cache: right values, computed once, gone on with after a stop, and never wrong in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from gama.data import features
from gama.data.features import FbankStore
from gama.errors import AudioError
from gama.fbank import KaldiFbank


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    """Three clips of noise: 0.5 s, 0.3 s, and one longer than a window."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{name}.wav" for name in "abc"]
    for path, seconds in zip(paths, (0.5, 0.3, 10.6), strict=True):
        soundfile.write(path, rng.normal(0, 0.1, round(16000 * seconds)).astype(np.float32), 16000, subtype="FLOAT")
    return paths


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the clips whose features are computed from now on."""
    names: list[str] = []
    original = features._fbank_of

    def fbank_of(path: Path) -> Any:
        names.append(path.stem)
        return original(path)

    monkeypatch.setattr(features, "_fbank_of", fbank_of)
    return names


def same(store: FbankStore, values: np.ndarray) -> bool:
    return all(np.array_equal(store[i], values[i]) for i in range(len(store)))


def test_values_and_true_frames(clips: list[Path], tmp_path: Path) -> None:
    store = FbankStore(clips, tmp_path / "cache")
    assert len(store) == 3
    assert store.frames.tolist() == [48, 28, 1024]
    for index, path in enumerate(clips):
        samples = torch.from_numpy(soundfile.read(path, dtype="float32")[0]).unsqueeze(0)
        expected = KaldiFbank()(samples)[0].numpy()
        assert np.abs(store[index].astype(np.float32) - expected).max() < 2e-3


def test_computed_once_and_again_when_a_clip_changes(clips: list[Path], tmp_path: Path, computed: list[str]) -> None:
    progress: list[int] = []
    FbankStore(clips, tmp_path / "cache", progress=progress.append)
    assert sum(progress) == 3
    assert sorted(p.suffix for p in (tmp_path / "cache").iterdir()) == [".npy"] * 3
    FbankStore(clips, tmp_path / "cache")
    assert computed == ["a", "b", "c"]
    soundfile.write(clips[1], np.zeros(8000, dtype=np.float32), 16000)
    FbankStore(clips, tmp_path / "cache")
    assert computed == ["a", "b", "c"] * 2


def test_a_stopped_run_goes_on(clips: list[Path], tmp_path: Path, computed: list[str]) -> None:
    whole = np.array(FbankStore(clips, tmp_path / "whole").values)
    computed.clear()

    def stop(done: int) -> None:
        if len(computed) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FbankStore(clips, tmp_path / "cache", progress=stop)
    store = FbankStore(clips, tmp_path / "cache")
    assert computed == ["a", "b", "c"]
    assert same(store, whole)
    assert not list((tmp_path / "cache").glob("*.partial"))


@pytest.mark.parametrize("damage", ["truncated", "empty", "not an array", "no frames", "bad frames", "other shape"])
def test_damaged_files_are_computed_again(clips: list[Path], tmp_path: Path, computed: list[str], damage: str) -> None:
    first = FbankStore(clips, tmp_path / "cache")
    path, frames, whole = first.path, first.path.with_suffix(".frames.npy"), np.array(first.values)
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[:-1000])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "not an array":
        path.write_bytes(b"x" * len(content))
    elif damage == "no frames":
        frames.unlink()
    elif damage == "bad frames":
        frames.write_bytes(frames.read_bytes()[:-2])
    else:
        np.save(path, whole[:2])
    store = FbankStore(clips, tmp_path / "cache")
    assert computed == ["a", "b", "c"] * 2
    assert same(store, whole)
    assert store.frames.tolist() == [48, 28, 1024]


def test_a_damaged_clip_is_computed_again_when_it_is_read(
    clips: list[Path], tmp_path: Path, computed: list[str]
) -> None:
    store = FbankStore(clips, tmp_path / "cache")
    whole = np.array(store.values)
    writable = np.load(store.path, mmap_mode="r+")
    writable[1, 5, 7] += 1
    writable.flush()
    again = FbankStore(clips, tmp_path / "cache")
    computed.clear()
    assert same(again, whole)
    assert computed == ["b"]


def test_a_cache_without_checksums_gets_them(clips: list[Path], tmp_path: Path, computed: list[str]) -> None:
    store = FbankStore(clips, tmp_path / "cache")
    sums = store.path.with_suffix(".crc32.npy")
    expected = np.load(sums)
    sums.unlink()
    computed.clear()
    FbankStore(clips, tmp_path / "cache")
    assert computed == []
    assert np.array_equal(np.load(sums), expected)


def test_clips_that_cannot_be_used_are_named(clips: list[Path], tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"gone\.wav: no such file"):
        FbankStore([*clips, tmp_path / "gone.wav"], tmp_path / "cache")
    soundfile.write(clips[1], np.zeros(399, dtype=np.float32), 16000)
    with pytest.raises(AudioError, match=r"b\.wav: lasts 24.94 ms"):
        FbankStore(clips, tmp_path / "cache")
    clips[1].write_bytes(b"RIFF")
    with pytest.raises(AudioError, match=r"b\.wav"):
        FbankStore(clips, tmp_path / "cache")
