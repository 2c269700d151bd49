"""What a stage trains, and where its parts come from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training import tiny

from gama.errors import RecipeError
from gama.model.configuration import GamaConfig
from gama.model.gama import GamaForConditionalGeneration
from gama.training import stages
from gama.training.objectives import Answering, Naming, Tagging, before_targets, describe, head_reads, weighted_mean
from gama.training.recipe import Lora, Recipe


def small(**changes: str) -> GamaForConditionalGeneration:
    torch.manual_seed(0)
    return GamaForConditionalGeneration(GamaConfig(**{**tiny.MODEL, "audio_token_id": 3, **changes}))


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (("projectors",), {"audio_tower.qformer_projector", "audio_tower.aggregator_projector"}),
        (("encoder", "qformer"), {"audio_tower.encoder", "audio_tower.qformer"}),
        (("language_model",), {"language_model"}),
        ((), set()),
    ],
)
def test_only_the_named_parts_learn(names: tuple[str, ...], parts: set[str]) -> None:
    gama = small()
    stages.set_trainable(gama, names)
    ledger = describe(Answering(gama, 0.0, torch.tensor([])))
    assert {part for part, count in ledger.items() if count["trainable"]} == parts
    assert sum(c["trainable"] + c["frozen"] for c in ledger.values()) == sum(p.numel() for p in gama.parameters())


def test_adapters_learn_in_a_frozen_language_model() -> None:
    gama = small()
    stages.add_lora(gama, Lora(r=2, target_modules=("q_proj",)))
    stages.set_trainable(gama, ())
    learning = [n for n, p in gama.named_parameters() if p.requires_grad]
    assert len(learning) == 4  # two layers, A and B
    assert all("q_proj" in n and "lora_" in n for n in learning)
    with pytest.raises(RecipeError, match=r"target_modules \['wq'\] name no layer"):
        stages.add_lora(small(), Lora(target_modules=("wq",)))


def test_what_the_released_aggregator_never_reads_stays_frozen() -> None:
    gama = small(aggregator="released")
    stages.set_trainable(gama, ("encoder",))
    assert not [n for n, p in gama.named_parameters() if "tap_norms" in n and p.requires_grad]


def test_batch_norm_moves_only_while_tagging() -> None:
    gama = small()
    norms = [m for m in gama.audio_tower.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(m.training for _ in [Answering(gama, 0.0, torch.tensor([])).train()] for m in norms)
    assert all(m.training for _ in [Tagging(gama).train()] for m in norms)


def test_a_start_from_nothing_needs_sizes(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"x: no model to start from \(give --from DIR"):
        stages.start(Recipe("x", "text"), {})


def test_clips_without_truth_are_left_out_of_the_naming_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    gama = small().eval()
    objective = Answering(gama, 1.0, torch.tensor([]))
    seen: list[tuple[int, ...]] = []
    monkeypatch.setattr(
        Naming, "forward", lambda self, prefix, *rest: seen.append(tuple(prefix.shape)) or prefix.sum() * 0
    )
    ids = torch.cat([torch.full((2, 96), 3), torch.arange(10, 18).repeat(2, 1)], dim=1)
    inputs = {
        "input_ids": ids,
        "labels": torch.where(ids == 3, -100, ids),
        "weights": torch.ones_like(ids, dtype=torch.float),
        "position_ids": torch.arange(104).repeat(2, 1),
        "attention_mask": torch.ones(2, 1, 104, 104, dtype=torch.bool).tril(),
        "input_features": torch.zeros(2, 1024, 128),
    }
    words = torch.full((2, 96), -100)
    assert torch.isfinite(objective(**inputs, words=words)["loss"])
    assert seen == []
    words[1] = 7
    objective(**inputs, words=words)
    assert seen == [(1, 96, 32)]


def test_cross_entropy_is_weighted_and_survives_no_targets() -> None:
    logits = torch.randn(2, 5, requires_grad=True)
    targets, weights = torch.tensor([2, 4]), torch.tensor([1.0, 3.0])
    each = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(weighted_mean(logits, targets, weights), (each[0] + 3 * each[1]) / 4)
    nothing = weighted_mean(logits[:0], targets[:0], weights[:0])
    nothing.backward()
    assert nothing.item() == 0.0
    assert logits.grad is not None and not logits.grad.any()


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_the_head_reads_the_places_before_targets_alone(family: str) -> None:
    """Same logits as the whole ones, for a language model that caps them behind its head too."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "attn_implementation": "eager"}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes, **heads)).eval()
    labels = torch.tensor([[-100, -100, 7, 8, -100, 9], [5, -100, -100, 6, -100, -100]])
    asked = before_targets(labels)
    assert asked.nonzero().tolist() == [[0, 1], [0, 2], [0, 4], [1, 2]]
    embeds = torch.randn(2, 6, 16)
    whole = model(inputs_embeds=embeds).logits
    with head_reads(model.get_output_embeddings(), asked):
        chosen = model(inputs_embeds=embeds).logits
    assert chosen.shape == (1, 4, 50)
    torch.testing.assert_close(chosen[0], whole[asked])
    assert model(inputs_embeds=embeds).logits.shape == whole.shape  # the hook is gone
