"""The released code's names: what each becomes here, what is a half of a LoRA, what nothing needs. No torch."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gama.model.configuration import AggregatorForm

LORA_ALPHA = 16  # released scripts: r 8, alpha 16
COMPUTED = "a constant that is computed"

_ATTENTION = {
    "self.query": "query",
    "self.key": "key",
    "self.value": "value",
    "output.dense": "proj",
    "output.LayerNorm": "norm",
}
_JOINT = 11  # ``blocks_u.0`` follows the eleven ``blocks_a``

_BUFFERS = re.compile(r".*(rotary_emb\.inv_freq|embeddings\.position_ids)$")
_LORA = re.compile(r"(model\.layers\..*_proj)\.lora_([AB])(?:\.default)?\.weight$")

_DEAD: tuple[tuple[str, str], ...] = (
    (r"model\.audio_encoder\.blocks_a\.\d+\.norm[12]_[av]\..*", "norm of another modality: multiplied by 0"),
    (r"model\.audio_encoder\.blocks_u\.\d+\.norm[12](_v)?\..*", "norm of another modality: multiplied by 0"),
    (r"model\.audio_aggregator_layer_[12]\.(intermediate|output)_query\..*", "never called in the released code"),
)
_DEAD_RELEASED: tuple[tuple[str, str], ...] = (
    (r"model\.audio_aggregator_layer_[12]\.crossattention\..*", "computed and then dropped by the released code"),
)

_RULES: tuple[tuple[str, str], ...] = (
    (r"model\.query_tokens", "audio_tower.qformer.query_tokens"),
    (r"model\.(embed_tokens\.weight|norm\.weight|layers\..*)", r"language_model.model.\1"),
    (r"lm_head\.weight", "language_model.lm_head.weight"),
    (r"model\.audio_encoder\.modality_a", "audio_tower.encoder.modality"),
    (r"model\.audio_encoder\.pos_embed_a", "audio_tower.encoder.position"),
    (r"model\.audio_encoder\.patch_embed_a\.proj\.(\w+)", r"audio_tower.encoder.patches.proj.\1"),
    (r"model\.audio_encoder\.blocks_a\.(\d+)\.(norm[12])\.(\w+)", r"audio_tower.encoder.layers.\1.\2.\3"),
    (r"model\.audio_encoder\.blocks_a\.(\d+)\.(?:attn|mlp)\.(.+)", r"audio_tower.encoder.layers.\1.\2"),
    (r"model\.audio_encoder\.blocks_u\.0\.(norm[12])_a\.(\w+)", rf"audio_tower.encoder.layers.{_JOINT}.\1.\2"),
    (r"model\.audio_encoder\.blocks_u\.0\.(?:attn|mlp)\.(.+)", rf"audio_tower.encoder.layers.{_JOINT}.\1"),
    (r"model\.audio_encoder\.norm_a\.(\w+)", r"audio_tower.encoder.norm.\1"),
    (r"model\.audio_encoder\.norm_k\.(\w+)", r"audio_tower.encoder.tap_norms.0.\1"),
    (r"model\.audio_encoder\.norm_j\.(\w+)", r"audio_tower.encoder.tap_norms.1.\1"),
    (r"model\.qformer_proj_norm\.(\w+)", r"audio_tower.qformer.feature_norm.\1"),
    (r"model\.Qformer\.bert\.embeddings\.LayerNorm\.(\w+)", r"audio_tower.qformer.norm.\1"),
    (r"model\.audio_proj\.1\.(\w+)", r"audio_tower.projector.fc.\1"),
    (r"model\.audio_proj_qformer\.0\.(\w+)", r"audio_tower.qformer_projector.fc1.\1"),
    (r"model\.audio_proj_qformer\.2\.(\w+)", r"audio_tower.qformer_projector.fc2.\1"),
    (r"model\.audio_proj_audioenc\.0\.(\w+)", r"audio_tower.aggregator_projector.fc1.\1"),
    (r"model\.audio_proj_audioenc\.2\.(\w+)", r"audio_tower.aggregator_projector.fc2.\1"),
)


def canonical(key: str) -> str:
    """The key without what PEFT puts in front (``base_model.model.``)."""
    return key.removeprefix("base_model.model.")


def our_name(key: str) -> str | None:
    """Our name of a canonical original key; None where there is none."""
    for pattern, replacement in _RULES:
        match = re.fullmatch(pattern, key)
        if match:
            return match.expand(replacement)
    return _bert_name(key)


def _bert_name(key: str) -> str | None:
    layer = re.fullmatch(r"model\.Qformer\.bert\.encoder\.layer\.(\d+)\.(.+)\.(weight|bias)", key)
    prefix, feed = "audio_tower.qformer.layers", "_query"
    index = layer.group(1) if layer else ""
    if layer is None:
        layer = re.fullmatch(r"model\.audio_aggregator_layer_([12])\.(.+)\.(weight|bias)", key)
        if layer is None:
            return None
        prefix, feed, index = "audio_tower.aggregator.layers", "", str(int(layer.group(1)) - 1)
    part, kind = layer.group(2), layer.group(3)
    feed_forward = {f"intermediate{feed}.dense": "fc1", f"output{feed}.dense": "fc2", f"output{feed}.LayerNorm": "norm"}
    if part in feed_forward:
        return f"{prefix}.{index}.feed_forward.{feed_forward[part]}.{kind}"
    block, _, inner = part.partition(".")
    ours = {"attention": "attention", "crossattention": "cross_attention"}.get(block)
    return f"{prefix}.{index}.{ours}.{_ATTENTION[inner]}.{kind}" if ours and inner in _ATTENTION else None


def dropped_because(key: str, aggregator: AggregatorForm) -> str | None:
    """Why a canonical original key has no place in a model of that aggregator; None for one that is needed."""
    if _BUFFERS.fullmatch(key):
        return COMPUTED
    dead = _DEAD + (_DEAD_RELEASED if aggregator == "released" else ())
    return next((why for pattern, why in dead if re.fullmatch(pattern, key)), None)


def lora_slot(key: str) -> tuple[str, str] | None:
    """(our module, "A" or "B") of a canonical original key; None where it is no half of a LoRA."""
    lora = _LORA.fullmatch(key)
    return (f"language_model.{lora.group(1)}", lora.group(2)) if lora else None
