"""``gama.load``: devices, precisions, quantization, and a line that names what is wrong with a checkpoint."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import gama
from gama.audio import Waveform
from gama.checkpoints.bundled import model_folder
from gama.checkpoints.file_hashes import FILE as RECORD
from gama.errors import CheckpointError, DeviceError, GamaError, MissingPackageError
from gama.inference.engine import Gama

QUESTION = "what happened?"
SHORT = {"max_new_tokens": 8}


def waveform(seconds: float) -> Waveform:
    samples = 0.1 * np.random.default_rng(0).standard_normal(round(16_000 * seconds))
    return Waveform(samples.astype(np.float32), "clip.wav", 16_000, 1)


@pytest.fixture(scope="module")
def mini() -> Gama:
    return gama.load(runtime="torch")


@pytest.mark.parametrize("quant", ["8bit", "4bit"])
def test_quantization_holds_the_language_model_in_fewer_bits_and_nothing_else(
    quant: Any, mini: Gama, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    loaded = gama.load(quant=quant)
    assert loaded.quantization == quant
    import bitsandbytes

    kind = {"8bit": bitsandbytes.nn.Linear8bitLt, "4bit": bitsandbytes.nn.Linear4bit}[quant]
    linear = {n: m for n, m in loaded.model.named_modules() if isinstance(m, nn.Linear) and "lm_head" not in n}
    language = {n for n in linear if n.startswith("language_model.")}
    assert len(language) == 7 * loaded.model.config.text_config.num_hidden_layers
    assert {n for n, m in linear.items() if isinstance(m, kind)} == language
    torch.testing.assert_close(loaded.hear([waveform(1.0)]), mini.hear([waveform(1.0)]))
    assert loaded.ask(waveform(1.0), QUESTION, **SHORT).heard[0].new_tokens >= 1
    assert loaded.batch([waveform(1.0), waveform(2.0)], QUESTION, **SHORT)[0].heard[0].new_tokens >= 1
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_loading_leaves_the_settings_of_transformers_alone(capfd: pytest.CaptureFixture[str]) -> None:
    from transformers.utils import logging as theirs

    before = theirs.get_verbosity()
    theirs.set_verbosity_warning()
    try:
        gama.load(runtime="torch")
        assert theirs.get_verbosity() == logging.WARNING and theirs.is_progress_bar_enabled()
    finally:
        theirs.set_verbosity(before)
    assert capfd.readouterr().err == ""


def test_quantization_without_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == "bitsandbytes"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingPackageError, match=r"needs the package bitsandbytes \(pip install"):
        gama.load(quant="8bit")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"device": "cuda:99"}, DeviceError, "'cuda:99' is not available"),
        ({"device": "toaster"}, DeviceError, "no device is called 'toaster'"),
        ({"device": "meta"}, DeviceError, "not available"),
        ({"dtype": "int7"}, GamaError, "no precision is called 'int7'"),
        ({"quant": "2bit"}, GamaError, "no quantization is called '2bit'"),
        ({"name_or_dir": "maxi"}, CheckpointError, "no model 'maxi'.*known: mini"),
    ],
)
def test_what_cannot_be_had(options: dict[str, Any], error: type[GamaError], message: str) -> None:
    with pytest.raises(error, match=message):
        gama.load(**options)


def test_half_precision() -> None:
    half = gama.load(dtype="bfloat16")
    assert {p.dtype for p in half.model.parameters()} == {torch.bfloat16}
    assert half.ask(waveform(1.0), QUESTION, **SHORT).heard[0].new_tokens >= 1


KEY = "language_model.model.layers.1.mlp.up_proj.weight"
TOWER_KEY = "audio_tower.qformer.query_tokens"


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[Callable[[dict[str, Tensor]], object]], Path]:
    """The packaged model in a folder of its own, its weights changed."""

    def changed(change: Callable[[dict[str, Tensor]], object]) -> Path:
        shutil.copytree(model_folder(), tmp_path / "copy", ignore=shutil.ignore_patterns(RECORD))
        weights = load_file(tmp_path / "copy" / "model.safetensors")
        assert KEY in weights and TOWER_KEY in weights
        change(weights)
        save_file(weights, tmp_path / "copy" / "model.safetensors", metadata={"format": "pt"})
        return tmp_path / "copy"

    return changed


@pytest.mark.parametrize("key", [KEY, TOWER_KEY])
@pytest.mark.parametrize("quant", ["none", "8bit"])
def test_a_missing_weight(copy: Any, key: str, quant: Any, capfd: pytest.CaptureFixture[str]) -> None:
    folder = copy(lambda weights: weights.pop(key))
    with pytest.raises(CheckpointError, match=f"lacks 1 weight.*{key}"):
        gama.load(folder, quant=quant, runtime="torch")
    assert capfd.readouterr().err == ""


def test_an_unexpected_weight(copy: Any) -> None:
    folder = copy(lambda weights: weights.update({"audio_tower.extra.weight": torch.zeros(2)}))
    with pytest.raises(CheckpointError, match=r"holds unknown 1 weight\(s\): audio_tower.extra.weight"):
        gama.load(folder, runtime="torch")


@pytest.mark.parametrize("key", [KEY, TOWER_KEY])
def test_a_weight_of_another_shape(copy: Any, key: str) -> None:
    folder = copy(lambda weights: weights.update({key: weights[key][..., :-1].contiguous()}))
    with pytest.raises(CheckpointError, match=rf"other shapes for 1 weight\(s\): {key} \(.* was expected\)"):
        gama.load(folder, runtime="torch")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", b"{", "cannot be read as JSON"),
        ("config.json", b"[1]", "cannot be read as JSON: a list, a table was expected"),
        ("config.json", json.dumps({"model_type": "llama"}).encode(), "of type 'llama', 'gama' was expected"),
        ("model.safetensors", b"", "not a safetensors file, or cut short"),
        ("model.safetensors", None, "no weight files"),
        ("model.safetensors", b"\x10\0\0\0\0\0\0\0{}", "not a safetensors file, or cut short"),
        ("tokenizer.json", b"{}", "cannot be loaded"),
        ("tokenizer.json", None, "cannot be loaded"),
        ("processor_config.json", b"{", "cannot be loaded"),
    ],
)
def test_a_broken_folder(tmp_path: Path, file: str, content: bytes | None, message: str) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(model_folder(), folder, ignore=shutil.ignore_patterns(RECORD))
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as error:
        gama.load(folder, runtime="torch")
    assert str(error.value).startswith(str(folder)) and "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft's
def test_an_adapter_beside_the_weights_lets_nothing_ask_a_hub(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    shutil.copytree(model_folder(), folder)
    model = gama.load(runtime="torch").model
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=r"language_model.*q_proj"))  # type: ignore[arg-type]
    adapted.save_pretrained(folder)
    script = f"import gama; print(gama.load({str(folder)!r}, runtime='torch').ask(None, 'hello?', max_new_tokens=2))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="config.json is missing"):
        gama.load(tmp_path)
