"""Prefixes that are kept: found again by the same model alone, checked, bounded, and never in anybody's way."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gama
from gama.audio import Waveform
from gama.checkpoints.bundled import model_folder
from gama.errors import GamaError
from gama.inference.asking import Asker
from gama.inference.prefixes import Prefixes, PrefixStore, Stored, digest
from gama.instant.engine import has_instant_graphs

MODEL, SOUND = "a" * 64, "b" * 64
VALUES = np.arange(12, dtype=np.float32).reshape(3, 4)


def sound(number: int) -> str:
    return f"{number:064x}"


def waveform(seconds: float, seed: int = 0) -> Waveform:
    samples = 0.1 * np.random.default_rng(seed).standard_normal(round(16_000 * seconds))
    return Waveform(samples.astype(np.float32), f"clip{seed}.wav", 16_000, 1)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


# --- the store


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_what_is_kept_comes_back(tmp_path: Path, precision: Any) -> None:
    values = VALUES.astype({"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}[precision])
    PrefixStore(tmp_path).save(MODEL, SOUND, Stored(values, precision))
    found = PrefixStore(tmp_path).load(MODEL, SOUND)
    assert found is not None and found.precision == precision and found.values.dtype == values.dtype
    np.testing.assert_array_equal(found.values, values)
    assert PrefixStore(tmp_path).load("c" * 64, SOUND) is None and PrefixStore(tmp_path).load(MODEL, "d" * 64) is None


@pytest.mark.parametrize("damage", [b"", b"noise", None, "cut", "flipped", "other"])
def test_a_damaged_file_is_told_of_and_taken_away(
    tmp_path: Path, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    store = PrefixStore(tmp_path)
    store.save(MODEL, SOUND, Stored(VALUES))
    (file,) = files(tmp_path)
    content = file.read_bytes()
    flipped = content[:-1] + bytes([content[-1] ^ 1])
    damaged = {"cut": content[:-5], "flipped": flipped, "other": b"gama prefix 2\n" + content[14:]}
    file.write_bytes(damaged.get(damage, damage or b"\0" * 200))
    with caplog.at_level(logging.WARNING):
        assert store.load(MODEL, SOUND) is None
    assert "the kept prefix is damaged; the clip is heard again" in caplog.text
    assert not files(tmp_path)


def test_the_longest_unused_go(tmp_path: Path) -> None:
    store = PrefixStore(tmp_path)
    for number in range(10):
        store.save(MODEL, sound(number), Stored(VALUES))
    size = files(tmp_path)[0].stat().st_size
    for number, file in enumerate(files(tmp_path)):
        os.utime(file, (number + 1, number + 1))
    assert store.load(MODEL, sound(0)) is not None  # used just now
    small = PrefixStore(tmp_path, limit=10 * size)
    small.save(MODEL, sound(10), Stored(VALUES))
    left = [number for number in range(11) if store.load(MODEL, sound(number)) is not None]
    assert left == [0, *range(3, 11)]
    for number in range(11, 40):
        small.save(MODEL, sound(number), Stored(VALUES))
        assert sum(file.stat().st_size for file in files(tmp_path)) <= 10 * size


def test_several_writers_of_one_folder(tmp_path: Path) -> None:
    def work(seed: int) -> None:
        store = PrefixStore(tmp_path, limit=3000)
        for number in np.random.default_rng(seed).integers(0, 20, 150):
            found = store.load(MODEL, sound(int(number)))
            if found is None:
                store.save(MODEL, sound(int(number)), Stored(VALUES + np.float32(number)))
            else:
                wrong.extend([number] * (not np.array_equal(found.values, VALUES + np.float32(number))))

    wrong: list[Any] = []
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and all(file.suffix == ".prefix" for file in files(tmp_path))


def test_a_place_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GamaError, match=r"file/cache: no cache can be kept there.*--cache DIR"):
        PrefixStore(tmp_path / "file" / "cache")


def test_a_full_disk_is_told_once_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    store = PrefixStore(tmp_path)
    monkeypatch.setattr(os, "replace", full)
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            store.save(MODEL, sound(number), Stored(VALUES))
    assert caplog.text.count("prefixes are no longer kept there: ") == 1
    assert caplog.text.count("cannot be written: no space is left on the disk") == 1
    assert not files(tmp_path)


def test_parts_are_told_apart() -> None:
    assert len({digest(parts) for parts in (["ab", "c"], ["a", "bc"], ["abc"], ["ab", "c", ""])}) == 4


# --- in memory


def gathered(prefixes: Prefixes, sounds: list[str]) -> tuple[list[Any], list[int]]:
    asked: list[int] = []

    def compute(indices: list[int]) -> list[str]:
        asked.extend(indices)
        return [sounds[i].upper() for i in indices]

    found = prefixes.gather(sounds, compute, model=str, pack=lambda _: Stored(VALUES), unpack=lambda s: s)
    return found, asked


def test_each_sound_is_computed_once_and_the_latest_stay() -> None:
    prefixes = Prefixes()
    prefixes.most = 3
    assert gathered(prefixes, ["a", "b", "a"]) == (["A", "B", "A"], [0, 1])
    assert gathered(prefixes, ["c", "a"]) == (["C", "A"], [0])
    assert gathered(prefixes, ["d"]) == (["D"], [0])
    assert gathered(prefixes, ["c", "a", "d"])[1] == []
    assert gathered(prefixes, ["b"])[1] == [0] and len(prefixes) == 3
    assert gathered(prefixes, ["1", "2", "3", "4", "5"])[0] == ["1", "2", "3", "4", "5"]


# --- with a model


@pytest.fixture(params=["torch", "bfloat16", "onnx"])
def opened(request: pytest.FixtureRequest) -> Any:
    """Loads gama-mini anew."""
    if request.param == "onnx" and not has_instant_graphs(model_folder()):
        pytest.skip("the packaged model has no instant graphs")
    options = {"runtime": "onnx"} if request.param == "onnx" else {"runtime": "torch"}
    if request.param == "bfloat16":
        options["dtype"] = "bfloat16"
    return lambda: gama.load(**options)


def never_hears(asker: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any) -> Any:
        raise AssertionError("a clip was heard again")

    if asker.runtime.name == "torch":
        monkeypatch.setattr(asker.model, "audio_prefix", forbidden)  # type: ignore[attr-defined]
    else:
        monkeypatch.setattr(type(asker.frontend), "prefix", forbidden)  # type: ignore[attr-defined]


def test_another_process_hears_nothing_again(opened: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [waveform(1.0), waveform(12.0, 1)]
    first, second = opened(), opened()
    first.keep_prefixes(PrefixStore(tmp_path))
    answers = first.batch(clips, "what happened?", max_new_tokens=6)
    assert len(files(tmp_path)) == 3  # the second clip has two windows
    second.keep_prefixes(PrefixStore(tmp_path))
    never_hears(second, monkeypatch)
    assert second.batch(clips, "what happened?", max_new_tokens=6) == answers
    for one, other in zip(first.hear([clips[0]]), second.hear([clips[0]]), strict=True):
        assert np.array_equal(np.asarray(_plain(one)), np.asarray(_plain(other)))


def _plain(prefix: Any) -> Any:
    return prefix.float().numpy() if isinstance(prefix, torch.Tensor) else prefix


def test_a_damaged_file_changes_no_answer(opened: Any, tmp_path: Path) -> None:
    asker = opened()
    asker.keep_prefixes(PrefixStore(tmp_path))
    answer = asker.ask(waveform(1.0), "what happened?", max_new_tokens=6)
    (file,) = files(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(whole[:-9])
    asker.prefixes.clear()
    assert asker.ask(waveform(1.0), "what happened?", max_new_tokens=6) == answer
    assert file.read_bytes() == whole


def test_other_weights_precision_and_settings_have_other_files(tmp_path: Path) -> None:
    plain = gama.load(runtime="torch")
    keys = [plain.hearing_key(), gama.load(dtype="bfloat16").hearing_key()]
    assert gama.load(runtime="torch").hearing_key() == keys[0]
    with torch.no_grad():
        plain.model.audio_tower.encoder.position.view(-1)[0] += 0.5
    keys.append(plain.hearing_key())
    plain.processor.feature_extractor.num_frames = 512
    plain._hearing_key = ""
    keys.append(plain.hearing_key())
    if has_instant_graphs(model_folder()):
        keys.append(gama.load(runtime="onnx").hearing_key())
    assert len(set(keys)) == len(keys)
