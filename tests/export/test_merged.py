"""The language model alone, LoRA added, and the audio tower beside it: together they are the model they came from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from checkpoints import small as released
from click.testing import CliRunner
from export.lora import write_lora, write_model
from export.test_adapter import IDS, by_hand, said
from model import small
from transformers import AutoModelForCausalLM, AutoTokenizer

from gama.checkpoints.conversion import Request, convert
from gama.checkpoints.original import load_original
from gama.errors import CheckpointError
from gama.export import merged as module
from gama.export.adapter import export_adapter
from gama.export.merged import export_merged, join, load_audio_tower
from gama.export.text_parity import compare, probe
from gama.model.processing import GamaProcessor
from gama_cli.export_adapter import merged as command


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with LoRA in its folder."""
    folder = tmp_path_factory.mktemp("lora") / "model"
    write_model(folder)
    return write_lora(folder, folder)


@pytest.fixture(scope="module")
def written(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("merged") / "out"
    parity = export_merged(model, output)
    assert parity.greedy_agreement == 1.0 and parity.max_abs_delta_logit < 1e-4
    return output


def test_prefix_and_plain_language_model_are_the_model(model: Path, written: Path) -> None:
    """As another server would use it: prefix from the tower, then token embeddings, into AutoModelForCausalLM."""
    front, processor = load_audio_tower(written / "audio_tower")
    plain = AutoModelForCausalLM.from_pretrained(written / "language_model").eval()
    with torch.no_grad():
        prefix = front.get_audio_features(small.fbanks(1)).pooler_output
        text = plain.get_input_embeddings()(torch.tensor([IDS[small.SOFT :]]))
        logits = plain(inputs_embeds=torch.cat([prefix, text], dim=1)).logits
    torch.testing.assert_close(logits, said(by_hand(model)), atol=1e-4, rtol=1e-4)
    assert processor.num_audio_tokens == small.SOFT


def test_the_language_model_is_a_plain_folder(model: Path, written: Path) -> None:
    folder = written / "language_model"
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"] and config["model_type"] == "llama"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer("a door").input_ids == AutoTokenizer.from_pretrained(model)("a door").input_ids
    assert not {"processor_class", "local_files_only", "auto_map"} & set(
        json.loads((folder / "tokenizer_config.json").read_text())
    )
    assert "<audio>" in AutoTokenizer.from_pretrained(model).get_vocab()
    assert "<audio>" not in tokenizer.get_vocab()
    assert not any("gama" in file.read_text().lower() for file in folder.glob("*.json*"))
    _, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    assert not any("lora" in path.name or "adapter" in path.name for path in written.rglob("*"))


def test_the_audio_tower_is_no_model(written: Path) -> None:
    """Its folder was loaded with a random language model, with nothing but a report of missing weights."""
    with pytest.raises(OSError, match=r"model\.safetensors"):
        AutoModelForCausalLM.from_pretrained(written / "audio_tower")


def test_report(written: Path) -> None:
    report = json.loads((written / "parity.json").read_text())
    assert report["kind"] == "merged" and report["license"] == "mit" and report["adapter"].endswith("model")
    assert report["compute_dtype"] == report["stored_dtype"] == "float32"
    assert (report["prompts"], report["tokens"]) == (2, 32)


def test_the_report_sees_what_is_wrong(model: Path) -> None:
    right = by_hand(model)
    processor = GamaProcessor.from_pretrained(model)
    probes = probe(right, processor)
    assert compare(right, probes, stored=torch.float32).max_abs_delta_logit == 0.0
    with torch.no_grad():
        right.language_model.lm_head.weight[77] += 1.0
    assert compare(right, probes, stored=torch.float32).max_abs_delta_logit > 0.01
    with torch.no_grad():
        right.language_model.lm_head.weight.mul_(-1.0)
    assert compare(right, probes, stored=torch.float32).greedy_agreement < 0.5
    with torch.no_grad():
        right.language_model.lm_head.weight[0] = torch.nan
    with pytest.raises(CheckpointError, match="no numbers"):
        compare(right, probes, stored=torch.float32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_precision_stays_as_it_is_stored(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = write_model(tmp_path / "model", dtype=dtype)
    write_lora(folder, folder)
    parity = export_merged(folder, tmp_path / "out")
    assert parity.compute_dtype == "float32" and f"torch.{parity.stored_dtype}" == str(dtype)
    assert 0 < parity.max_abs_delta_logit < 0.5  # the sum is rounded once
    joined = join(tmp_path / "out", dtype=dtype)
    assert {p.dtype for p in joined.parameters()} == {dtype}
    config = json.loads((tmp_path / "out" / "language_model" / "config.json").read_text())
    assert f"torch.{config['dtype']}" == str(dtype)


def test_another_precision(model: Path, tmp_path: Path) -> None:
    parity = export_merged(model, tmp_path / "out", dtype="bfloat16")
    assert parity.stored_dtype == "bfloat16"
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "language_model")
    assert next(plain.parameters()).dtype == torch.bfloat16


@pytest.mark.parametrize("family", ["qwen3", "tied"])
def test_other_language_models_without_lora(tmp_path: Path, family: str) -> None:
    folder = write_model(tmp_path / "model", family=family)
    parity = export_merged(folder, tmp_path / "out")
    assert parity.max_abs_delta_logit < 1e-5 and parity.greedy_agreement == 1.0
    assert json.loads((tmp_path / "out" / "parity.json").read_text())["adapter"] is None


def test_a_released_checkpoint_whose_adapter_was_kept(tmp_path: Path) -> None:
    stage = released.write_stage(tmp_path / "pytorch_model.bin")
    base = released.write_base(tmp_path / "base")
    convert(Request(audio=(stage,), base=base, keep_adapter=True), tmp_path / "kept")
    assert export_adapter(tmp_path / "kept", tmp_path / "lora", with_base=True).greedy_agreement == 1.0
    parity = export_merged(tmp_path / "kept", tmp_path / "merged")
    assert parity.greedy_agreement == 1.0 and parity.max_abs_delta_logit < 1e-4
    merged = load_original(released.tiny_state_dict(), released.tiny_config(), lora="merge")
    for name, tensor in (
        AutoModelForCausalLM.from_pretrained(tmp_path / "merged" / "language_model").state_dict().items()
    ):
        torch.testing.assert_close(tensor, merged.language_model.state_dict()[name], atol=1e-6, rtol=0)


def test_an_error_leaves_nothing(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device", "model.safetensors")

    monkeypatch.setattr(module, "write_audio_tower", broken)
    with pytest.raises(OSError, match="No space"):
        export_merged(model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_tower_with_other_weights(written: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for file in (written / "audio_tower").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "audio_tower.safetensors")
    weights.pop("audio_tower.encoder.position")
    save_file(weights, tmp_path / "audio_tower.safetensors")
    with pytest.raises(CheckpointError, match=r"1 weight.*encoder.position"):
        load_audio_tower(tmp_path)


def test_command(model: Path, tmp_path: Path, runner: CliRunner) -> None:
    result = runner.invoke(command, ["--model", str(model), "-o", str(tmp_path / "out"), "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["path"] == str(tmp_path / "out") and told["greedy_agreement"] == 1.0
