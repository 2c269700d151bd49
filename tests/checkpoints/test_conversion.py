"""``convert``: sources of every form become one folder; every key is accounted for, nothing is half written."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from checkpoints import small
from checkpoints.converted import loaded, logits, refusal
from parity.original import PREFIX, tiny_config, tiny_state_dict
from torch import Tensor
from transformers import AutoConfig

from gama.checkpoints import conversion, shards
from gama.checkpoints.conversion import Request, convert
from gama.checkpoints.names import canonical
from gama.checkpoints.original import load_original
from gama.checkpoints.reading import read_shards
from gama.errors import CheckpointError
from gama.inference.loading import load_model
from gama.model.gama import GamaForConditionalGeneration

QUERY = "model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.write_stage(tmp_path_factory.mktemp("stage") / "pytorch_model.bin")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.write_base(tmp_path_factory.mktemp("base") / "Llama-2-7b-chat-hf")


@pytest.fixture(scope="module")
def want() -> Tensor:
    """What the whole state dict computes by way of ``load_original``, which the goldens prove."""
    return logits(load_original(tiny_state_dict(), tiny_config(), lora="merge"))


# -- the released checkpoint -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [False, True], ids=["merged", "adapter kept"])
def test_the_folder_computes_the_same(keep: bool, stage: Path, base: Path, want: Tensor, tmp_path: Path) -> None:
    done = convert(Request(audio=(stage,), base=base, keep_adapter=keep), tmp_path / "out")
    model = loaded(tmp_path / "out")
    slack = {"atol": 2e-5, "rtol": 1e-5} if keep else {"atol": 1e-6, "rtol": 0}  # fp32 rounding of two orders of sums
    torch.testing.assert_close(logits(model), want, **slack)
    assert bool([name for name, _ in model.named_parameters() if "lora_" in name]) is keep
    assert done.adapter == ("kept" if keep else "merged")
    again = GamaForConditionalGeneration.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(logits(again), want, **slack)


SPELLINGS: dict[str, Callable[[str], str]] = {
    "no PEFT prefix": canonical,
    "no adapter name": lambda key: key.replace(".default.", "."),
    "neither": lambda key: canonical(key).replace(".default.", "."),
    "DataParallel": lambda key: f"module.{key}",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_the_keys(spelling: str, base: Path, want: Tensor, tmp_path: Path) -> None:
    weights = {SPELLINGS[spelling](key): tensor for key, tensor in small.stage_weights().items()}
    small.write_stage(tmp_path / "w.bin", weights)
    convert(Request(audio=(tmp_path / "w.bin",), base=base), tmp_path / "out")
    torch.testing.assert_close(logits(loaded(tmp_path / "out")), want, atol=1e-6, rtol=0)


def test_every_key_has_its_fate(stage: Path, base: Path, tmp_path: Path) -> None:
    done = convert(Request(audio=(stage,), base=base), tmp_path / "out")
    given = {("audio", key) for key in small.stage_weights()} | {("base", key) for key in small.base_weights()}
    assert {(fate.role, fate.key) for fate in done.fates} == given
    assert len(done.fates) == len(given)
    report = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert {(f["role"], f["key"]) for f in report["fates"]} == given
    dropped = [f for f in done.fates if f.what == "dropped"]
    assert len(dropped) == 129 and all(f.detail for f in dropped)  # 128 dead ones and position_ids
    names = {f.detail for f in done.fates if f.what == "loaded"}
    assert names == set(read_shards(tmp_path / "out"))


def test_lineage_names_every_source_by_its_hash(stage: Path, base: Path, tmp_path: Path) -> None:
    convert(Request(audio=(stage,), base=base), tmp_path / "out")
    lineage = AutoConfig.from_pretrained(tmp_path / "out").lineage
    assert len(lineage) == 1
    listed = {source["name"]: source for source in lineage[0]["sources"]}
    assert len(listed) == 3
    assert listed["pytorch_model.bin"]["sha256"] == shards.sha256(stage)
    assert listed["pytorch_model.bin"]["bytes"] == stage.stat().st_size
    text = (tmp_path / "out" / "config.json").read_text() + (tmp_path / "out" / "conversion.json").read_text()
    assert str(base.parent) not in text, "a path of this machine is in the folder"


def test_outputs_are_named_by_their_hash(stage: Path, base: Path, tmp_path: Path) -> None:
    done = convert(Request(audio=(stage,), base=base), tmp_path / "out")
    assert done.outputs == {"model.safetensors": shards.sha256(tmp_path / "out" / "model.safetensors")}


@pytest.mark.parametrize(
    ("name", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)]
)
def test_dtype(name: str, dtype: torch.dtype, stage: Path, base: Path, tmp_path: Path) -> None:
    convert(Request(audio=(stage,), base=base, dtype=name), tmp_path / "out")
    assert {tensor.dtype for tensor in read_shards(tmp_path / "out").values()} == {dtype}
    assert GamaForConditionalGeneration.from_pretrained(tmp_path / "out").dtype == dtype


def test_dtypes_stay_as_in_the_sources(stage: Path, tmp_path: Path) -> None:
    half = {key: tensor.half() for key, tensor in small.base_weights().items()}
    folder = small.write_base(tmp_path / "base", half)
    convert(Request(audio=(stage,), base=folder), tmp_path / "out")
    weights = read_shards(tmp_path / "out")
    kinds = {name.split(".")[0]: tensor.dtype for name, tensor in weights.items()}
    assert kinds == {"language_model": torch.float16, "audio_tower": torch.float32}
    a, b = (small.stage_weights()[f"{PREFIX}{QUERY}.lora_{part}.default.weight"] for part in "AB")
    merged = (half[f"{QUERY}.weight"].float() + 2.0 * (b @ a)).half()
    torch.testing.assert_close(weights[f"language_model.{QUERY}.weight"], merged, atol=1e-3, rtol=1e-3)
    assert GamaForConditionalGeneration.from_pretrained(tmp_path / "out").dtype == torch.float16


def test_a_number_too_large_for_fp16(stage: Path, tmp_path: Path) -> None:
    weights = small.base_weights()
    weights["model.norm.weight"] = weights["model.norm.weight"] * 1e6
    folder = small.write_base(tmp_path / "base", weights)
    assert "model.norm.weight" in refusal(Request(audio=(stage,), base=folder, dtype="fp16"), tmp_path)


def test_shards_with_their_index(
    stage: Path, base: Path, want: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD", 400_000)
    monkeypatch.setattr(shards, "BLOCK", 1000)
    done = convert(Request(audio=(stage,), base=base), tmp_path / "out")
    assert len(done.outputs) > 5
    sizes = [(tmp_path / "out" / name).stat().st_size for name in done.outputs]
    assert max(sizes) < 430_000
    # sums over blocks of rows are ordered otherwise: fp32 rounding
    torch.testing.assert_close(logits(loaded(tmp_path / "out")), want, atol=2e-5, rtol=1e-5)


def test_no_block_is_larger_than_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "BLOCK", 4000)
    blocks = list(shards.rows(torch.zeros(97, 100)))
    assert max(block.numel() for block in blocks) <= 1000
    assert sum(len(block) for block in blocks) == 97


def test_pickled_base(stage: Path, want: Tensor, tmp_path: Path) -> None:
    inverse = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.rand(8)}
    folder = small.write_base(tmp_path / "base", small.base_weights() | inverse, shards="bin")
    convert(Request(audio=(stage,), base=folder), tmp_path / "out")
    torch.testing.assert_close(logits(loaded(tmp_path / "out")), want, atol=1e-6, rtol=0)


def test_a_stage_1_file_has_no_lora(base: Path, tmp_path: Path) -> None:
    weights = {k: t for k, t in small.stage_weights().items() if "lora" not in k}
    done = convert(Request(audio=(small.write_stage(tmp_path / "s1.bin", weights),), base=base), tmp_path / "out")
    want = logits(load_original({k: t for k, t in tiny_state_dict().items() if "lora" not in k}, tiny_config()))
    torch.testing.assert_close(logits(loaded(tmp_path / "out")), want, atol=1e-6, rtol=0)
    assert done.adapter == "none"


def test_lora_alone_beside_a_tower(base: Path, want: Tensor, tmp_path: Path) -> None:
    """The end of the released training writes ``adapter_model.bin``; here with an alpha of its own."""
    everything = small.stage_weights()
    tower = small.write_stage(tmp_path / "tower.bin", {k: t for k, t in everything.items() if "lora" not in k})
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    lora = {k.replace(".default.", "."): t / 2 if "lora_B" in k else t for k, t in everything.items() if "lora" in k}
    small.write_stage(adapter / "adapter_model.bin", lora)
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 8, "lora_alpha": 32}))
    convert(Request(audio=(tower, adapter), base=base), tmp_path / "out")
    torch.testing.assert_close(logits(loaded(tmp_path / "out")), want, atol=1e-5, rtol=0)


def test_a_whole_state_dict(base: Path, want: Tensor, tmp_path: Path) -> None:
    """What a trainer without the released filter saves: the language model is in it; the base gives configuration."""
    done = convert(
        Request(audio=(small.write_stage(tmp_path / "w.bin", tiny_state_dict()),), base=base), tmp_path / "out"
    )
    torch.testing.assert_close(logits(loaded(tmp_path / "out")), want, atol=1e-6, rtol=0)
    assert sum(f.detail == "replaced by --audio" for f in done.fates) == len(small.base_weights())


def test_zip_as_downloaded(stage: Path, base: Path, want: Tensor, tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "stage5.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(stage, "stage5_epoch2/pytorch_model.bin")
        archive.writestr("__MACOSX/stage5_epoch2/._pytorch_model.bin", b"x")
    convert(Request(audio=(tmp_path / "stage5.zip",), base=base), tmp_path / "out")
    torch.testing.assert_close(logits(loaded(tmp_path / "out")), want, atol=1e-6, rtol=0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "stage5.zip"]


def test_every_key_of_the_full_model(shared: Path) -> None:
    """The 708 tensors of a real stage checkpoint and LLaMA's own: each has a place or a reason."""
    from gama.checkpoints.architecture import expected_shapes
    from gama.checkpoints.combining import combine, source
    from gama.checkpoints.reading import Weights
    from gama.model.configuration import GamaConfig

    rows = json.loads((shared / "reference" / "manifest_full.json").read_text())["keys"]
    with torch.device("meta"):
        every = {key: torch.empty(shape) for key, shape, *_ in rows}
    saved = {key for key, _, _, _, saved, _ in rows if saved}
    assert len(saved) == 708
    language = {canonical(key): tensor for key, tensor in every.items() if key not in saved}
    made = combine(
        [
            source("base", Path("base"), Weights(language, ())),
            source("audio", Path("pytorch_model.bin"), Weights({key: every[key] for key in saved}, ())),
        ],
        "released",
    )
    expected, tied = expected_shapes(GamaConfig())
    assert made.shapes == expected and not tied
    assert len(made.lora) == 64
    assert len(made.fates) == len(rows)
    computed = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq" for i in range(32)}
    computed.add("model.Qformer.bert.embeddings.position_ids")
    dropped = {canonical(fate.key) for fate in made.fates if fate.what == "dropped"}
    assert computed < dropped
    assert len(dropped) == 128 + len(computed)


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_another_base(stage: Path, tmp_path: Path) -> None:
    changes = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 4}
    halves = {k: t[:32] if t.ndim == 1 else t for k, t in small.base_weights().items()}
    weights = {k: t[tuple(slice(32 if side == 64 else side) for side in t.shape)].clone() for k, t in halves.items()}
    folder = small.write_base(tmp_path / "base", weights)
    (folder / "config.json").write_text(json.dumps(small.language_config(**changes)))
    told = refusal(Request(audio=(stage,), base=folder), tmp_path)
    assert "another base model" in told and "(64, 48), expected (32, 48)" in told


def test_a_base_whose_configuration_is_not_its_own(stage: Path, tmp_path: Path) -> None:
    folder = small.write_base(tmp_path / "base")
    (folder / "config.json").write_text(json.dumps(small.language_config(num_hidden_layers=3)))
    assert "layers.2" in refusal(Request(audio=(stage,), base=folder), tmp_path)
    (folder / "config.json").write_text(json.dumps(small.language_config(num_hidden_layers=1)))
    assert "layers.1" in refusal(Request(audio=(stage,), base=folder), tmp_path)


def damaged(change: Callable[[dict[str, Tensor]], None]) -> dict[str, Tensor]:
    weights = small.stage_weights()
    change(weights)
    return weights


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda w: w.update(surprise=torch.zeros(2)), "surprise"),
        (lambda w: w.pop(f"{PREFIX}model.audio_encoder.norm_a.bias"), "audio_tower.encoder.norm.bias"),
        (lambda w: w.update({f"{PREFIX}model.audio_encoder.norm_a.bias": torch.zeros(47)}), "(47,), expected (48,)"),
        (lambda w: w.update({"model.query_tokens": torch.zeros(1, 32, 48)}), "two keys hold"),
        (lambda w: w.pop(f"{PREFIX}{QUERY}.lora_A.default.weight"), "lacks lora_A or lora_B"),
        (lambda w: w.update({f"{PREFIX}{QUERY}.lora_A.weight": torch.zeros(8, 64)}), "two keys hold lora_A"),
        (lambda w: w.update({f"{PREFIX}{QUERY}.lora_A.default.weight": torch.zeros(64, 8)}), "LoRA of language_model"),
    ],
    ids=["unknown", "missing", "misshapen", "doubled", "lone LoRA", "doubled LoRA", "transposed LoRA"],
)
def test_a_wrong_key_is_named(
    change: Callable[[dict[str, Tensor]], None], told: str, base: Path, tmp_path: Path
) -> None:
    path = small.write_stage(tmp_path / "w.bin", damaged(change))
    assert told in refusal(Request(audio=(path,), base=base), tmp_path)


def test_kinds_of_weights_that_an_option_does_not_take(stage: Path, base: Path, tmp_path: Path) -> None:
    torch.save(small.cavmae(small.stage_weights()), tmp_path / "cavmae.pth")
    assert "CAV-MAE" in refusal(Request(audio=(tmp_path / "cavmae.pth",), base=base), tmp_path)
    assert "LAVIS" in refusal(Request(qformer=stage, base=base), tmp_path)
    assert "stage checkpoint" in refusal(Request(encoder=stage, base=base), tmp_path)


def test_incomplete_bases(stage: Path, tmp_path: Path) -> None:
    folder = small.write_base(tmp_path / "base")
    (folder / "model-00002-of-00002.safetensors").rename(tmp_path / "kept")
    assert "model-00002-of-00002.safetensors" in refusal(Request(audio=(stage,), base=folder), tmp_path)
    (folder / "model.safetensors.index.json").unlink()
    assert "language model lacks" in refusal(Request(audio=(stage,), base=folder), tmp_path)
    (tmp_path / "kept").rename(folder / "model-00002-of-00002.safetensors")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    assert "--tokenizer" in refusal(Request(audio=(stage,), base=folder), tmp_path)
    (folder / "config.json").unlink()
    assert "meta-llama/Llama-2-7b-chat-hf" in refusal(Request(audio=(stage,), base=folder), tmp_path)


def test_a_tokenizer_of_its_own(stage: Path, tmp_path: Path) -> None:
    folder = small.write_base(tmp_path / "base")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    small.tokenizer().save_pretrained(tmp_path / "words")
    convert(Request(audio=(stage,), base=folder, tokenizer=tmp_path / "words"), tmp_path / "out")
    _, processor = load_model(tmp_path / "out", quant="none", device="cpu", dtype="float32")
    assert processor.tokenizer("dog").input_ids == small.tokenizer()("dog").input_ids


# -- interruption ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", [0, 1_000, 1_500_000, 3_000_000])
def test_interruption_leaves_nothing(when: int, stage: Path, base: Path, tmp_path: Path) -> None:
    seen = 0

    def advance(count: int) -> None:
        nonlocal seen
        seen += count
        if seen >= when:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(Request(audio=(stage,), base=base), tmp_path / "out", advance=advance)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_conversion_leaves_no_folder_of_the_name(stage: Path, base: Path, tmp_path: Path) -> None:
    """No clean-up runs: what is left has another name, and the next conversion does not mind it."""
    script = (
        "import os, sys; from pathlib import Path; from gama.checkpoints.folders import staged\n"
        "with staged(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'model.safetensors').write_bytes(b'half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "out")], check=False)
    assert done.returncode == -9
    left = sorted(path.name for path in tmp_path.iterdir())
    assert re.fullmatch(r"\.out\.lock \.out\.partial-\S+", " ".join(left))
    convert(Request(audio=(stage,), base=base), tmp_path / "out")
    assert (tmp_path / "out" / "config.json").is_file()
    assert not (tmp_path / ".out.lock").exists()


def test_what_exists_is_not_overwritten(stage: Path, base: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(CheckpointError, match="exists already"):
        convert(Request(audio=(stage,), base=base), tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_full_disk_is_told_first(stage: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    assert "are free" in refusal(Request(audio=(stage,), base=base), tmp_path)
