"""The released code's state dict -> GamaForConditionalGeneration, key by key.

Every key is mapped, knowingly dropped with a reason, or an error; nothing is silent
(the original loads with ``strict=False`` and discards the report).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from gama.checkpoints.names import LORA_ALPHA, canonical, dropped_because, lora_slot, our_name
from gama.errors import CheckpointError
from gama.model.configuration import GamaConfig
from gama.model.gama import GamaForConditionalGeneration


@dataclass(frozen=True)
class KeyReport:
    """What became of every key of a checkpoint.

    Attributes:
        mapped: original key -> our name.
        lora: (our module, "A" or "B") -> original key.
        dropped: original key -> why it is not needed.
        unknown: keys that belong to no known part.
    """

    mapped: dict[str, str] = field(default_factory=dict)
    lora: dict[tuple[str, str], str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)


def account(keys: Iterable[str], config: GamaConfig) -> KeyReport:
    """Say of every key where it goes.

    Raises:
        CheckpointError: where two keys hold the same half of a LoRA.
    """
    report = KeyReport()
    for key in keys:
        name = canonical(key)
        slot = lora_slot(name)
        reason = dropped_because(name, config.aggregator)
        if slot:
            if slot in report.lora:
                raise CheckpointError(f"two keys hold lora_{slot[1]} of {slot[0]}: {report.lora[slot]} and {key}")
            report.lora[slot] = key
        elif reason:
            report.dropped[key] = reason
        elif ours := our_name(name):
            report.mapped[key] = ours
        else:
            report.unknown.append(key)
    return report


def load_original(
    state_dict: Mapping[str, Tensor],
    config: GamaConfig | None = None,
    *,
    lora: Literal["apply", "merge"] = "apply",
) -> GamaForConditionalGeneration:
    """Build the model from a full state dict with the original's names.

    Args:
        state_dict: audio tower and language model, with or without LoRA; keys with or without
            ``base_model.model.`` and ``.default``. The buffers ``inv_freq`` and ``position_ids`` may be absent.
        config: the architecture; the released model where absent.
        lora: ``apply`` keeps LoRA as PEFT layers (trainable, named ``default``); ``merge`` adds it to the weights.

    Returns:
        The model in evaluation mode, in the weights' own dtype.

    Raises:
        CheckpointError: for unknown, missing or doubled keys and for wrong shapes, naming them.
    """
    config = config or GamaConfig()
    report = account(state_dict, config)
    if report.unknown:
        raise CheckpointError(
            f"{len(report.unknown)} key(s) belong to no part of GAMA: {_some(report.unknown)}",
            "is this another model's checkpoint?",
        )
    weights: dict[str, Tensor] = {}
    for key, name in report.mapped.items():
        if name in weights:
            raise CheckpointError(f"two keys hold {name}; one is {key}")
        weights[name] = state_dict[key]
    pairs = _lora_pairs(state_dict, report)
    _check_shapes(weights, pairs, config, {name: key for key, name in report.mapped.items()})
    if lora == "merge":
        for module, (a, b) in pairs.items():
            base = weights[f"{module}.weight"]
            delta = (b.float() @ a.float()) * (LORA_ALPHA / a.shape[0])
            weights[f"{module}.weight"] = (base.float() + delta).to(base.dtype)
    model = GamaForConditionalGeneration.from_pretrained(None, config=config, state_dict=weights)
    if pairs and lora == "apply":
        _apply_lora(model, pairs)
    model.eval()
    return model


def _lora_pairs(state_dict: Mapping[str, Tensor], report: KeyReport) -> dict[str, tuple[Tensor, Tensor]]:
    modules = {module for module, _ in report.lora}
    lone = [m for m in modules if (m, "A") not in report.lora or (m, "B") not in report.lora]
    if lone:
        raise CheckpointError(f"LoRA of {_some(sorted(lone))} lacks lora_A or lora_B")
    return {m: (state_dict[report.lora[m, "A"]], state_dict[report.lora[m, "B"]]) for m in sorted(modules)}


def _check_shapes(
    weights: Mapping[str, Tensor],
    pairs: Mapping[str, tuple[Tensor, Tensor]],
    config: GamaConfig,
    key_of: Mapping[str, str],
) -> None:
    with torch.device("meta"):
        model = GamaForConditionalGeneration(config)
    expected = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    tied = set(model.all_tied_weights_keys)
    missing = [n for n in expected if n not in weights and n not in tied]
    surplus = [key_of[n] for n in weights if n not in expected]
    wrong = [
        f"{key_of[n]} is {tuple(t.shape)}, expected {expected[n]}"
        for n, t in weights.items()
        if n in expected and tuple(t.shape) != expected[n]
    ]
    for module, (a, b) in pairs.items():
        shape = expected.get(f"{module}.weight")
        if shape is None:
            surplus.append(f"{module} (LoRA)")
        elif (b.shape[0], a.shape[1]) != shape or a.shape[0] != b.shape[1]:
            wrong.append(f"LoRA of {module} is {tuple(b.shape)} x {tuple(a.shape)}, expected {shape}")
    ranks = sorted({a.shape[0] for a, _ in pairs.values()})
    if len(ranks) > 1:
        wrong.append(f"LoRA has several ranks ({', '.join(map(str, ranks))}), expected one")
    if missing:
        raise CheckpointError(f"{len(missing)} weight(s) are missing: {_some(missing)}")
    if surplus:
        raise CheckpointError(f"{len(surplus)} weight(s) fit no place in this configuration: {_some(surplus)}")
    if wrong:
        raise CheckpointError(f"{len(wrong)} weight(s) have another shape: {_some(wrong)}", "another base model?")


def _apply_lora(model: GamaForConditionalGeneration, pairs: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

    rank = next(iter(pairs.values()))[0].shape[0]
    adapter = LoraConfig(r=rank, lora_alpha=LORA_ALPHA, lora_dropout=0.05, target_modules=list(pairs))
    inject_adapter_in_model(adapter, model)
    state = {f"{m}.lora_{p}.weight": t for m, ab in pairs.items() for p, t in zip("AB", ab, strict=True)}
    result = set_peft_model_state_dict(model, state)
    if result.unexpected_keys:
        raise CheckpointError(f"LoRA keys found no place: {_some(result.unexpected_keys)}")
    model.audio_tower.requires_grad_(True)


def _some(names: Iterable[str], limit: int = 5) -> str:
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


__all__ = ["KeyReport", "LORA_ALPHA", "account", "canonical", "load_original", "our_name"]
