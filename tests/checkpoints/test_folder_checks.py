"""What a folder says of itself against its own files: refused before anything is built of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import gama
from gama.checkpoints.bundled import model_folder
from gama.checkpoints.file_hashes import FILE
from gama.checkpoints.folder_checks import check_weights, read_config
from gama.errors import CheckpointError

HEAD = "language_model.lm_head.weight"
EMBEDDING = "language_model.model.embed_tokens.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the packaged model that has no record: what is told, the files tell themselves."""
    return Path(shutil.copytree(model_folder(), tmp_path / "model", ignore=shutil.ignore_patterns(FILE)))


def change(file: Path, *path: str, to: Any) -> None:
    table = json.loads(file.read_text())
    part = table
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = to
    file.write_text(json.dumps(table))


def checked(folder: Path) -> None:
    check_weights(folder, read_config(folder), [folder / "model.safetensors"], quantized=False)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("text_config", "num_hidden_layers"), 10**6, "describes 1,000,000 layers (text_config), its weights are"),
        (("encoder_config", "num_hidden_layers"), 10**6, "describes 1,000,000 layers (encoder_config)"),
        (("qformer_config", "num_hidden_layers"), 10**6, "describes 1,000,000 layers (qformer_config)"),
        (("text_config", "vocab_size"), 10**9, "describes a model of at least 192,"),
        (("text_config", "hidden_size"), 10**6, "describes a model of at least"),
        (("text_config", "num_key_value_heads"), 10**5, "describes a model of at least"),
        (("encoder_config", "num_frames"), 10**8, "describes a model of at least"),
        (("qformer_config", "num_query_tokens"), 10**8, "describes a model of at least"),
        (("encoder_config", "stem_channels"), [10**5, 10**5, 96], "describes a model of at least"),
        (("text_config", "rms_norm_eps"), 10**30, "rms_norm_eps is a number of 31 digits"),
        (("text_config", "vocab_size"), -(2**63), "vocab_size is a number of"),
        (("model_type",), ["gama"], "holds a model of type"),
    ],
)
def test_sizes_beyond_what_the_files_hold(path: Any, value: Any, message: str, folder: Path) -> None:
    checked(folder)
    change(folder / "config.json", *path, to=value)
    with pytest.raises(CheckpointError) as caught:
        checked(folder)
    assert message in str(caught.value)
    with pytest.raises(CheckpointError):
        gama.load(folder, runtime="torch")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"a":' * 300 + "1" + "}" * 300])
def test_json_nested_without_end(text: str, folder: Path) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match="config.json: cannot be read as JSON: nested deeper than 64 levels"):
        read_config(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "front_end.onnx", "language_model.onnx"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4665a5\nsize 12345\n", "a git-lfs pointer, not the"),
        (b"<!DOCTYPE html><html></html>", "a web page, not the file"),
    ],
)
def test_what_stands_in_for_a_file(name: str, content: bytes, message: str, folder: Path, capfd: Any) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        gama.load(folder)
    assert str(caught.value).startswith(f"{folder / name}: {message}")
    assert capfd.readouterr() == ("", "")  # no word of onnxruntime's log


def weights(folder: Path, changed: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    changed(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_weights_stored_as_integers(folder: Path) -> None:
    key = "language_model.model.layers.0.mlp.up_proj.weight"
    weights(folder, lambda t: t.update({key: t[key].to(torch.int8)}))
    with pytest.raises(CheckpointError, match=f"{key} is stored as I8, floating-point numbers were expected"):
        gama.load(folder, runtime="torch")


def test_a_head_of_its_own_beside_a_tied_one(folder: Path) -> None:
    weights(folder, lambda t: t.update({HEAD: t[EMBEDDING].clone()}))
    checked(folder)  # the same numbers twice are no other model
    weights(folder, lambda t: t.update({HEAD: torch.rand_like(t[EMBEDDING])}))
    with pytest.raises(CheckpointError, match=f"holds {HEAD}, and config.json ties the head to the embedding"):
        gama.load(folder, runtime="torch")


@pytest.mark.parametrize("runtime", ["torch", "onnx"])
@pytest.mark.parametrize(
    ("file", "path", "value", "message"),
    [
        (
            "processor_config.json",
            ("feature_extractor", "sampling_rate"),
            44_100,
            "sampling_rate is 44100, the model reads",
        ),
        ("processor_config.json", ("audio_token_id",), 7, "audio_token_id is 7, the model reads 3"),
        ("processor_config.json", ("num_audio_tokens",), 95, "num_audio_tokens is 95, the model reads 96"),
        ("tokenizer_config.json", ("bos_token",), "</s>", "id of </s> is 2, the model reads 1"),
    ],
)
def test_a_processor_of_another_model(
    runtime: Any, file: str, path: Any, value: Any, message: str, folder: Path
) -> None:
    change(folder / file, *path, to=value)
    with pytest.raises(CheckpointError) as caught:
        gama.load(folder, runtime=runtime)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("file", "name", "value", "message"),
    [
        ("processor_config.json", "audio_token", [[]], "audio_token is [[]], text was expected"),
        ("generation_config.json", "eos_token_id", {"a": 1}, "eos_token_id is {'a': 1}, no ids"),
        ("generation_config.json", "eos_token_id", [2, "x"], "no ids"),
    ],
)
def test_settings_of_another_kind(file: str, name: str, value: Any, message: str, folder: Path) -> None:
    change(folder / file, name, to=value)
    with pytest.raises(CheckpointError) as caught:
        gama.load(folder, runtime="torch")
    assert message in str(caught.value)


@pytest.mark.parametrize("runtime", ["torch", "onnx"])
@pytest.mark.parametrize(("token", "message"), [("<s>", "id of <s> is"), ("<audio>", "id of <audio> is")])
def test_a_tokenizer_with_other_ids(runtime: Any, token: str, message: str, folder: Path) -> None:
    """The token changes its place with an ordinary one."""
    table = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = table["model"]["vocab"]
    other = next(word for word, number in vocabulary.items() if number == 700)
    row = next(row for row in table["added_tokens"] if row["content"] == token)
    if token in vocabulary:
        vocabulary[token], vocabulary[other] = vocabulary[other], vocabulary[token]
    else:
        vocabulary[other] = row["id"]
    row["id"] = 700
    (folder / "tokenizer.json").write_text(json.dumps(table))
    with pytest.raises(CheckpointError) as caught:
        gama.load(folder, runtime=runtime)
    assert message in str(caught.value) and "700" in str(caught.value)
