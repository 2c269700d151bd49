"""Weight files are read without running them; what is damaged, cut or more than weights is refused."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gama.checkpoints.reading import read_shards, read_weights
from gama.errors import CheckpointError

WEIGHTS = {
    "a": torch.arange(12, dtype=torch.float32).view(3, 4),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "none": torch.empty(0, 3),
    "one": torch.tensor(7.0, dtype=torch.float64),
    "ids": torch.arange(4),
}


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_weights(path)
    assert path.name in str(caught.value)
    return str(caught.value)


def same(got: Any) -> bool:
    return set(got) == set(WEIGHTS) and all(
        torch.equal(got[k], t) and got[k].dtype == t.dtype for k, t in WEIGHTS.items()
    )


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_torch_files(zipped: bool, tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "w.bin", _use_new_zipfile_serialization=zipped)
    assert same(read_weights(tmp_path / "w.bin"))


def test_safetensors(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "w.safetensors", metadata={"format": "pt"})
    assert same(read_weights(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("nest", ["state_dict", "model", "module"])
def test_weights_inside_what_a_training_script_saved(nest: str, tmp_path: Path) -> None:
    best = np.float64(0.5)
    torch.save({nest: WEIGHTS, "epoch": 3, "best": best, "optimizer": {"state": {}}}, tmp_path / "w.pt")
    weights = read_weights(tmp_path / "w.pt")
    assert same(weights)
    assert weights.beside == ("epoch", "best", "optimizer")


@pytest.mark.parametrize("how", ["zip", "before torch 1.6", "pickle", "inside weights"])
def test_a_malicious_pickle_does_not_run(how: str, tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / "w.bin"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Evil(mark)))
    else:
        held = {"state_dict": {**WEIGHTS, "x": Evil(mark)}} if how == "inside weights" else {**WEIGHTS, "x": Evil(mark)}
        torch.save(held, path, _use_new_zipfile_serialization=how != "before torch 1.6")
    told = refusal(path)
    assert "refused" in told
    assert how == "pickle" or "posix.system" in told
    assert not mark.exists()


def test_a_harmless_object_is_refused_by_name(tmp_path: Path) -> None:
    torch.save({"model": WEIGHTS, "args": argparse.Namespace(lr=1e-4)}, tmp_path / "w.pth")
    assert "argparse.Namespace" in refusal(tmp_path / "w.pth")


@pytest.mark.parametrize("kept", [0.0, 0.005, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("name", ["w.bin", "old.bin", "w.safetensors"])
def test_a_truncated_file(name: str, kept: float, tmp_path: Path) -> None:
    if name == "w.safetensors":
        save_file(WEIGHTS, tmp_path / name)
    else:
        torch.save(WEIGHTS, tmp_path / name, _use_new_zipfile_serialization=name == "w.bin")
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(kept * len(whole))])
    told = refusal(tmp_path / name)
    assert any(word in told for word in ("cut short", "empty", "damaged", "neither", "no JSON"))


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"{",
        {"a": 3},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}},
        {"a": {"dtype": "F9", "shape": [1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}},
    ],
    ids=str,
)
def test_a_lying_safetensors_header(header: Any, tmp_path: Path) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 8)
    refusal(tmp_path / "w.safetensors")


def test_an_endless_header(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    assert "cut short" in refusal(tmp_path / "w.safetensors")


def test_text_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "neither" in refusal(tmp_path / "w.bin")


def test_a_table_of_other_things(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "w.bin")
    assert "no weights" in refusal(tmp_path / "w.bin")


def test_shards(tmp_path: Path) -> None:
    for number, keys in enumerate((["a", "half"], ["none", "one", "ids"]), 1):
        save_file({k: WEIGHTS[k] for k in keys}, tmp_path / f"model-0000{number}-of-00002.safetensors")
    assert same(read_shards(tmp_path))
    index = {"weight_map": {k: "model-00001-of-00002.safetensors" for k in WEIGHTS}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert same(read_shards(tmp_path))  # a shard beside the index is not passed over
    save_file({"a": WEIGHTS["a"]}, tmp_path / "model-00003-of-00002.safetensors")
    with pytest.raises(CheckpointError, match="two shards hold a"):
        read_shards(tmp_path)


@pytest.mark.parametrize(("listed", "told"), [("gone.safetensors", "missing"), ("../w.safetensors", "no file name")])
def test_an_index_that_lists_what_is_not_there(listed: str, told: str, tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "w.safetensors")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": listed}}))
    with pytest.raises(CheckpointError, match=told):
        read_shards(folder)


def test_of_two_indices_the_whole_one_counts(tmp_path: Path) -> None:
    """LLaMA-2's folder lists both forms; people download one."""
    torch.save(WEIGHTS, tmp_path / "pytorch_model-00001-of-00001.bin")
    for index, file in (
        ("model.safetensors.index.json", "model-00001-of-00001.safetensors"),
        ("pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin"),
    ):
        (tmp_path / index).write_text(json.dumps({"weight_map": dict.fromkeys(WEIGHTS, file)}))
    assert same(read_shards(tmp_path))
