"""Items: the same for the same (seed, epoch, index), drawn from truth or rows, folds respected."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from gama.data.dataset import ClipDataset, Item, SymbolicScenes
from gama.errors import AudioError, ManifestError

EVENT = {"label": "dog", "start": 0.1, "end": 0.3, "count": 1, "level_db": -20.0, "centroid_hz": 900.0}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Clip a of fold 1 and b of fold 2 with truth; c without, three rows; a row without a clip."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for name in "abc":
        soundfile.write(tmp_path / f"{name}.wav", rng.normal(0, 0.1, 6400), 16000)
    for fold, name in enumerate("ab", 1):
        truth = {"events": [EVENT], "duration": 0.4, "fold": fold}
        rows.append({"audio_id": f"{name}.wav", "instruction": "What?", "output": "A dog.", **truth})
    for number in range(3):
        rows.append({"audio_id": "c.wav", "instruction": f"q{number}", "output": f"a{number}", "input": "x" * number})
    rows.append({"audio_id": "empty", "instruction": "Hi?", "output": "Hello."})
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    return path


def dataset(manifest: Path, **options: Any) -> ClipDataset:
    return ClipDataset([manifest], manifest.parent / "cache", **({"seed": 1, "questions": 2} | options))


def equal(first: Item, second: Item) -> bool:
    assert first.fbank is not None and second.fbank is not None
    rest = (first.questions, first.chance, first.frames) == (second.questions, second.chance, second.frames)
    return rest and torch.equal(first.fbank, second.fbank)


def test_one_item_a_clip(manifest: Path) -> None:
    data = dataset(manifest)
    assert len(data) == 3
    item = data[0]
    assert item.fbank is not None and item.fbank.shape == (1024, 128) and item.fbank.dtype == torch.float32
    assert item.frames == 38
    assert item.scene is not None and len(item.questions) == 2


def test_rows_are_the_questions_where_there_is_no_truth(manifest: Path) -> None:
    item = dataset(manifest, questions=9)[2]
    assert item.scene is None
    assert {q.output for q in item.questions} == {"a0", "a1", "a2"}
    assert {q.instruction for q in item.questions} == {"q0", "q1\n\n### Input:\nx", "q2\n\n### Input:\nxx"}
    assert len(dataset(manifest)[2].questions) == 2
    assert dataset(manifest, questions=0)[2].questions == ()


def test_chance_depends_on_seed_epoch_and_index_alone(manifest: Path) -> None:
    data, again = dataset(manifest, augmentation=1.0), dataset(manifest, augmentation=1.0)
    for index in (2, 0, 1):
        again[index]
    assert all(equal(data[i], again[i]) for i in range(3))
    again.set_epoch(1)
    assert not equal(data[0], again[0])
    again.set_epoch(0)
    assert equal(data[0], again[0])
    other = dataset(manifest, augmentation=1.0, seed=2)
    assert not equal(data[0], other[0])
    assert len({data[i].chance for i in range(3)}) == 3


def test_augmentation_leaves_the_cache_and_the_padding_alone(manifest: Path) -> None:
    plain, changed = dataset(manifest)[0].fbank, dataset(manifest, augmentation=1.0)[0].fbank
    assert plain is not None and changed is not None
    assert not torch.equal(plain[:38], changed[:38])
    assert torch.equal(plain[38:], changed[38:])
    again = dataset(manifest)[0].fbank
    assert again is not None and torch.equal(plain, again)


def test_folds(manifest: Path) -> None:
    data = dataset(manifest, folds=(2,))
    assert [row.audio.stem for i in range(len(data)) if (row := data.rows_of(i)[0]).audio] == ["b", "c"]
    assert [path.stem for path in data.store.paths] == ["b", "c"]  # nobody waits for features that nobody reads
    assert len(dataset(manifest, folds=())) == 1


def test_nothing_left_and_no_truth(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"c\.wav: its row carries no 'events'"):
        dataset(manifest, truth=True)
    (tmp_path / "none.json").write_text("[]")
    with pytest.raises(ManifestError, match=r"no clip is left of .*none\.json"):
        dataset(tmp_path / "none.json")


def test_a_manifest_named_twice_counts_twice(manifest: Path) -> None:
    data = ClipDataset([manifest, manifest], manifest.parent / "cache", seed=1, questions=1)
    assert len(data) == 6
    assert len(data.store) == 3


def test_symbolic_scenes() -> None:
    data = SymbolicScenes(5, seed=1, questions=3, tasks=("what",))
    assert len(data) == 5
    assert data[4] == SymbolicScenes(5, seed=1, questions=3, tasks=("what",))[4]
    assert data[4].scene != data[3].scene
    assert data[0].fbank is None and len(data[0].questions) == 3


def test_without_packing_every_row_stands_alone(manifest: Path) -> None:
    data = dataset(manifest, packing=False)
    assert [[q.output for q in data[i].questions] for i in range(len(data))] == [["A dog."]] * 2 + [
        ["a0"],
        ["a1"],
        ["a2"],
    ]


def test_features_that_vanish_in_mid_run_are_named(manifest: Path) -> None:
    data = dataset(manifest)
    for file in (manifest.parent / "cache").glob("*.safetensors"):
        file.unlink()
    with pytest.raises(AudioError, match=r"b\.wav: its features are gone: No such file"):
        data[1]


def test_items_are_the_same_in_another_process(manifest: Path) -> None:
    data = dataset(manifest)
    assert data[0].questions  # opens the manifest
    again = pickle.loads(pickle.dumps(data))
    assert all(equal(data[i], again[i]) for i in range(3))


def test_empty_answers_are_told_with_their_rows_and_empty_questions_refused(manifest: Path) -> None:
    rows = json.loads(manifest.read_text())
    rows[1]["output"] = ""  # of a clip whose questions are drawn from its truth
    rows[3]["output"] = " "
    manifest.write_text(json.dumps(rows))
    data = dataset(manifest)
    assert data.rows.where(data.empty_answers) == f"{manifest}: row 4"
    assert len(dataset(manifest, packing=False).empty_answers) == 2
    assert dataset(manifest, questions=0).empty_answers == []
    rows[4]["instruction"] = "\t"
    manifest.write_text(json.dumps(rows))
    with pytest.raises(ManifestError, match=r"1 row\(s\) have an empty question: .*rows.json: row 5 \(gama prepare"):
        dataset(manifest)
    assert len(dataset(manifest, questions=0)) == 3
