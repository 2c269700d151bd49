"""``gama quantize``: what is stored is what loading makes, and every key of it has its place."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import gama
from gama.bitsandbytes_import import import_bitsandbytes
from gama.checkpoints.bundled import model_folder
from gama.errors import CheckpointError
from gama.quantization import storing
from gama.quantization.kinds import agreed, named, stored
from gama.quantization.settings import held, weight_bytes
from gama.quantization.storing import quantize

QUESTION = "what happened?"


@pytest.fixture(scope="module", params=["4bit", "8bit"])
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """gama-mini, quantized into several shards."""
    out = tmp_path_factory.mktemp("stored") / "mini"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(storing, "SHARD", 3 * 10**6)
        read: list[int] = []
        done = quantize(model_folder(), out, quant=request.param, advance=read.append)
    assert sum(read) == done.read and len(done.files) > 1
    assert done.written == sum(f.stat().st_size for f in out.glob("*.safetensors")) < done.read
    return request.param, out


def test_the_next_start_gives_what_quantizing_while_loading_gives(kept: tuple[str, Path]) -> None:
    quant, out = kept
    assert stored(out) == quant
    now: Any = gama.load(quant=quant)  # type: ignore[call-overload]
    then: Any = gama.load(out)
    assert held(then.model) == quant == then.runtime.quantization
    layers = now.model.config.text_config.num_hidden_layers
    classes = import_bitsandbytes().nn
    kind = {"4bit": classes.Linear4bit, "8bit": classes.Linear8bitLt}[quant]
    linear = {n: m for n, m in then.model.named_modules() if isinstance(m, nn.Linear)}
    few = {name for name, module in linear.items() if isinstance(module, kind)}
    assert len(few) == 7 * layers and all(n.startswith("language_model.model.") for n in few)
    assert {type(linear[n]) for n in linear if n.startswith("audio_tower.")}.isdisjoint({kind})
    ours, theirs = now.model.state_dict(), then.model.state_dict()
    assert ours.keys() == theirs.keys()
    different = [k for k in ours if not torch.equal(ours[k], theirs[k])]
    assert all("quant_state" in k for k in different)  # the precision of products stands in it
    assert {v.dtype for v in ours.values()} == {v.dtype for v in theirs.values()}
    assert weight_bytes(now.model) == weight_bytes(then.model) == then.runtime.weight_bytes
    assert then.ask(None, QUESTION, max_new_tokens=8) == now.ask(None, QUESTION, max_new_tokens=8)


def test_transformers_alone_reads_it(kept: tuple[str, Path]) -> None:
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(kept[1], output_loading_info=True, device_map="cpu")
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert Counter(p.dtype for n, p in model.named_parameters() if "proj.weight" in n and "language" in n).keys() == {
        {"4bit": torch.uint8, "8bit": torch.int8}[kept[0]]
    }


def test_all_but_the_language_model_keeps_its_bits(kept: tuple[str, Path]) -> None:
    before = load_file(model_folder() / "model.safetensors")
    after = {k: v for file in kept[1].glob("*.safetensors") for k, v in load_file(file).items()}
    same = [k for k in before if k in after and before[k].dtype == after[k].dtype]
    assert any(k.startswith("audio_tower.") for k in same)
    assert all(torch.equal(before[k], after[k]) for k in same)
    lost = [k for k in before if k not in same]
    assert all(k.startswith("language_model.model.layers.") and k.endswith("proj.weight") for k in lost)
    config = json.loads((kept[1] / "config.json").read_text())
    assert config["lineage"][-1] == {"gama": gama.__version__, "stage": "quantized", "quantization": kept[0]}
    beside = {"tokenizer.json", "processor_config.json", "generation_config.json", "tokenizer_config.json"}
    assert beside <= {f.name for f in kept[1].iterdir()} and not list(kept[1].glob("*.onnx"))


def test_a_missing_scale_is_told(kept: tuple[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(kept[1], folder)
    scales = {"4bit": ".absmax", "8bit": ".SCB"}[kept[0]]
    file, key = next((f, k) for f in sorted(folder.glob("*.safetensors")) for k in load_file(f) if k.endswith(scales))
    tensors = load_file(file)
    del tensors[key]
    save_file(tensors, file, metadata={"format": "pt"})
    index = folder / "model.safetensors.index.json"
    table = json.loads(index.read_text())
    del table["weight_map"][key]
    index.write_text(json.dumps(table))
    with pytest.raises(CheckpointError, match=str(folder)):
        gama.load(folder)


def test_what_is_refused(kept: tuple[str, Path], tmp_path: Path) -> None:
    quant, out = kept
    other = {"4bit": "8bit", "8bit": "4bit"}[quant]
    with pytest.raises(CheckpointError, match=f"stored in {quant}, {other} was asked for"):
        gama.load(out, quant=other)  # type: ignore[call-overload]
    assert agreed(out, quant) == agreed(out, "none") == quant
    with pytest.raises(CheckpointError, match=f"stored in {quant} already"):
        quantize(out, tmp_path / "again", quant="4bit")
    with pytest.raises(CheckpointError, match="exists already"):
        quantize(model_folder(), out, quant=quant)
    assert list(tmp_path.iterdir()) == []


def test_lora_beside_the_weights_is_not_passed_over(tmp_path: Path) -> None:
    shutil.copytree(model_folder(), tmp_path / "kept")
    (tmp_path / "kept" / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="LoRA beside the weights.*gama export merged"):
        quantize(tmp_path / "kept", tmp_path / "out", quant="4bit")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("language_model.model.norm.weight"), r"lacks 1 weight\(s\): language_model.model.norm.weight"),
        (lambda w: w.update(extra=torch.ones(1)), r"holds unknown 1 weight\(s\): extra"),
        (lambda w: w.update({"language_model.model.norm.weight": torch.ones(3)}), "other shapes for 1"),
    ],
)
def test_weights_that_are_not_the_models(change: Any, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "mini"
    shutil.copytree(model_folder(), folder)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=message):
        quantize(folder, tmp_path / "out", quant="4bit")
    assert [p.name for p in tmp_path.iterdir()] == ["mini"]


def test_quantizations_of_others_are_named() -> None:
    assert named(None, "x") == "none"
    assert named({"quant_method": "gptq", "bits": 4}, "x") == "gptq"
    with pytest.raises(CheckpointError, match="x: its weights are quantized as 'awq'"):
        named({"quant_method": "awq"}, "x")
