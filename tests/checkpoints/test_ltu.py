"""LTU's checkpoints: converted, they compute what LTU's code computes; every key has its place or a reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from checkpoints import small
from checkpoints.converted import FBANK, loaded, refusal
from parity.original import PREFIX, tiny_config, tiny_state_dict
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaForCausalLM

from gama.checkpoints.conversion import Conversion, Request, convert
from gama.checkpoints.names import canonical
from gama.checkpoints.original import load_original
from gama.checkpoints.reading import read_shards
from gama.model.configuration import GamaConfig
from gama.model.gama import GamaForConditionalGeneration

WORDS = [1, 17, 80, 9, 200]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.write_stage(tmp_path_factory.mktemp("stage") / "ltu_ori_paper.bin", small.ltu_weights())


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.write_base(tmp_path_factory.mktemp("base") / "vicuna")


@pytest.fixture(scope="module")
def prefix() -> Tensor:
    """LTU's steps from its encoder, which the goldens prove, to the soft tokens (original: ``LlamaModel.forward``)."""
    weights = {canonical(key): tensor for key, tensor in small.ltu_weights().items()}
    with torch.no_grad():
        encoded = load_original(tiny_state_dict(), tiny_config()).hear(FBANK).encoded
        pooled = F.avg_pool2d(encoded.reshape(1, 8, 64, 48).mean(dim=1), (2, 1)) / 50
        normed = F.layer_norm(pooled, (48,))
        return F.linear(normed, weights["model.audio_proj.1.weight"], weights["model.audio_proj.1.bias"])


@pytest.fixture(scope="module")
def want(base: Path, prefix: Tensor) -> Tensor:
    """Logits of the base with LoRA added, the soft tokens in front of everything."""
    language = LlamaForCausalLM.from_pretrained(base).eval()
    weights = {canonical(key): tensor for key, tensor in small.ltu_weights().items()}
    with torch.no_grad():
        for key in [key for key in weights if ".lora_A." in key]:
            module = language.get_submodule(key.split(".lora_A.")[0])
            module.weight += 16 / 8 * weights[key.replace("lora_A", "lora_B")] @ weights[key]
        embeds = torch.cat([prefix, language.get_input_embeddings()(torch.tensor([WORDS]))], dim=1)
        return language(inputs_embeds=embeds).logits


@torch.no_grad()
def logits(model: GamaForConditionalGeneration) -> Tensor:
    ids = torch.tensor([[model.config.audio_token_id] * 32 + WORDS])
    return model(input_ids=ids, audio_values=FBANK).logits


def converted(tmp_path: Path, *audio: Path, **given: object) -> Conversion:
    return convert(Request(audio=audio, **given), tmp_path / "out")  # type: ignore[arg-type]


@pytest.mark.parametrize("keep", [False, True], ids=["merged", "adapter kept"])
def test_it_computes_what_ltu_computes(keep: bool, stage: Path, base: Path, want: Tensor, tmp_path: Path) -> None:
    converted(tmp_path, stage, base=base, keep_adapter=keep)
    model = loaded(tmp_path / "out")
    assert model.config.qformer_config is None and model.config.num_audio_tokens == 32
    assert (model.config.encoder_config.taps, model.config.encoder_config.time_pool) == ([], 2)
    torch.testing.assert_close(logits(model), want, atol=2e-5, rtol=1e-5)  # fp32 rounding of two orders of sums


def test_the_prefix(stage: Path, base: Path, prefix: Tensor, tmp_path: Path) -> None:
    converted(tmp_path, stage, base=base)
    with torch.no_grad():
        got = loaded(tmp_path / "out").get_audio_features(FBANK).pooler_output
    torch.testing.assert_close(got, prefix, atol=1e-5, rtol=1e-5)


def test_a_state_dict_in_memory(want: Tensor) -> None:
    state = {PREFIX + key: tensor for key, tensor in small.base_weights().items()}
    encoder = {**tiny_config().encoder_config.to_dict(), "taps": [], "time_pool": 2}
    config = GamaConfig(text_config=tiny_config().text_config, encoder_config=encoder, qformer_config=None)
    torch.testing.assert_close(logits(load_original(state | small.ltu_weights(), config)), want, atol=2e-5, rtol=1e-5)


def test_every_key_has_its_fate(stage: Path, base: Path, tmp_path: Path) -> None:
    done = converted(tmp_path, stage, base=base)
    given = {("audio", key) for key in small.ltu_weights()} | {("base", key) for key in small.base_weights()}
    assert {(fate.role, fate.key) for fate in done.fates} == given and len(done.fates) == len(given)
    dropped = [fate for fate in done.fates if fate.what == "dropped"]
    assert len(dropped) == 96 and {fate.detail for fate in dropped} == {"norm of another modality: multiplied by 0"}
    places = {fate.key: fate.detail for fate in done.fates if fate.what == "loaded"}
    assert places[f"{PREFIX}model.audio_proj.1.bias"] == "audio_tower.projector.fc.bias"
    assert set(places.values()) == set(read_shards(tmp_path / "out"))
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["qformer_config"] is None
    assert config["lineage"][0]["sources"][-1]["name"] == "ltu_ori_paper.bin"


def test_every_key_of_the_full_model(shared: Path) -> None:
    """LTU's keys in full size: GAMA's encoder and LoRA, 93.07 M numbers with its projector, in front of LLaMA-7B."""
    from gama.checkpoints.architecture import architecture, expected_shapes
    from gama.checkpoints.combining import combine, is_ltu, source
    from gama.checkpoints.reading import Weights

    rows = json.loads((shared / "reference" / "manifest_full.json").read_text())["keys"]
    with torch.device("meta"):
        every = {key: torch.empty(shape) for key, shape, *_ in rows}
        projector = {"weight": torch.empty(4096, 768), "bias": torch.empty(4096)}
    saved = {key for key, _, _, _, saved, _ in rows if saved}
    ltu = {key: every[key] for key in saved if "audio_encoder" in key or "lora" in key}
    ltu = {key: tensor for key, tensor in ltu.items() if ".norm_j." not in key and ".norm_k." not in key}
    ltu |= {f"{PREFIX}model.audio_proj.1.{part}": tensor for part, tensor in projector.items()}
    assert sum(tensor.numel() for tensor in ltu.values()) == 93_065_216
    language = {canonical(key): tensor for key, tensor in every.items() if key not in saved}
    sources = [
        source("base", Path("vicuna"), Weights(language, ())),
        source("audio", Path("ltu_ori_paper.bin"), Weights(ltu, ())),
    ]
    assert [s.kind for s in sources] == ["language model", "ltu"]
    made = combine(sources, "released")
    config = architecture(made.shapes, GamaConfig().text_config, "released", ltu=is_ltu(made, sources))
    expected, tied = expected_shapes(config)
    assert made.shapes == expected and not tied
    assert config.num_audio_tokens == 32 and len(made.lora) == 64


def test_a_whole_state_dict(stage: Path, base: Path, want: Tensor, tmp_path: Path) -> None:
    """The full-finetuned one holds its language model; --base gives configuration and tokenizer."""
    language = {k: t for k, t in small.base_weights().items()}
    whole = {canonical(k): t for k, t in small.ltu_weights().items()} | language
    done = converted(tmp_path, small.write_stage(tmp_path / "full_ft.bin", whole), base=base)
    torch.testing.assert_close(logits(loaded(tmp_path / "out")), want, atol=2e-5, rtol=1e-5)
    assert sum(fate.detail == "replaced by --audio" for fate in done.fates) == len(language)


def test_the_base_with_the_audio_side_in_it(stage: Path, want: Tensor, tmp_path: Path) -> None:
    """``vicuna_ltu``: CAV-MAE with its video side, and here a projector too, beside the language model."""
    side = {
        k.replace("module.", "model.audio_encoder.", 1): t + 1 for k, t in small.cavmae(small.ltu_weights()).items()
    }
    side = {k: t for k, t in side.items() if "audio_proj" not in k}
    side["model.audio_proj.1.weight"] = torch.rand(64, 48)
    folder = small.write_base(tmp_path / "vicuna_ltu", small.base_weights() | side, shards="bin")
    converted(tmp_path, stage, base=folder)
    torch.testing.assert_close(logits(loaded(tmp_path / "out")), want, atol=2e-5, rtol=1e-5)


def test_another_base_for_stage_1(stage: Path, base: Path, tmp_path: Path) -> None:
    done = converted(tmp_path, stage, base=base, stage1=True)
    assert sorted(done.drawn) == ["audio_tower.projector.fc.bias", "audio_tower.projector.fc.weight"]
    assert loaded(tmp_path / "out").config.qformer_config is None
    reasons = {fate.key: fate.detail for fate in done.fates if fate.what == "dropped"}
    assert reasons[f"{PREFIX}model.audio_proj.1.weight"].startswith("drawn anew")


def test_a_qformer_beside_it_makes_gama(stage: Path, base: Path, tmp_path: Path) -> None:
    """Stage 1 of GAMA may start from LTU's encoder."""
    torch.save(small.lavis(small.stage_weights()), tmp_path / "lavis.pth")
    converted(tmp_path, stage, base=base, qformer=tmp_path / "lavis.pth", stage1=True)
    model = loaded(tmp_path / "out")
    assert model.config.num_audio_tokens == 96
    position = small.ltu_weights()[f"{PREFIX}model.audio_encoder.pos_embed_a"]
    assert torch.equal(model.audio_tower.encoder.position, position)


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model.audio_proj.1.bias": None}, "audio_tower.projector.fc.bias"),
        ({"model.audio_proj.1.weight": torch.zeros(80, 48)}, "(80, 48), expected (64, 48)"),
        ({"model.audio_proj.3.weight": torch.zeros(2)}, "audio_proj.3.weight"),
        ({"model.audio_encoder.norm_j.weight": torch.zeros(48)}, "tap_norms"),
    ],
    ids=["missing", "another base", "unknown", "surplus"],
)
def test_a_wrong_key_is_named(change: dict[str, Tensor | None], told: str, base: Path, tmp_path: Path) -> None:
    weights = small.ltu_weights() | {PREFIX + name: tensor for name, tensor in change.items()}
    path = small.write_stage(tmp_path / "w.bin", {k: t for k, t in weights.items() if t is not None})
    assert told in refusal(Request(audio=(path,), base=base), tmp_path)


def test_an_aggregator_is_refused(stage: Path, base: Path, tmp_path: Path) -> None:
    assert "no aggregator" in refusal(Request(audio=(stage,), base=base, aggregator="paper"), tmp_path)


def test_ltu_as_is_recognised_and_refused(base: Path, tmp_path: Path) -> None:
    weights = {
        "model.audio_encoder.time_tr.attn.query.weight": torch.rand(8, 8),
        "model.audio_proj.1.weight": torch.rand(64, 8),
    }
    path = small.write_stage(tmp_path / "ltuas.bin", {PREFIX + name: tensor for name, tensor in weights.items()})
    assert "LTU-AS" in refusal(Request(audio=(path,), base=base), tmp_path)
