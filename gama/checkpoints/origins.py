"""What a set of weights is, told from keys and shapes alone, and its keys in the released code's names. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

from gama.checkpoints.names import canonical

Kind = Literal["gama", "base", "lora", "ltu", "ltu-as", "cavmae", "lavis", "clap", "language model", "ours", "unknown"]
Shape = tuple[int, ...]

TITLES: dict[Kind, str] = {
    "gama": "GAMA stage checkpoint of the released code",
    "base": "language model with GAMA's audio encoder or Q-Former beside it (Llama-2-7b-chat-hf-qformer)",
    "lora": "LoRA alone, without an audio tower",
    "ltu": "LTU checkpoint (CAV-MAE and one projector, no Q-Former)",
    "ltu-as": "LTU-AS checkpoint (it reads Whisper's features, which no model here does)",
    "cavmae": "CAV-MAE audio encoder",
    "lavis": "Q-Former pretraining checkpoint (LAVIS)",
    "clap": "LAION-CLAP checkpoint",
    "language model": "language model",
    "ours": "GAMA in this project's form",
    "unknown": "weights of no known kind",
}

# what the origins of GAMA's parts hold and GAMA has no use for; names as in the released code
_FOREIGN: tuple[tuple[str, str], ...] = (
    (
        r"model\.audio_encoder\.(blocks_v\..*|patch_embed_v\..*|pos_embed_v|modality_v|norm_v\..*|norm\..*)",
        "of CAV-MAE's video side",
    ),
    (r"model\.audio_encoder\.(decoder_.*|mask_token)", "of the decoder that CAV-MAE was pretrained with"),
    (r"model\.audio_encoder\.mlp_head.*", "a classification head"),
    (r"model\.Qformer\.cls\..*", "the language head that the Q-Former was pretrained with"),
    (
        r"model\.Qformer\.bert\.embeddings\.(word|position)_embeddings\..*",
        "text embeddings: GAMA's Q-Former reads audio",
    ),
    (
        r"model\.Qformer\.bert\.encoder\.layer\.\d+\.(intermediate|output)\..*",
        "the Q-Former's text branch: GAMA's reads audio",
    ),
    (r"lavis\.(vision_proj|text_proj|itm_head)\..*|lavis\.temp", "a head that the Q-Former was pretrained with"),
    (r"lavis\.(opt|llm|llama|t5)_(model|proj)\..*", "the language model that the Q-Former was pretrained with"),
)

_COMPONENTS: tuple[tuple[str, str], ...] = (
    (r".*\.lora_.*", "LoRA"),
    (r"(model\.audio_encoder|audio_tower\.encoder)\..*", "audio encoder"),
    (r"(model\.(Qformer\.|query_tokens|qformer_proj_norm)|audio_tower\.qformer\.).*", "Q-Former"),
    (r"(model\.audio_aggregator|audio_tower\.aggregator\.).*", "aggregator"),
    (r"(model\.audio_proj_qformer|audio_tower\.qformer_projector)\..*", "Q-Former projector"),
    (r"(model\.audio_proj_audioenc|audio_tower\.aggregator_projector)\..*", "aggregator projector"),
    (r"(model\.audio_proj|audio_tower\.projector)\..*", "projector"),
    (r"prefix_positions\..*", "prefix positions"),
    (r"lavis\..*", "pretraining heads"),
    (r"audio_branch\..*", "audio tower"),
    (r"text_branch\..*", "text tower"),
    (r"(audio|text)_projection\..*", "projections"),
    (r"(audio|text)_transform\..*|logit_scale_.*", "contrastive heads"),
    (r"(language_model\.)?(model\.(embed_tokens|layers|norm)\b.*|lm_head\..*)", "language model"),
)

TOWER = ("audio encoder", "Q-Former", "aggregator", "Q-Former projector", "aggregator projector")
"""The components of GAMA's audio side."""

LTU_TOWER = ("audio encoder", "projector")
"""The components of LTU's."""


def plain(key: str) -> str:
    """The key without what wrappers put in front: DataParallel, ``torch.compile``, PEFT."""
    return canonical(key.removeprefix("module.").removeprefix("_orig_mod."))


def recognise(shapes: Mapping[str, Shape]) -> Kind:
    """What weights with these keys are."""
    keys = {plain(key) for key in shapes}
    if not keys:
        return "unknown"

    def has(*starts: str) -> bool:
        return any(key.startswith(starts) for key in keys)

    if has("audio_tower."):
        return "ours"
    if all(".lora_" in key for key in keys):
        return "lora"
    if has("model.audio_proj_qformer.", "model.audio_proj_audioenc.", "model.audio_aggregator_layer_"):
        return "gama"
    if has("model.audio_proj."):
        return "ltu-as" if has("model.audio_encoder.time_tr.") else "ltu"
    if has("audio_branch.") or (has("text_branch.") and has("audio_projection.")):
        return "clap"
    if has("Qformer.bert.") and has("query_tokens", "ln_vision."):
        return "lavis"
    if has("blocks_a.") and has("patch_embed_a."):
        return "cavmae"
    if has("model.audio_encoder.", "model.Qformer.", "model.query_tokens"):
        return "base"
    return "language model" if has("model.embed_tokens.") and has("model.layers.") else "unknown"


def released_name(key: str, kind: Kind) -> str:
    """The key of an origin in the released code's names; ``lavis.`` in front of what only LAVIS has."""
    name = plain(key)
    if kind == "cavmae":
        return f"model.audio_encoder.{name}"
    if kind != "lavis":
        return name
    for theirs, released in _LAVIS:
        if name.startswith(theirs):
            return released + name.removeprefix(theirs)
    return f"lavis.{name}"


_LAVIS = (
    ("query_tokens", "model.query_tokens"),
    ("Qformer.", "model.Qformer."),
    ("ln_vision.", "model.qformer_proj_norm."),
    ("visual_encoder.", "model.audio_encoder."),
)


def foreign_because(name: str) -> str | None:
    """Why a key in the released code's names is of no use to GAMA; None for what is, or is unknown."""
    return next((why for pattern, why in _FOREIGN if re.fullmatch(pattern, name)), None)


def component(name: str) -> str:
    """The part of a model that a key in the released code's names, CLAP's or ours belongs to."""
    return next((part for pattern, part in _COMPONENTS if re.fullmatch(pattern, name)), "other")


def missing_parts(kind: Kind, present: Iterable[str]) -> list[str]:
    """The components that weights of this kind lack for a whole GAMA; none for kinds that are no part of one."""
    if kind in ("clap", "ltu-as", "unknown"):
        return []
    have = set(present)
    needed = LTU_TOWER if "projector" in have else TOWER
    return [part for part in (*needed, "language model") if part not in have]
