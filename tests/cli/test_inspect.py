"""``gama inspect``: every kind is told from keys and shapes; nothing in a file runs."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import small
from click.testing import CliRunner, Result
from parity.original import PREFIX, tiny_state_dict

from gama.checkpoints.bundled import model_folder
from gama_cli.main import cli


def inspect(runner: CliRunner, *words: str | Path) -> Result:
    return runner.invoke(cli, ["inspect", *map(str, words)])


def found(runner: CliRunner, path: Path) -> dict[str, Any]:
    result = inspect(runner, path, "--json")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    return json.loads(result.stdout)


def encoder(prefix: str = "") -> dict[str, torch.Tensor]:
    root = f"{PREFIX}model.audio_encoder."
    weights = small.stage_weights()
    return {prefix + k.removeprefix(root): t for k, t in weights.items() if k.startswith(root) and ".norm_" not in k}


def kinds() -> dict[str, dict[str, Any]]:
    """Each kind as the file of its makers."""
    stage = small.stage_weights()
    lora = {k.replace(".default.", "."): t for k, t in stage.items() if "lora" in k}
    whisper = {f"{PREFIX}model.audio_encoder.time_tr.attn.query.weight": torch.rand(8, 8)}
    projector = {f"{PREFIX}model.audio_proj.1.weight": torch.rand(64, 8)}
    qformer = {k.removeprefix(f"{PREFIX}model."): t for k, t in stage.items() if "ormer.bert" in k or "query_tok" in k}
    return {
        "gama": stage,
        "lora": lora,
        "ltu": small.ltu_weights(),
        "ltu-as": whisper | projector | lora,
        "cavmae": encoder("module.") | {"module.blocks_v.0.norm1.bias": torch.rand(4)},
        "lavis": {"model": qformer | {"ln_vision.bias": torch.rand(48), "temp": torch.tensor(0.1)}, "epoch": 57},
        "clap": {
            "state_dict": {"module.audio_branch.bn0.weight": torch.rand(4), "module.logit_scale_a": torch.rand(())}
        },
        "language model": small.base_weights(),
        "unknown": {"conv1.weight": torch.rand(3, 3)},
    }


@pytest.mark.parametrize("kind", kinds())
def test_kinds(kind: str, runner: CliRunner, tmp_path: Path) -> None:
    torch.save(kinds()[kind], tmp_path / "any-name.bin")
    report = found(runner, tmp_path / "any-name.bin")
    assert report["kind"] == kind
    assert report["unknown"] == []


def test_the_parts_of_a_stage_checkpoint(runner: CliRunner, tmp_path: Path) -> None:
    report = found(runner, small.write_stage(tmp_path / "pytorch_model.bin"))
    parts = {part["name"]: part for part in report["components"]}
    assert list(parts) == [
        "LoRA",
        "audio encoder",
        "Q-Former",
        "aggregator",
        "Q-Former projector",
        "aggregator projector",
    ]
    tensors = small.stage_weights()
    assert report["tensors"] == len(tensors)
    assert report["parameters"] == sum(t.numel() for t in tensors.values() if t.is_floating_point())
    assert parts["LoRA"]["tensors"] == 8 and parts["LoRA"]["dtypes"] == ["float32"]
    assert sum(part["dead_tensors"] for part in parts.values()) == sum(report["dead"].values()) == 132
    assert report["facts"] == {"language_model_width": 64, "queries": 32, "lora_rank": 8, "lora_modules": 4}
    assert report["missing"] == ["language model"]


def test_the_full_size_counts(shared: Path, runner: CliRunner, tmp_path: Path) -> None:
    """Against the reference's facts: 708 tensors, 132 dead ones of 14.3 M numbers, 4.2 M of LoRA."""
    from gama.checkpoints import inspection
    from gama.checkpoints.origins import component

    rows = json.loads((shared / "reference" / "manifest_full.json").read_text())["keys"]
    shapes = {key: torch.Size(shape) for key, shape, _, _, saved, _ in rows if saved}
    names = {key: key.removeprefix(PREFIX) for key in shapes}
    dead = [key for key, name in names.items() if inspection._dead(name, "gama", {})]
    assert len(shapes) == 708
    assert len(dead) == 132
    assert sum(shapes[key].numel() for key in dead) == 14_252_544
    assert sum(shapes[k].numel() for k, name in names.items() if component(name) == "LoRA") == 4_194_304
    assert sum(shapes[k].numel() for k, name in names.items() if component(name) == "audio encoder") == 85_724_160


def test_stage_1_has_no_lora(runner: CliRunner, tmp_path: Path) -> None:
    weights = {k: t for k, t in small.stage_weights().items() if "lora" not in k}
    assert "stage 1" in found(runner, small.write_stage(tmp_path / "a.bin", weights))["title"]
    assert "stage 2 to 5" in found(runner, small.write_stage(tmp_path / "b.bin"))["title"]


def test_the_parts_of_an_ltu_checkpoint(runner: CliRunner, tmp_path: Path) -> None:
    weights = small.ltu_weights()
    report = found(runner, small.write_stage(tmp_path / "ltu.bin", weights))
    parts = {part["name"]: part for part in report["components"]}
    assert list(parts) == ["LoRA", "audio encoder", "projector"]
    assert report["tensors"] == len(weights)
    assert sum(report["dead"].values()) == 96
    assert report["facts"] == {"language_model_width": 64, "lora_rank": 8, "lora_modules": 4}
    assert report["missing"] == ["language model"]
    surprise = f"{PREFIX}model.audio_proj.3.weight"
    small.write_stage(tmp_path / "other.bin", weights | {surprise: torch.rand(2)})
    assert found(runner, tmp_path / "other.bin")["unknown"] == [surprise]


def test_a_converted_ltu(runner: CliRunner, tmp_path: Path) -> None:
    stage = small.write_stage(tmp_path / "ltu.bin", small.ltu_weights())
    words = ["--audio", str(stage), "--base", str(small.write_base(tmp_path / "base"))]
    done = runner.invoke(cli, ["convert", *words, "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.stderr
    report = found(runner, tmp_path / "out")
    assert report["kind"] == "ours" and report["title"].startswith("LTU in this project's form")
    assert [part["name"] for part in report["components"]] == ["language model", "audio encoder", "projector"]
    assert report["missing"] == [] and report["dead"] == {} and report["unknown"] == []
    assert "aggregator" not in report["facts"] and report["facts"]["language_model_width"] == 64


def test_a_whole_state_dict_lacks_nothing(runner: CliRunner, tmp_path: Path) -> None:
    torch.save(tiny_state_dict(), tmp_path / "all.bin")
    assert found(runner, tmp_path / "all.bin")["missing"] == []


def test_the_packaged_model(runner: CliRunner) -> None:
    report = found(runner, model_folder())
    assert report["kind"] == "ours"
    assert report["missing"] == []
    assert report["facts"]["aggregator"] == "paper"


def test_an_adapter_beside_the_weights(runner: CliRunner, tmp_path: Path) -> None:
    words = ["--audio", str(small.write_stage(tmp_path / "w.bin")), "--base", str(small.write_base(tmp_path / "base"))]
    done = runner.invoke(cli, ["convert", *words, "--keep-adapter", "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.stderr
    report = found(runner, tmp_path / "out")
    assert [part["tensors"] for part in report["components"] if part["name"] == "LoRA"] == [8]
    assert report["facts"]["lora_rank"] == 8 and report["facts"]["lora_modules"] == 4
    assert report["missing"] == []


def test_a_folder(runner: CliRunner, tmp_path: Path) -> None:
    report = found(runner, small.write_base(tmp_path / "llama"))
    assert report["title"] == "Hugging Face folder of a llama model (LlamaForCausalLM)"
    assert len(report["files"]) == 2


def test_a_checkpoint_folder_of_the_released_trainer(runner: CliRunner, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-46800"
    folder.mkdir()
    small.write_stage(folder / "pytorch_model.bin")
    torch.save({"state": {}}, folder / "optimizer.pt")
    (folder / "trainer_state.json").write_text("{}")
    assert found(runner, folder)["kind"] == "gama"


def test_a_zip_archive(runner: CliRunner, tmp_path: Path) -> None:
    small.write_stage(tmp_path / "w.bin")
    with zipfile.ZipFile(tmp_path / "stage4.zip", "w") as archive:
        archive.write(tmp_path / "w.bin", "stage4_ckpt/pytorch_model.bin")
    report = found(runner, tmp_path / "stage4.zip")
    assert report["kind"] == "gama"
    assert list(report["files"]) == ["pytorch_model.bin"]


def test_unknown_keys_are_listed(runner: CliRunner, tmp_path: Path) -> None:
    small.write_stage(tmp_path / "w.bin", small.stage_weights() | {f"{PREFIX}model.audio_surprise": torch.rand(2)})
    assert found(runner, tmp_path / "w.bin")["unknown"] == [f"{PREFIX}model.audio_surprise"]


def test_what_people_read(runner: CliRunner, tmp_path: Path) -> None:
    torch.save({"model": small.stage_weights(), "optimizer": {}, "epoch": 3}, tmp_path / "w.pth")
    result = inspect(runner, tmp_path / "w.pth")
    assert result.exit_code == 0
    assert "GAMA stage checkpoint" in result.stdout
    assert "132 tensors" in result.stdout
    assert "missing for a whole model: language model" in result.stdout
    assert "left unread: optimizer, epoch" in result.stdout
    assert result.stderr == ""


def test_a_malicious_pickle(runner: CliRunner, tmp_path: Path) -> None:
    mark = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.system, (f"touch {mark}",)

    torch.save({**small.stage_weights(), "extra": Evil()}, tmp_path / "w.bin")
    result = inspect(runner, tmp_path / "w.bin")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ") and "refused" in result.stderr and result.stderr.count("\n") == 1
    assert not mark.exists()


def test_what_is_not_there(runner: CliRunner, tmp_path: Path) -> None:
    assert inspect(runner, tmp_path / "nothing").exit_code == 2
    (tmp_path / "empty").mkdir()
    result = inspect(runner, tmp_path / "empty")
    assert result.exit_code == 1 and "no weights" in result.stderr
