"""The decode loop: prefill once, then one token at a time from the cache."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from gama.inference.asking import Sampling, TextStream

if TYPE_CHECKING:
    from gama.model.gama import GamaForConditionalGeneration


@torch.inference_mode()
def decode(
    model: GamaForConditionalGeneration,
    inputs: dict[str, Any],
    sampling: Sampling,
    stop_ids: Sequence[int],
    limits: Sequence[int] | None = None,
) -> Iterator[Tensor]:
    """Yield the next id of each row (B,), until every row has stopped or ``max_new_tokens`` are made.

    A row that has stopped yields its last id on.

    Args:
        model: the model.
        inputs: ``input_ids``, ``attention_mask`` (B, T), padded on the left, and ``audio_features`` where there are
            clips. With ``past_key_values`` of the first P positions the mask is (B, P + T).
        sampling: how to choose.
        stop_ids: ids that end an answer.
        limits: most tokens of each row, where rows have less room than ``max_new_tokens``.
    """
    generator = torch.Generator(device=model.device)
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed)
    warpers = _warpers(sampling)
    stops = torch.tensor(list(stop_ids), device=model.device)
    ends = torch.tensor([sampling.max_new_tokens] * len(inputs["input_ids"]) if limits is None else list(limits))
    ends = ends.to(model.device)
    placeholder = model.config.audio_token_id
    mask = inputs["attention_mask"]
    ids = inputs["input_ids"]
    positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    step = {**inputs, "position_ids": positions, "use_cache": True, "logits_to_keep": 1}
    stopped = torch.zeros(len(ids), dtype=torch.bool, device=model.device)
    last = ids[:, -1]
    for made in range(1, sampling.max_new_tokens + 1):
        output = model(**step)
        scores = output.logits[:, -1].float()
        if placeholder < scores.shape[-1]:
            scores[:, placeholder] = -math.inf  # it stands for sound and is never an answer
        if sampling.temperature > 0:
            # from the largest down: a tiny temperature then gives -inf, never inf - inf
            chances = warpers(ids, scores - scores.amax(-1, keepdim=True)).softmax(-1)
            chosen = torch.multinomial(chances, 1, generator=generator).squeeze(1)
        else:
            chosen = scores.argmax(-1)
        last = torch.where(stopped, last, chosen)
        yield last
        stopped = stopped | torch.isin(last, stops) | (ends <= made)
        if bool(stopped.all()):
            return
        # a stopped row reads on without growing: its positions stay within the context
        mask = torch.cat([mask, (~stopped).to(mask.dtype).unsqueeze(1)], dim=1)
        step = {
            "input_ids": last.unsqueeze(1),
            "attention_mask": mask,
            "position_ids": mask.sum(-1, keepdim=True) - 1,
            "past_key_values": output.past_key_values,
            "use_cache": True,
        }


def _warpers(sampling: Sampling) -> LogitsProcessorList:
    warpers = LogitsProcessorList()
    if sampling.temperature > 0:
        warpers.append(TemperatureLogitsWarper(float(sampling.temperature)))
        if sampling.top_p < 1.0:
            warpers.append(TopPLogitsWarper(sampling.top_p))
    return warpers


__all__ = ["Sampling", "TextStream", "decode"]
