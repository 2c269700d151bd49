"""GPTQ: one line for what is missing, and a model that quantizes and loads where all is there."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

import gama
from gama.checkpoints.bundled import model_folder
from gama.checkpoints.file_hashes import FILE as RECORD
from gama.errors import CheckpointError, DeviceError, GamaError, MissingPackageError
from gama.quantization import gptq
from gama.quantization.kinds import stored


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "text.txt"
    file.write_text("a dog barks\n\n  a bell rings twice \n")
    return file


def test_passages_of_a_text_and_of_a_manifest(text: Path, tmp_path: Path) -> None:
    assert gptq.passages(text) == ["a dog barks", "a bell rings twice"]
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"audio_id": "a.wav", "instruction": "what is it?", "output": "A dog."}\n')
    (passage,) = gptq.passages(rows)
    assert "what is it?" in passage and passage.endswith("A dog.")
    text.write_text("\n \n")
    with pytest.raises(GamaError, match="holds no text"):
        gptq.passages(text)


def test_missing_packages(monkeypatch: pytest.MonkeyPatch, text: Path, tmp_path: Path) -> None:
    monkeypatch.setattr(gptq, "find_spec", lambda name: None if name == "gptqmodel" else find_spec("json"))
    with pytest.raises(MissingPackageError, match=r"GPTQ needs the package gptqmodel \(pip install .*\[gptq\]"):
        gptq.quantize_gptq(model_folder(), tmp_path / "out", calibration=text)


def test_no_gpu(monkeypatch: pytest.MonkeyPatch, text: Path, tmp_path: Path) -> None:
    monkeypatch.setattr(gptq, "check_packages", lambda: None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(DeviceError, match="GPTQ quantizes on a GPU"):
        gptq.quantize_gptq(model_folder(), tmp_path / "out", calibration=text)
    assert not (tmp_path / "out").exists()


def test_a_stored_model_asks_for_the_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import json
    import shutil

    folder = tmp_path / "mini"
    shutil.copytree(model_folder(), folder, ignore=shutil.ignore_patterns(RECORD))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "gptq"}}))
    monkeypatch.setattr(gptq, "find_spec", lambda _: None)
    assert stored(folder) == "gptq"
    with pytest.raises(MissingPackageError, match="GPTQ needs the package optimum"):
        gama.load(folder, runtime="torch")
    with pytest.raises(CheckpointError, match="stored in gptq already"):
        gptq.quantize_gptq(folder, tmp_path / "out", calibration=folder / "config.json")


@pytest.mark.gpu
def test_it_quantizes_and_loads(text: Path, tmp_path: Path) -> None:
    if not all(map(find_spec, ("optimum", "gptqmodel"))):
        pytest.skip("optimum and gptqmodel are not installed: pip install 'gama-audio[gptq]'")
    text.write_text("a dog barks, then a bell rings twice and a car passes by slowly\n" * 32)
    out = tmp_path / "mini-gptq"
    done = gptq.quantize_gptq(model_folder(), out, calibration=text)
    assert done.quantization == "gptq" == stored(out) and done.layers > 0 and done.written < done.read
    assert "dog barks" not in (out / "config.json").read_text()
    loaded = gama.load(out, device="cuda", runtime="torch")
    assert loaded.runtime.quantization == "gptq"
    assert loaded.ask(None, "what happened?", max_new_tokens=8).heard[0].new_tokens >= 1
