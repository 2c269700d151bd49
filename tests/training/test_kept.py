"""Kept outputs of frozen parts: worth what the parts themselves give, never out of date, computed once."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from training import tiny

from gama.data.collator import AnswerCollator
from gama.data.dataset import ClipDataset
from gama.errors import GamaError, RecipeError
from gama.model.gama import GamaForConditionalGeneration
from gama.training import kept, stages
from gama.training.held_out import split
from gama.training.kept import KeptStore, halve, keep, layout_of, origin
from gama.training.objectives import Answering
from gama.training.recipe import Lora, load_recipe

FROZEN = ("aggregator", "projectors")
NO_LTU = {"qformer_config": None}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_clips(tmp_path_factory.mktemp("clips") / "scenes", 6)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module")
def made() -> tuple[GamaForConditionalGeneration, Any]:
    with pytest.MonkeyPatch.context() as patch:
        tiny.quick_tokenizer(patch)
        return stages.from_nothing(tiny.MODEL | {"aggregator": "released"}, 3)


def tiny_model(made: tuple[GamaForConditionalGeneration, Any], **changes: Any) -> GamaForConditionalGeneration:
    config = copy.deepcopy(made[0].config)
    for name, value in changes.items():
        setattr(config, name, value)
    torch.manual_seed(3)
    return GamaForConditionalGeneration(config)


def dataset(clips: Path, features: Path, augmentation: float = 0.0) -> ClipDataset:
    return ClipDataset([clips], features, seed=1, questions=2, augmentation=augmentation)


def trained(gama: GamaForConditionalGeneration, data: Any, processor: Any, *, bf16: bool) -> tuple[float, Tensor]:
    """Loss and gradient of a step that is the same for the same model and items."""
    objective = Answering(gama, 0.0, torch.tensor([])).train()
    objective.layout = layout_of(gama.audio_tower)
    batch = AnswerCollator(processor)([data[n] for n in (0, 1, 2)])
    gama.zero_grad()
    torch.manual_seed(4)  # the aggregator's dropout
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        loss = objective(**batch)["loss"]
    loss.backward()
    gradients = [p.grad.flatten() for p in gama.parameters() if p.grad is not None]
    return loss.item(), torch.cat(gradients)


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize(
    ("changes", "trainable"),
    [({}, FROZEN), ({"aggregator": "paper"}, FROZEN), ({}, (*FROZEN, "qformer")), (NO_LTU, ("projectors",))],
    ids=["released", "paper", "qformer learns", "no qformer"],
)
def test_a_step_is_worth_the_same(
    made: Any, clips: Path, features: Path, changes: dict[str, Any], trainable: tuple[str, ...], bf16: bool
) -> None:
    gama, processor = tiny_model(made, **changes), made[1]
    if changes == NO_LTU:
        processor = copy.copy(processor)
        processor.num_audio_tokens = gama.config.num_audio_tokens
    stages.set_trainable(gama, trainable)
    plain, quick = dataset(clips, features), dataset(clips, features)
    layout = keep(gama.audio_tower, quick, features, bf16=bf16)
    assert quick[0].fbank is not None and quick[0].fbank.shape == (layout.rows, layout.width)
    assert (layout.queries > 0) == (trainable == FROZEN)
    expected, got = (trained(gama, data, processor, bf16=bf16) for data in (plain, quick))
    # rounding of batches of 6 clips and of 3, and nothing else
    assert got[0] == pytest.approx(expected[0], rel=1e-3 if bf16 else 1e-6)
    torch.testing.assert_close(
        got[1], expected[1], rtol=0, atol=float(expected[1].abs().max()) * (2e-2 if bf16 else 1e-5)
    )
    changed = [part for part in ("encoder", "qformer") if part not in trainable and hasattr(gama.audio_tower, part)]
    assert not [p for part in changed for p in getattr(gama.audio_tower, part).parameters() if p.grad is not None]


def test_what_is_there_is_not_computed_again(
    made: Any, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gama = tiny_model(made)
    stages.set_trainable(gama, FROZEN)
    monkeypatch.setattr(kept, "SHARD", 2)
    seen: list[int] = []

    def stop(count: int) -> None:
        seen.append(count)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep(gama.audio_tower, dataset(clips, tmp_path), tmp_path, bf16=False, progress=stop)
    done: list[int] = []
    data = dataset(clips, tmp_path)
    keep(gama.audio_tower, data, tmp_path, bf16=False, progress=done.append)
    assert (seen, done) == ([2, 2], [2])
    monkeypatch.setattr(kept, "outputs", lambda *_: pytest.fail("computed again"))
    again = dataset(clips, tmp_path)
    keep(gama.audio_tower, again, tmp_path, bf16=False)
    assert all(torch.equal(again[n].fbank, data[n].fbank) for n in range(6))  # type: ignore[arg-type]
    other = pickle.loads(pickle.dumps(data.store))  # as a worker of a loader gets it
    np.testing.assert_array_equal(other[5], data.store[5])


def test_other_weights_have_outputs_of_their_own(made: Any, clips: Path, tmp_path: Path) -> None:
    gama = tiny_model(made)
    stages.set_trainable(gama, FROZEN)
    tower, data = gama.audio_tower, dataset(clips, tmp_path)
    layout = keep(tower, data, tmp_path, bf16=False)
    before, first = origin(tower, layout, bf16=False), data[0].fbank
    with torch.no_grad():
        tower.aggregator.layers[0].feed_forward.fc1.weight.add_(1.0)
    assert origin(tower, layout, bf16=False) == before  # behind what is kept
    assert origin(tower, layout, bf16=True) != before
    with torch.no_grad():
        tower.qformer.layers[0].feed_forward.fc1.weight[0, 0] += 1e-3
    assert origin(tower, layout, bf16=False) != before
    data = dataset(clips, tmp_path)
    keep(tower, data, tmp_path, bf16=False)
    assert first is not None and data[0].fbank is not None and not torch.equal(first, data[0].fbank)
    assert len(list((tmp_path / kept.FOLDER).iterdir())) == 2


def test_processes_share_the_work(made: Any, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gama = tiny_model(made)
    stages.set_trainable(gama, FROZEN)
    monkeypatch.setattr(kept, "SHARD", 2)
    layout, data = layout_of(gama.audio_tower), dataset(clips, tmp_path)
    stores = [KeptStore(data.store, range(6), tmp_path / "kept", layout) for _ in range(2)]
    done: list[list[int]] = [[], []]
    for number, store in enumerate(stores):
        store.compute(gama.audio_tower, bf16=False, share=(number, 2), progress=done[number].append)
    assert done == [[2, 2], [2]]
    stores[0].read_index()
    assert stores[0].missing() == []


def test_damage_is_told_and_mended(made: Any, clips: Path, tmp_path: Path) -> None:
    gama = tiny_model(made)
    stages.set_trainable(gama, FROZEN)
    data = dataset(clips, tmp_path)
    keep(gama.audio_tower, data, tmp_path, bf16=False)
    expected = data.store[0].copy()
    file = next((tmp_path / kept.FOLDER).glob("*/kept-*.safetensors"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    data = dataset(clips, tmp_path)
    keep(gama.audio_tower, data, tmp_path, bf16=False)
    with pytest.raises(GamaError, match="is damaged.*delete it"):
        [data.store[n] for n in range(6)]
    file.write_bytes(content[:1000])  # cut off: not taken for a shard at all
    data = dataset(clips, tmp_path)
    keep(gama.audio_tower, data, tmp_path, bf16=False)
    np.testing.assert_allclose(data.store[0], expected, rtol=1e-6)


def test_held_out_clips_keep_their_fbanks(made: Any, clips: Path, tmp_path: Path) -> None:
    gama = tiny_model(made)
    stages.set_trainable(gama, FROZEN)
    learning, held_out = split(dataset(clips, tmp_path), 0.5)
    layout = keep(gama.audio_tower, learning, tmp_path, bf16=False)
    assert learning[0].fbank is not None and learning[0].fbank.shape == (layout.rows, layout.width)
    assert held_out[0].fbank is not None and held_out[0].fbank.shape == (1024, 128)
    files = (tmp_path / kept.FOLDER).glob("*/kept-*.safetensors")
    assert sum(file.stat().st_size for file in files) // (layout.rows * layout.width * 4) == len(learning)


def test_what_changes_is_not_kept(made: Any, clips: Path, features: Path, tmp_path: Path) -> None:
    gama = tiny_model(made)
    stages.set_trainable(gama, FROZEN)
    with pytest.raises(RecipeError, match="without augmentation"):
        keep(gama.audio_tower, dataset(clips, features, 0.5), tmp_path, bf16=False)
    gama.audio_tower.encoder.config.dropout = 0.1
    with pytest.raises(RecipeError, match="dropout is 0.1"):
        keep(gama.audio_tower, dataset(clips, features), tmp_path, bf16=False)
    gama.audio_tower.encoder.config.dropout = 0.0
    stages.set_trainable(gama, ("encoder",))
    with pytest.raises(RecipeError, match="the encoder learns"):
        keep(gama.audio_tower, dataset(clips, features), tmp_path, bf16=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "changes",
    [{"data": {"augmentation": 0.5, "keep_frozen": True}}, {"trainable": ["encoder"]}, {"objective": "naming"}],
)
def test_a_recipe_that_cannot_keep_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    given = {"data": {"augmentation": 0.0, "keep_frozen": True}} | changes
    with pytest.raises(RecipeError, match="data.keep_frozen is true.*data.keep_frozen=false"):
        load_recipe(tiny.write_stage(tmp_path / "stage.yaml", **given))


def test_halved_matrices_change_no_number(made: Any) -> None:
    gama = tiny_model(made)
    stages.add_lora(gama, Lora(r=2, alpha=4))
    stages.set_trainable(gama, FROZEN, lora=False)
    language_model = gama.language_model.eval()
    embeds = torch.randn(2, 5, 32)

    def said() -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return language_model(inputs_embeds=embeds).logits

    before = said()
    halve(language_model)
    assert torch.equal(said(), before)
    halved = {name for name, parameter in language_model.named_parameters() if parameter.dtype == torch.bfloat16}
    assert "model.layers.0.self_attn.q_proj.base_layer.weight" in halved
    assert "model.layers.1.mlp.down_proj.weight" in halved
    assert not [name for name in halved if "lora_" in name or "norm" in name or "embed" in name or "lm_head" in name]
