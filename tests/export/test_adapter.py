"""LoRA as a PEFT folder: what peft makes of it is the model it came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from export.lora import ALPHA, RANK, halves, write_lora, write_model
from model import small
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from gama.errors import CheckpointError
from gama.export.adapter import export_adapter, open_source, read_adapter
from gama.model.gama import GamaForConditionalGeneration
from gama_cli.export_adapter import adapter as command

IDS = small.clip(261) + [1, 50, 51, 52, 90]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with LoRA in its folder."""
    folder = tmp_path_factory.mktemp("lora") / "model"
    write_model(folder)
    return write_lora(folder, folder)


@torch.no_grad()
def said(gama: GamaForConditionalGeneration) -> Tensor:
    return small.logits(gama.eval(), IDS, audio_values=small.fbanks(1))


def by_hand(folder: Path) -> GamaForConditionalGeneration:
    """The model with alpha / rank · B A added to its weights, without peft."""
    base = folder.parent / "by-hand"
    if not base.exists():
        base.mkdir()
        for file in folder.iterdir():
            if not file.name.startswith("adapter"):
                (base / file.name).symlink_to(file)
    gama = GamaForConditionalGeneration.from_pretrained(base)
    made = halves(gama)
    for name, module in gama.language_model.named_modules():
        if f"{name}.lora_A" in made:
            module.weight.data += ALPHA / RANK * made[f"{name}.lora_B"] @ made[f"{name}.lora_A"]
    return gama


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated")  # peft 0.21 on transformers 5.23
def test_peft_puts_it_onto_the_language_model(model: Path, tmp_path: Path) -> None:
    parity = export_adapter(model, tmp_path / "out", with_base=True)
    assert parity.greedy_agreement == 1.0 and parity.max_abs_delta_logit < 1e-4
    assert parity.positions > 2 * 16 and parity.tokens == 32
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "language_model")
    whole = by_hand(model)
    before = said(whole)
    whole.language_model = plain
    assert (said(whole) - before).abs().max() > 0.1  # LoRA does something
    whole.language_model = PeftModel.from_pretrained(plain, tmp_path / "out")
    torch.testing.assert_close(said(whole), before, atol=1e-4, rtol=1e-4)


def test_what_is_written(model: Path, tmp_path: Path) -> None:
    export_adapter(model, tmp_path / "out", base="meta-llama/Llama-2-7b-chat-hf")
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.name != "README.md") == [
        *("adapter_config.json", "adapter_model.safetensors", "parity.json")
    ]  # fmt: skip
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "meta-llama/Llama-2-7b-chat-hf"
    assert sorted(config["target_modules"]) == ["q_proj", "v_proj"]
    assert (config["r"], config["lora_alpha"], config["task_type"]) == (RANK, ALPHA, "CAUSAL_LM")
    weights = load_file(tmp_path / "out" / "adapter_model.safetensors")
    expected = halves(GamaForConditionalGeneration.from_pretrained(by_hand(model) and model.parent / "by-hand"))
    assert set(weights) == {f"base_model.model.{name}.weight" for name in expected}
    for name, tensor in expected.items():
        assert torch.equal(weights[f"base_model.model.{name}.weight"], tensor)
    report = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert report["kind"] == "adapter" and report["license"] == "mit" and report["rank"] == RANK
    assert not (tmp_path / "out.part").exists()


@pytest.mark.parametrize(
    "key",
    ["base_model.model.{}.default.weight", "base_model.model.{}.weight", "language_model.{}.weight", "{}.weight"],
)
def test_names_with_and_without_prefixes(model: Path, tmp_path: Path, key: str) -> None:
    found = read_adapter(write_lora(tmp_path / "lora", model.parent / "model", key=key))
    assert all(name.startswith("model.layers.") for name in found.pairs)
    assert set(found.pairs) == set(read_adapter(model).pairs)


def test_in_the_folder_below_it_or_elsewhere(model: Path, tmp_path: Path) -> None:
    bare = write_model(tmp_path / "bare")
    assert open_source(bare).adapter is None
    elsewhere = write_lora(tmp_path / "elsewhere", bare)
    assert open_source(bare, elsewhere).adapter is not None
    write_lora(bare / "adapter", bare)
    below = open_source(bare).adapter
    assert below is not None and below.folder == bare / "adapter"


def test_a_model_without_lora(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no LoRA: a training stage adds it.*--adapter DIR"):
        export_adapter("mini", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_layers_of_that_shape(model: Path, tmp_path: Path) -> None:
    other = write_model(tmp_path / "other", family="tied")
    with pytest.raises(CheckpointError, match=r"48 x 48|24 x 48") as error:
        export_adapter(other, tmp_path / "out", adapter=model)
    assert "another base model" in str(error.value)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.part").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "LOHA"}, "type 'LOHA'"),
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"r": 8}, "says rank 8"),
        ({"r": None}, "no rank"),
    ],
)
def test_other_than_plain_lora(model: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_adapter(write_lora(tmp_path / "lora", model, **changes))


def test_broken_files(model: Path, tmp_path: Path) -> None:
    lora = write_lora(tmp_path / "lora", model)
    weights = load_file(lora / "adapter_model.safetensors")
    (lora / "adapter_model.safetensors").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_adapter(lora)
    for name, message in (("lora_B", "only one of its two"), ("", "holds no weights")):
        from safetensors.torch import save_file

        kept = {n: t for n, t in weights.items() if name and not (name in n and "layers.0.self_attn.q_proj" in n)}
        save_file(kept, lora / "adapter_model.safetensors")
        with pytest.raises(CheckpointError, match=message):
            read_adapter(lora)
    (lora / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="adapter_model.safetensors is missing"):
        read_adapter(lora)


def test_command(model: Path, tmp_path: Path, runner: CliRunner) -> None:
    result = runner.invoke(command, ["--model", str(model), "-o", str(tmp_path / "out"), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{tmp_path / 'out'}\nmax |Δlogit| ")
    assert "greedy agreement 100.0% of 32 tokens" in result.stdout
    again = runner.invoke(command, ["--model", str(model), "-o", str(tmp_path / "out")])
    assert isinstance(again.exception, CheckpointError) and "exists" in str(again.exception)
