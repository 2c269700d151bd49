"""What each part of a stage's model is, which of them learn, and where they come from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gama.bitsandbytes_import import import_bitsandbytes
from gama.errors import MissingPackageError, RecipeError
from gama.export.adapter import CONFIG as ADAPTER_CONFIG
from gama.export.adapter import Adapter, apply, read_adapter
from gama.inference.loading import load_model
from gama.model.gama import GamaForConditionalGeneration
from gama.model.processing import GamaFeatureExtractor, GamaProcessor
from gama.training.model_config import model_config, recipe_errors
from gama.training.recipe import Lora, Recipe

TOKENIZER_SEED = 7
TOKENIZER_TEXTS = 20_000


def parts_of(gama: GamaForConditionalGeneration) -> dict[str, list[nn.Module]]:
    """The modules of each part a recipe can name."""
    tower = gama.audio_tower
    return {
        "encoder": [tower.encoder],
        "aggregator": [tower.aggregator] if tower.has_qformer else [],
        "qformer": [tower.qformer] if tower.has_qformer else [],
        "projectors": [tower.qformer_projector, tower.aggregator_projector] if tower.has_qformer else [tower.projector],
        "prefix_positions": [] if gama.prefix_positions is None else [gama.prefix_positions],
        "decoder": [*gama.language_model.get_decoder().layers, gama.language_model.get_decoder().norm],
        "language_model": [gama.language_model],
    }


def set_trainable(gama: GamaForConditionalGeneration, names: Iterable[str], *, lora: bool = True) -> None:
    """Let the named parts learn, and LoRA unless it is to stay as it is; freeze the rest."""
    gama.requires_grad_(False)
    parts = parts_of(gama)
    for name in names:
        for module in parts[name]:
            module.requires_grad_(True)
    if gama.config.aggregator == "released":
        gama.audio_tower.encoder.tap_norms.requires_grad_(False)  # read by nothing in this form
    for name, parameter in gama.named_parameters():
        if ".lora_" in name:
            parameter.requires_grad_(lora)


def add_lora(gama: GamaForConditionalGeneration, lora: Lora) -> None:
    """Put fresh adapters into the language model (peft)."""
    with suppress(MissingPackageError):
        import_bitsandbytes()  # before peft imports it
    from peft import LoraConfig, inject_adapter_in_model

    suffixes = tuple(lora.target_modules)
    targets = [n for n, m in gama.language_model.named_modules() if isinstance(m, nn.Linear) and n.endswith(suffixes)]
    if not targets:
        raise RecipeError(f"lora.target_modules {list(suffixes)} name no layer of the language model")
    config = LoraConfig(r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets)
    inject_adapter_in_model(config, gama.language_model)


def has_lora(gama: GamaForConditionalGeneration) -> bool:
    """Whether there are adapters in the language model."""
    return any(".lora_" in name for name, _ in gama.language_model.named_parameters())


def carry_on(gama: GamaForConditionalGeneration, adapter: Adapter, lora: Lora | None) -> None:
    """Put the adapters of the stage before into the language model, to be trained on.

    Args:
        gama: without LoRA.
        adapter: what the stage before wrote.
        lora: what the recipe says; only its dropout may differ. None to keep them as they are.

    Raises:
        RecipeError: where the recipe wants other adapters.
    """
    apply(gama, adapter)
    if lora is None:
        return
    wanted = {n for n, m in gama.language_model.named_modules() if n.endswith(tuple(lora.target_modules))}
    if (adapter.rank, adapter.config["lora_alpha"]) != (lora.r, lora.alpha) or wanted != set(adapter.pairs):
        raise RecipeError(
            f"{adapter.folder}: its LoRA has rank {adapter.rank}, alpha {adapter.config['lora_alpha']} in "
            f"{len(adapter.pairs)} modules; the recipe's has {lora.r}, {lora.alpha} in {len(wanted)}",
            "one adapter is carried on with save: adapter; save: merged adds it to the weights and draws a new one",
        )
    gama.language_model.peft_config["default"].lora_dropout = lora.dropout
    for module in gama.language_model.modules():
        for dropout in getattr(module, "lora_dropout", {}).values():
            dropout.p = lora.dropout


def merge_lora(gama: GamaForConditionalGeneration) -> None:
    """Add the adapters to the weights and take them out."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(gama.language_model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, leaf = name.rpartition(".")
            setattr(gama.language_model.get_submodule(parent), leaf, module.get_base_layer())
    if hasattr(gama.language_model, "peft_config"):
        del gama.language_model.peft_config  # peft warns of it when others are put in


def start(recipe: Recipe, parents: Mapping[str, Path]) -> tuple[GamaForConditionalGeneration, GamaProcessor]:
    """The model a stage begins with.

    Args:
        recipe: the stage.
        parents: folder of the model that ``audio_tower`` and ``language_model`` each come from; empty to start from
            nothing with ``recipe.model``. LoRA of the language model is carried on, or added to its weights where
            the recipe says ``save: merged``.
    """
    if not parents:
        if "text_config" not in recipe.model:
            raise RecipeError(
                f"{recipe.name}: no model to start from", "give --from DIR, or the recipe starts_from or model"
            )
        return from_nothing(recipe.model, int(recipe.training.get("seed", 42)))
    source = parents["language_model"]
    gama, processor = _loaded(source, recipe)
    if (source / ADAPTER_CONFIG).is_file():
        if recipe.save == "adapter":
            carry_on(gama, read_adapter(source), recipe.lora)
        else:
            apply(gama, read_adapter(source))
            merge_lora(gama)
    tower = parents["audio_tower"]
    if tower != source:
        other, _ = load_model(tower, quant="none", device="cpu", dtype="float32", adapter=False)
        gama.audio_tower.load_state_dict(other.audio_tower.state_dict(), strict=True)
        heard = other.config.lineage  # the two may share their first stages
        gama.config.lineage = heard + [entry for entry in gama.config.lineage if entry not in heard]
    return gama, processor


def _loaded(source: Path, recipe: Recipe) -> tuple[GamaForConditionalGeneration, GamaProcessor]:
    """The model of a folder; with ``quant`` its language model in few bits, on the device where it will train."""
    if recipe.quant == "none":
        return load_model(source, quant="none", device="cpu", dtype="float32", adapter=False)
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    gama, processor = load_model(source, quant=recipe.quant, device=device, dtype="float32", adapter=False)
    # peft asks the model that it changes
    gama.language_model.is_loaded_in_4bit = recipe.quant == "4bit"
    gama.language_model.is_loaded_in_8bit = recipe.quant == "8bit"
    del gama.config.quantization_config  # what the stage leaves names the base, which is not quantized
    if recipe.quant == "4bit" and recipe.training.get("bf16"):
        for module in gama.language_model.modules():
            if hasattr(module, "compute_dtype"):
                module.compute_dtype, module.compute_type_is_set = torch.bfloat16, True
    return gama, processor


def from_nothing(model: Mapping[str, Any], seed: int) -> tuple[GamaForConditionalGeneration, GamaProcessor]:
    """A model of random weights and a tokenizer trained on the words of scenes.

    Raises:
        RecipeError: for sizes that make no model.
    """
    import tempfile

    from transformers import AutoTokenizer

    from gama.data.tokenizer import corpus, train_tokenizer

    vocabulary = model_config(model).text_config.vocab_size
    with tempfile.TemporaryDirectory() as folder:
        train_tokenizer(corpus(TOKENIZER_SEED, TOKENIZER_TEXTS), vocab_size=vocabulary, out=Path(folder))
        tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(seed)
    config = model_config(model, audio_token_id=tokenizer.convert_tokens_to_ids("<audio>"))
    with recipe_errors():
        gama = GamaForConditionalGeneration(config)
    extractor = GamaFeatureExtractor(
        feature_size=config.audio_config.num_mel_bins, num_frames=config.audio_config.num_frames
    )
    processor = GamaProcessor(
        extractor, tokenizer, audio_token_id=config.audio_token_id, num_audio_tokens=config.num_audio_tokens
    )
    return gama, processor


def match_heads(gama: GamaForConditionalGeneration) -> None:
    """Start half of each layer's attention heads with equal query and key weights.

    Such heads look for what they see, which is how the look-up of a word in the prefix begins.
    """
    for layer in gama.language_model.get_decoder().layers:
        attention = layer.self_attn
        half = attention.q_proj.weight.shape[0] // 2
        with torch.no_grad():
            attention.k_proj.weight[:half] = attention.q_proj.weight[:half]
