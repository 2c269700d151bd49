"""Weight files are read without running them; what is damaged, cut or more than weights is refused."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pickle
import struct
import tracemalloc
import types
import warnings
import zipfile
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
    torch.save({"model": WEIGHTS, "day": datetime.date(2026, 11, 28)}, tmp_path / "w.pth")
    assert "datetime.date" in refusal(tmp_path / "w.pth")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("nested", [True, False])
def test_values_of_numpy_and_options_are_passed_over(zipped: bool, nested: bool, tmp_path: Path) -> None:
    """What training scripts save beside weights; nothing of it is built."""
    beside: dict[str, Any] = {
        "stats": np.arange(6.0).reshape(2, 3),
        "names": np.array(["dog", "bell"]),
        "random": np.random.RandomState(3).get_state(),
        "generator": np.random.default_rng(3),
        "legacy": np.random.RandomState(3),
        "best": np.float64(0.5),
        "args": argparse.Namespace(lr=1e-4, inner=argparse.Namespace(steps=3)),
        "more": types.SimpleNamespace(a=1),
    }
    saved = {"model": WEIGHTS, **beside} if nested else {**WEIGHTS, **beside}
    torch.save(saved, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    weights = read_weights(tmp_path / "w.pth")
    assert same(weights)
    assert weights.beside == tuple(beside)


def test_a_torchscript_archive_is_named(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(tmp_path / "script.pt"))
    told = refusal(tmp_path / "script.pt")
    assert "is a TorchScript archive" in told and "download" not in told


@pytest.mark.parametrize("name", ["w.bin", "w.safetensors", "w.pth"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4665a5\nsize 12345\n",
            "a git-lfs pointer, not the file it points to (run 'git lfs pull'",
        ),
        (b"\xef\xbb\xbf\n <!DOCTYPE html><html><title>Virus scan warning</title></html>", "a web page, not the file"),
        (b"<html><body>Sign in</body></html>", "a web page, not the file"),
    ],
)
def test_what_stands_in_for_weights_is_named(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert message in refusal(tmp_path / name)


def archive(path: Path, pickled: bytes, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as made:
        made.writestr("w/data.pkl", pickled)
        made.writestr("w/version", b"3\n")
    return path


def test_a_pickle_that_unfolds_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """3 MB that took 6.3 GB: 300 MB of empty lists, deflated."""
    packed = archive(tmp_path / "w.bin", b"\x80\x02" + b"]" * 300_000_000 + b".", zipfile.ZIP_DEFLATED)
    assert packed.stat().st_size < 3 * 2**20
    tracemalloc.start()
    told = refusal(packed)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "refused as a bomb" in told and peak < 2**20
    plain = archive(tmp_path / "plain.bin", b"\x80\x02" + b"]" * 20_000_000 + b".")
    assert "refused as a bomb" in refusal(plain)


def test_bytes_out_of_nothing_are_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "w.bin", b"\x80\x02cbuiltins\nbytearray\n(J\xff\xff\xff\x7ftR.")
    assert "bytearray" in refusal(path)


def test_a_tensor_beyond_the_memory_is_refused(tmp_path: Path) -> None:
    size = b"\x8a\x08" + (2**55).to_bytes(8, "little")
    path = archive(tmp_path / "w.bin", b"\x80\x02ctorch\nTensor\n(" + size + b"tR.")
    assert "asks for more memory than there is" in refusal(path)


def test_a_tensor_larger_than_its_bytes_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(10**9)}, tmp_path / "w.bin")
    assert "a: shape (1000000000,) takes more bytes than the 4 stored" in refusal(tmp_path / "w.bin")


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
        {"a": {"dtype": "F32", "shape": [0, 2**70], "data_offsets": [0, 0]}},
        {"a": {"dtype": "F32", "shape": [0] * 99, "data_offsets": [0, 0]}},
        {"a": {"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [float("inf")], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 10**400]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 9]}},
        {"\ud800": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}},
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xff" * 10,
    ],
    ids=str,
)
def test_a_lying_safetensors_header(header: Any, tmp_path: Path) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 8)
    refusal(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ([(0, 8), (4, 8)], "b overlaps the tensor before it"),
        ([(0, 4), (4, 8)], None),
        ([(4, 8), (0, 4)], None),
        ([(0, 2), (4, 8)], "b does not follow the tensor before it"),
        ([(2, 4), (4, 8)], "a does not follow the tensor before it"),
        ([(0, 4), (4, 6)], "2 bytes at its end belong to no tensor"),
        ([(0, 4), (0, 8)], "b overlaps the tensor before it"),
    ],
)
def test_tensors_fill_the_file(places: list[tuple[int, int]], message: str | None, tmp_path: Path) -> None:
    header = {
        name: {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}
        for name, (begin, end) in zip("ab", places, strict=True)
    }
    text = json.dumps(header).encode()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(range(8)))
    if message is None:
        weights = read_weights(tmp_path / "w.safetensors")
        assert {k: t.tolist() for k, t in weights.items()} == {
            name: list(range(begin, end)) for name, (begin, end) in zip("ab", places, strict=True)
        }
    else:
        assert message in refusal(tmp_path / "w.safetensors")


def test_an_endless_header(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    assert "cut short" in refusal(tmp_path / "w.safetensors")


def test_text_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_text("version 1\n")
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
