"""LAION-CLAP checkpoints -> a folder of transformers' ClapModel.

The authors of GAMA share CLAP weights "to be used with LAION-AI/CLAP". HTSAT as the audio tower and RoBERTa as the text
tower have a place in ClapModel; others are refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, ClapConfig, ClapFeatureExtractor, ClapModel

import gama as package
from gama.checkpoints import shards
from gama.checkpoints.combining import Fate, Role, Source, check_kinds, some, source
from gama.checkpoints.conversion import DTYPES, REPORT, Advance, Conversion, source_hashes
from gama.checkpoints.file_hashes import record
from gama.checkpoints.folders import check_output, staged
from gama.checkpoints.opening import opened
from gama.checkpoints.origins import Shape, plain
from gama.errors import CheckpointError

_ROLE: Role = "clap"
_ROBERTA_EPS = 1e-5  # of roberta-base, from which LAION-CLAP starts; ClapTextConfig's own default is another
_HEAD_WIDTH = 64  # of RoBERTa

_DROPPED: tuple[tuple[str, str], ...] = (
    (r"audio_branch\.(spectrogram_extractor|logmel_extractor)\..*", "a constant: the feature extractor computes it"),
    (r"audio_branch\.layers\.\d+\.blocks\.\d+\.attn_mask", "a constant that is computed"),
    (r"audio_branch\.(tscam_conv|head)\..*", "AudioSet's classification head: ClapModel has none"),
    (r"(audio|text)_transform\..*", "a head of the contrastive training: ClapModel has none"),
    (r"attn_mask", "a constant that is computed"),
)
_BLOCK = r"audio_branch\.layers\.(\d+)\.blocks\.(\d+)\."
_OURS = r"audio_model.audio_encoder.layers.\1.blocks.\2."
_RULES: tuple[tuple[str, str], ...] = (
    (r"logit_scale_([at])", r"logit_scale_\1"),
    (r"(audio|text)_projection\.0\.(\w+)", r"\1_projection.linear1.\2"),
    (r"(audio|text)_projection\.2\.(\w+)", r"\1_projection.linear2.\2"),
    (r"text_branch\.(.+)", r"text_model.\1"),
    (r"audio_branch\.bn0\.(\w+)", r"audio_model.audio_encoder.batch_norm.\1"),
    (r"audio_branch\.norm\.(\w+)", r"audio_model.audio_encoder.norm.\1"),
    (r"audio_branch\.patch_embed\.(.+)", r"audio_model.audio_encoder.patch_embed.\1"),
    (r"audio_branch\.layers\.(\d+)\.downsample\.(.+)", r"audio_model.audio_encoder.layers.\1.downsample.\2"),
    (_BLOCK + r"norm1\.(\w+)", _OURS + r"layernorm_before.\3"),
    (_BLOCK + r"norm2\.(\w+)", _OURS + r"layernorm_after.\3"),
    (_BLOCK + r"attn\.(relative_position_\w+)", _OURS + r"attention.self.\3"),
    (_BLOCK + r"attn\.proj\.(\w+)", _OURS + r"attention.output.dense.\3"),
    (_BLOCK + r"attn\.qkv\.(\w+)", _OURS + r"attention.self.{}.\3"),
    (_BLOCK + r"mlp\.fc1\.(\w+)", _OURS + r"intermediate.dense.\3"),
    (_BLOCK + r"mlp\.fc2\.(\w+)", _OURS + r"output.dense.\3"),
)


def clap_names(key: str) -> list[str]:
    """ClapModel's names of a LAION key: one, three for a fused query-key-value, none for an unknown key."""
    for pattern, replacement in _RULES:
        match = re.fullmatch(pattern, key)
        if match:
            name = match.expand(replacement)
            return [name.format(part) for part in ("query", "key", "value")] if "{}" in name else [name]
    return []


def convert_clap(
    path: Path, out: Path, *, tokenizer: Path | None = None, dtype: str | None = None, advance: Advance = lambda _: None
) -> Conversion:
    """Write a ClapModel folder from a LAION-CLAP checkpoint.

    Args:
        path: file, folder or zip archive.
        out: a folder that does not exist yet, or is empty.
        tokenizer: folder of RoBERTa's tokenizer; the checkpoint has none.
        dtype: bf16, fp16 or fp32; as in the source where absent.
        advance: told of bytes read for hashing and of bytes written.

    Raises:
        CheckpointError: for another kind of weights, unknown, missing or misshapen keys, and towers that ClapModel
            does not have.
    """
    check_output(out)
    with ExitStack() as stack:
        given = source(_ROLE, path, stack.enter_context(opened(path, out.parent)).weights)
        check_kinds([given])
        weights, fates = _place(given)
        config = clap_config({name: tuple(tensor.shape) for name, tensor in weights.items()})
        weights |= _computed(weights, config)
        _check(weights, config)
        words = None if tokenizer is None else _tokenizer(tokenizer)
        with staged(out) as folder:
            hashed = source_hashes(given, advance)
            outputs = shards.write(folder, list(_entries(weights, dtype)), advance=advance)
            parameters = sum(t.numel() for t in weights.values() if t.is_floating_point())
            done = Conversion(hashed, fates, [], "none", outputs, parameters)
            config.architectures = ["ClapModel"]
            config.dtype = next(t.dtype for t in weights.values() if t.is_floating_point())
            if dtype is not None:
                config.dtype = DTYPES[dtype]
            config.save_pretrained(folder)
            _write_processor(folder, config, words)
            report = {"gama": package.__version__, **asdict(done)}
            (folder / REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
            record(folder, outputs)
            return done


def _place(given: Source) -> tuple[dict[str, Tensor], list[Fate]]:
    weights: dict[str, Tensor] = {}
    fates: list[Fate] = []
    unknown: list[str] = []
    for key, tensor in given.weights.items():
        name = plain(key)
        reason = next((why for pattern, why in _DROPPED if re.fullmatch(pattern, name)), None)
        names = clap_names(name)
        if reason is not None:
            fates.append(Fate(_ROLE, key, "dropped", reason))
        elif not names:
            unknown.append(key)
        else:
            parts = tensor.chunk(len(names)) if len(names) > 1 else (tensor,)
            weights.update(zip(names, parts, strict=True))
            fates.append(Fate(_ROLE, key, "loaded", ", ".join(names)))
    if unknown:
        raise CheckpointError(
            f"{given.path}: {len(unknown)} key(s) have no place in ClapModel: {some(unknown)}",
            "an audio tower of HTSAT and a text tower of RoBERTa are known",
        )
    return weights, fates


def clap_config(shapes: Mapping[str, Shape]) -> ClapConfig:
    """The configuration whose sizes the weights show.

    Args:
        shapes: ClapModel's name -> shape.

    Raises:
        CheckpointError: where the towers are not HTSAT and RoBERTa.
    """
    try:
        return ClapConfig(
            text_config=_text_sizes(shapes),
            audio_config=_audio_sizes(shapes),
            projection_dim=shapes["audio_projection.linear1.weight"][0],
        )
    except (KeyError, IndexError, ValueError) as error:
        raise CheckpointError(
            f"the towers are not HTSAT and RoBERTa, which alone have a place in ClapModel: {error} is missing"
        ) from error


def _text_sizes(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    vocabulary, width = shapes["text_model.embeddings.word_embeddings.weight"]
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": _layers(shapes, r"text_model\.encoder\.layer\.(\d+)\."),
        "num_attention_heads": max(1, width // _HEAD_WIDTH),
        "intermediate_size": shapes["text_model.encoder.layer.0.intermediate.dense.weight"][0],
        "max_position_embeddings": shapes["text_model.embeddings.position_embeddings.weight"][0],
        "type_vocab_size": shapes["text_model.embeddings.token_type_embeddings.weight"][0],
        "layer_norm_eps": _ROBERTA_EPS,
    }


def _audio_sizes(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    root = "audio_model.audio_encoder"
    stages = _layers(shapes, rf"{re.escape(root)}\.layers\.(\d+)\.")
    tables = [shapes[f"{root}.layers.{i}.blocks.0.attention.self.relative_position_bias_table"] for i in range(stages)]
    width, channels, patch, _ = shapes[f"{root}.patch_embed.proj.weight"]
    return {
        "patch_embeds_hidden_size": width,
        "patch_embed_input_channels": channels,
        "patch_size": patch,
        "patch_stride": [patch, patch],
        "num_mel_bins": shapes[f"{root}.batch_norm.weight"][0],
        "hidden_size": width * 2 ** (stages - 1),
        "num_hidden_layers": stages,
        "depths": [_layers(shapes, rf"{re.escape(root)}\.layers\.{i}\.blocks\.(\d+)\.") for i in range(stages)],
        "num_attention_heads": [table[1] for table in tables],
        "window_size": (math.isqrt(tables[0][0]) + 1) // 2,
        "mlp_ratio": shapes[f"{root}.layers.0.blocks.0.intermediate.dense.weight"][0] / width,
        "qkv_bias": f"{root}.layers.0.blocks.0.attention.self.query.bias" in shapes,
        "enable_fusion": any(".fusion_model." in name for name in shapes),
    }


def _layers(shapes: Mapping[str, Shape], pattern: str) -> int:
    return len({match.group(1) for name in shapes if (match := re.match(pattern, name))})


def _computed(weights: Mapping[str, Tensor], config: ClapConfig) -> dict[str, Tensor]:
    """Buffers of ClapModel that older RoBERTa did not save."""
    ids = torch.arange(config.text_config.max_position_embeddings).unsqueeze(0)
    made = {
        "text_model.embeddings.position_ids": ids,
        "text_model.embeddings.token_type_ids": torch.zeros_like(ids),
    }
    return {name: tensor for name, tensor in made.items() if name not in weights}


def _check(weights: Mapping[str, Tensor], config: ClapConfig) -> None:
    try:
        with torch.device("meta"):
            expected = {name: tuple(t.shape) for name, t in ClapModel(config).state_dict().items()}
    except (ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:
        raise CheckpointError(f"no ClapModel can be made of these sizes: {' '.join(str(error).split())}") from error
    missing = [name for name in expected if name not in weights]
    surplus = [name for name in weights if name not in expected]
    wrong = [
        f"{name} is {tuple(tensor.shape)}, expected {expected[name]}"
        for name, tensor in weights.items()
        if name in expected and tuple(tensor.shape) != expected[name]
    ]
    for what, names in (("are missing", missing), ("fit no place", surplus), ("have another shape", wrong)):
        if names:
            raise CheckpointError(f"{len(names)} weight(s) {what}: {some(names)}")


def _entries(weights: Mapping[str, Tensor], dtype: str | None) -> Iterator[shards.Entry]:
    for name, tensor in weights.items():
        target = DTYPES[dtype] if dtype is not None and tensor.is_floating_point() else tensor.dtype
        yield shards.Entry(name, tuple(tensor.shape), target, lambda tensor=tensor: shards.rows(tensor))  # type: ignore[misc]


def _tokenizer(folder: Path) -> Any:
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder}: no tokenizer can be loaded: {' '.join(str(error).split())[:200]}") from error


def _write_processor(folder: Path, config: ClapConfig, tokenizer: Any) -> None:
    audio = config.audio_config
    truncation = "fusion" if audio.enable_fusion else "rand_trunc"
    ClapFeatureExtractor(
        feature_size=audio.num_mel_bins, frequency_min=50, frequency_max=14_000, truncation=truncation
    ).save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
