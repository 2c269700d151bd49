"""Checkpoints of the released code's form with small sides, as files: a stage checkpoint and a base folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from parity import fill
from parity.original import PREFIX, text_config, tiny_config, tiny_state_dict
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from gama.checkpoints.names import canonical

SAVED = ("lora", "audio", "qformer", "Qformer", "query_tokens")
"""What the released trainer keeps: keys with one of these words."""

POSITION_IDS = f"{PREFIX}model.Qformer.bert.embeddings.position_ids"


def stage_weights() -> dict[str, Tensor]:
    """What ``pytorch_model.bin`` of a stage holds."""
    kept = {k: t for k, t in tiny_state_dict().items() if any(word in k for word in SAVED)}
    return kept | {POSITION_IDS: torch.arange(512)[None]}


def ltu_weights() -> dict[str, Tensor]:
    """What ``ltu_ori_paper.bin`` holds: CAV-MAE without norms of middle layers, one linear projector, LoRA."""
    stage = {k: t for k, t in stage_weights().items() if "audio_encoder" in k or "lora" in k}
    kept = {k: t for k, t in stage.items() if not any(norm in k for norm in (".norm_j.", ".norm_k."))}
    config = tiny_config()
    sides = config.text_config.hidden_size, config.encoder_config.hidden_size
    projector = {"weight": sides, "bias": sides[:1]}
    names = {f"{PREFIX}model.audio_proj.1.{part}": shape for part, shape in projector.items()}
    return kept | {name: torch.from_numpy(fill.weights(name, shape)) for name, shape in names.items()}


def base_weights() -> dict[str, Tensor]:
    """The language model's weights by their own names."""
    state = tiny_state_dict(prefix="")
    return {k: t for k, t in state.items() if not any(word in k for word in SAVED)}


def language_config(**changes: object) -> dict[str, object]:
    """config.json of the small LLaMA."""
    config = tiny_config().text_config
    sizes = {name: getattr(config, name) for name in text_config() if name != "model_type"}
    return {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **sizes, **changes}


def tokenizer() -> PreTrainedTokenizerFast:
    """256 tokens: <unk>, <s>, </s> and bytes."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())[:253]
    words = {word: index for index, word in enumerate(["<unk>", "<s>", "</s>", *letters])}
    made = Tokenizer(models.BPE(words, [], unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def write_stage(path: Path, weights: dict[str, Tensor] | None = None) -> Path:
    """A file as the released trainer writes it."""
    torch.save(stage_weights() if weights is None else weights, path)
    return path


def write_base(folder: Path, weights: dict[str, Tensor] | None = None, *, shards: str = "safetensors") -> Path:
    """The language model's folder: config.json, tokenizer, two shards with their index."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(language_config()))
    tokenizer().save_pretrained(folder)
    weights = base_weights() if weights is None else weights
    names = sorted(weights)
    stem = "model" if shards == "safetensors" else "pytorch_model"
    halves = {
        f"{stem}-00001-of-00002.{shards}": names[: len(names) // 2],
        f"{stem}-00002-of-00002.{shards}": names[len(names) // 2 :],
    }
    for file, keys in halves.items():
        part = {key: weights[key] for key in keys}
        if shards == "safetensors":
            save_file(part, folder / file, metadata={"format": "pt"})
        else:
            torch.save(part, folder / file)
    index = {"metadata": {}, "weight_map": {key: file for file, keys in halves.items() for key in keys}}
    (folder / f"{stem}.{shards}.index.json").write_text(json.dumps(index))
    return folder


def cavmae(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """CAV-MAE's file: DataParallel's prefix, the video side and a head beside the audio encoder."""
    root = f"{PREFIX}model.audio_encoder."
    own = {
        k.removeprefix(root): t
        for k, t in weights.items()
        if k.startswith(root) and "norm_j" not in k and "norm_k" not in k
    }
    video = {k.replace("blocks_a", "blocks_v"): t for k, t in own.items() if "blocks_a" in k}
    extra = {
        "patch_embed_v.proj.weight": torch.rand(4, 3, 16, 16),
        "pos_embed_v": torch.rand(1, 4),
        "norm.bias": torch.rand(4),
    }
    head = {
        "mlp_head.1.weight": torch.rand(5, 4),
        "decoder_blocks.0.norm1.bias": torch.rand(4),
        "mask_token": torch.rand(1),
    }
    return {f"module.{k}": t for k, t in {**own, **video, **extra, **head}.items()}


def lavis(weights: dict[str, Tensor]) -> dict[str, Any]:
    """A checkpoint of the Q-Former's pretraining."""
    state = {}
    for key, tensor in weights.items():
        name = canonical(key).removeprefix("model.")
        if name.startswith(("Qformer.", "query_tokens")):
            state[name] = tensor
            if "_query" in name:
                state[name.replace("_query", "")] = tensor + 1  # the text branch
        elif name.startswith("qformer_proj_norm."):
            state[name.replace("qformer_proj_norm", "ln_vision")] = tensor
        elif name.startswith("audio_encoder.") and "norm_j" not in name and "norm_k" not in name:
            state[name.replace("audio_encoder", "visual_encoder")] = tensor + 1
    state["Qformer.cls.predictions.bias"] = torch.rand(7)
    state["Qformer.bert.embeddings.word_embeddings.weight"] = torch.rand(7, 48)
    state |= {"vision_proj.weight": torch.rand(4, 4), "itm_head.bias": torch.rand(2), "temp": torch.tensor(0.07)}
    return {"model": state, "optimizer": {"state": {}}, "epoch": 57}
