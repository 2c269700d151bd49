"""The model that a set of weights makes: sizes from shapes, and weights drawn for parts that nothing gives."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedConfig

from gama.checkpoints.origins import Shape
from gama.errors import CheckpointError
from gama.model.configuration import AggregatorForm, GamaConfig, GamaEncoderConfig, GamaQFormerConfig
from gama.model.gama import GamaForConditionalGeneration

_LTU_TIME_POOL = 2  # original: avg_pool2d(x, (2, 1)) in LlamaModel.forward
_PATCH_ROWS = 8  # frequency patches: 128 mel bins in patches of 16
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError)


def language_config(folder: Path) -> PreTrainedConfig:
    """The configuration of a causal language model's folder.

    Raises:
        CheckpointError: where there is none that transformers reads, or its weights are quantized.
    """
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder}: config.json is missing",
            "copy config.json and the tokenizer's files of the model into it; "
            "those of Llama-2-7b-chat-hf-qformer are the ones of meta-llama/Llama-2-7b-chat-hf",
        )
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except _UNREADABLE as error:
        raise CheckpointError(f"{folder / 'config.json'}: {' '.join(str(error).split())[:300]}") from error
    if config.model_type == "gama":
        raise CheckpointError(f"{folder}: a GAMA model already", "give the language model's own folder as --base")
    if getattr(config, "quantization_config", None):
        raise CheckpointError(f"{folder}: its weights are quantized", "give the base model in 16 or 32 bits")
    config._name_or_path = ""  # no path of this machine in what is written
    return config


def architecture(
    shapes: Mapping[str, Shape], text: PreTrainedConfig, aggregator: AggregatorForm, *, ltu: bool = False
) -> GamaConfig:
    """The configuration whose sizes the weights show; released sizes where no weight tells.

    Args:
        shapes: our name -> shape.
        text: the language model's configuration.
        aggregator: its form, which no shape tells.
        ltu: whether the model has LTU's form: no Q-Former, no aggregator, one linear projector.

    Raises:
        CheckpointError: for an aggregator that LTU's form does not have.
    """
    encoder, qformer = _encoder_sizes(shapes), _qformer_sizes(shapes)
    if ltu:
        if aggregator != "released":
            raise CheckpointError(f"--aggregator {aggregator}: a model of LTU's form has no aggregator", "leave it out")
        audio = GamaEncoderConfig(**encoder, taps=[], time_pool=_LTU_TIME_POOL)
        return GamaConfig(text_config=text, audio_config=audio, qformer_config=None)
    if encoder and not qformer:
        qformer = {k: encoder[k] for k in ("hidden_size", "intermediate_size") if k in encoder}
    if qformer and not encoder:
        encoder = {k: qformer[k] for k in ("hidden_size", "intermediate_size") if k in qformer}
    return GamaConfig(
        text_config=text,
        audio_config=GamaEncoderConfig(**encoder),
        qformer_config=GamaQFormerConfig(**qformer),
        aggregator=aggregator,
    )


def _encoder_sizes(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    sizes: dict[str, Any] = {}
    position = shapes.get("audio_tower.encoder.position")
    patches = shapes.get("audio_tower.encoder.patches.proj.weight")
    feed = shapes.get("audio_tower.encoder.layers.0.fc1.weight")
    if patches and len(patches) == 4:
        sizes |= {"hidden_size": patches[0], "patch_size": patches[-1], "num_mel_bins": _PATCH_ROWS * patches[-1]}
    if position and patches and len(position) == 3:
        sizes["num_frames"] = position[1] // _PATCH_ROWS * patches[-1]
    if feed:
        sizes["intermediate_size"] = feed[0]
    return sizes


def _qformer_sizes(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    sizes: dict[str, Any] = {}
    queries = shapes.get("audio_tower.qformer.query_tokens")
    feed = shapes.get("audio_tower.qformer.layers.0.feed_forward.fc1.weight")
    layers = {m.group(1) for n in shapes if (m := re.match(r"audio_tower\.qformer\.layers\.(\d+)\.", n))}
    if queries and len(queries) == 3:
        sizes |= {"num_query_tokens": queries[1], "hidden_size": queries[2]}
    if feed:
        sizes |= {"intermediate_size": feed[0], "num_hidden_layers": len(layers)}
    return sizes


def expected_shapes(config: GamaConfig) -> tuple[dict[str, Shape], set[str]]:
    """(our name -> shape of every weight of the model, the tied names that need no weight of their own).

    Raises:
        CheckpointError: for a configuration of which no model can be made.
    """
    try:
        with torch.device("meta"):
            model = GamaForConditionalGeneration(config)
    except (ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"no model can be made of these sizes: {reason}", "another kind of base model?"
        ) from error
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    return shapes, set(model.all_tied_weights_keys)


def draw(names: Iterable[str], config: GamaConfig, seed: int) -> dict[str, Tensor]:
    """Weights of the audio side as a new model has them: our name -> float32 tensor, the same for the same seed."""
    wanted = set(names)
    if not wanted:
        return {}
    width = config.text_config.hidden_size
    stub = {"model_type": "llama", "hidden_size": width, "num_hidden_layers": 0, "num_attention_heads": 1}
    small = GamaConfig(
        text_config=stub | {"num_key_value_heads": 1, "intermediate_size": 1, "vocab_size": 8},
        audio_config=config.audio_config,
        qformer_config=config.qformer_config,
        aggregator=config.aggregator,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = GamaForConditionalGeneration(small).state_dict()
    return {name: state[name] for name in sorted(wanted)}
