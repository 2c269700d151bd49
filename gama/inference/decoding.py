"""The decode loop: prefill once, then one token at a time from the cache."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from gama.errors import AudioError, CheckpointError
from gama.inference.sampling import Sampling
from gama.inference.steps import Steps, steps_for
from gama.inference.streaming import TextStream
from gama.model.key_values import CACHE

if TYPE_CHECKING:
    from gama.model.gama import GamaForConditionalGeneration


@torch.inference_mode()
def decode(
    model: GamaForConditionalGeneration,
    inputs: dict[str, Any],
    sampling: Sampling,
    stop_ids: Sequence[int],
    limits: Sequence[int] | None = None,
    told: Sequence[Sequence[int]] | None = None,
) -> Generator[Tensor, None, None]:
    """Yield the next id of each row (B,), until every row has stopped or ``max_new_tokens`` are made.

    A row that has stopped yields its last id on. Rows are drawn each by a generator of its own, so that a row of a
    batch is drawn as it would be alone.

    Args:
        model: the model.
        inputs: ``input_ids``, ``attention_mask`` (B, T), padded on the left, and ``audio_features`` where there are
            clips. With a cache (``CACHE``) of the first P positions the mask is (B, P + T).
        sampling: how to choose.
        stop_ids: ids that end an answer.
        limits: most tokens of each row, where rows have less room than ``max_new_tokens``.
        told: the whole prompt of each row, for the repetition penalty; by default what ``input_ids`` hold.
    """
    rows = len(inputs["input_ids"])
    ends = [sampling.max_new_tokens] * rows if limits is None else list(limits)
    stops = set(stop_ids)
    choose = _Choice(model, sampling, _text_of(inputs, model.config.audio_token_id) if told is None else told)
    mask = inputs["attention_mask"]
    ids = inputs["input_ids"]
    positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    output = model(**inputs, position_ids=positions, use_cache=True, logits_to_keep=1)
    logits, cache = output.logits, getattr(output, CACHE)
    most = min(max(ends), sampling.max_new_tokens)
    steps: Steps | None = None
    stopped = [False] * rows
    last = ids[:, -1]
    try:
        check_scores(model, logits[:, -1], inputs.get("audio_features"))
        for made in range(1, sampling.max_new_tokens + 1):
            still = torch.tensor(stopped, device=last.device)
            last = torch.where(still, last, choose(logits[:, -1]))
            yield last
            said = last.tolist()
            stopped = [s or t in stops or made >= end for s, t, end in zip(stopped, said, ends, strict=True)]
            if all(stopped):
                return
            if steps is None:
                steps = steps_for(model, cache, mask, most - made)
            logits = steps(last, [not s for s in stopped])
    finally:
        if steps is not None:
            steps.close()


def check_scores(model: GamaForConditionalGeneration, scores: Tensor, prefix: Tensor | None) -> None:
    """Refuse scores (B, V) that choose nothing: NaN or infinite ones would be an empty answer, all the same ones too.

    The first scores of an answer tell; later ones are not looked at, so that no token waits for it.

    Raises:
        CheckpointError: naming the weight that is no number, or the model.
        AudioError: where the weights are sound and what was made of the clip is not.
    """
    least, most = scores.aminmax(dim=-1)  # NaN in either where one is among them
    if bool(((least < most) & (most < math.inf)).all()):
        return
    name = str(getattr(model.config, "name_or_path", "") or "the model")
    again = "download the model again; gama inspect --verify compares its files"
    for weight, values in model.state_dict().items():
        if values.is_floating_point() and not bool(values.isfinite().all()):
            raise CheckpointError(f"{name}: {weight} holds NaN or infinity, so there is no answer", again)
    if prefix is not None and not bool(prefix.isfinite().all()):
        raise AudioError(
            "what the audio encoder makes of a clip is not finite, so there is no answer",
            "are its samples beyond full scale? in float16, try --dtype float32",
        )
    if bool((least == most).any()):
        raise CheckpointError(f"{name}: every token is as likely as any other: its weights are empty", again)
    raise CheckpointError(f"{name}: the scores of an answer are not numbers", "try --dtype float32, or bfloat16")


def _text_of(inputs: dict[str, Any], audio_token_id: int) -> list[list[int]]:
    """The text ids of each row, without placeholders and padding."""
    ids = inputs["input_ids"].tolist()
    masks = inputs["attention_mask"][:, -len(ids[0]) :].tolist()
    return [
        [i for i, seen in zip(row, mask, strict=True) if seen and i != audio_token_id]
        for row, mask in zip(ids, masks, strict=True)
    ]


@dataclass
class _Choice:
    """Scores (B, V) -> ids (B,)."""

    model: Any
    sampling: Sampling
    told: Sequence[Sequence[int]]
    _seen: Tensor | None = field(default=None, init=False)  # (B, V): what was read and said
    _generators: list[torch.Generator] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.warpers = _warpers(self.sampling)
        self.placeholder = self.model.config.audio_token_id
        if self.sampling.temperature > 0:
            self._generators = [_generator(self.model.device, self.sampling.seed) for _ in self.told]

    def __call__(self, logits: Tensor) -> Tensor:
        scores = logits.float()
        if self.placeholder < scores.shape[-1]:
            scores[:, self.placeholder] = -math.inf  # it stands for sound and is never an answer
        scores = self._penalised(scores)
        if self.sampling.temperature > 0:
            # from the largest down: a tiny temperature then gives -inf, never inf - inf
            chances = self.warpers(None, scores - scores.amax(-1, keepdim=True)).softmax(-1)
            drawn = [torch.multinomial(c, 1, generator=g) for c, g in zip(chances, self._generators, strict=True)]
            chosen = torch.cat(drawn)
        else:
            chosen = scores.argmax(-1)
        if self._seen is not None:
            self._seen.scatter_(1, chosen.unsqueeze(1), True)
        return chosen

    def _penalised(self, scores: Tensor) -> Tensor:
        penalty = self.sampling.repetition_penalty
        if penalty == 1:
            return scores
        if self._seen is None:
            self._seen = torch.zeros_like(scores, dtype=torch.bool)
            for row, ids in zip(self._seen, self.told, strict=True):
                # a placeholder stands for no text, and may lie beyond the vocabulary
                row[torch.tensor([i for i in ids if i != self.placeholder], dtype=torch.long)] = True
        return torch.where(self._seen, torch.where(scores < 0, scores * penalty, scores / penalty), scores)


def _generator(device: torch.device, seed: int | None) -> torch.Generator:
    generator = torch.Generator(device=device)
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator


def _warpers(sampling: Sampling) -> LogitsProcessorList:
    warpers = LogitsProcessorList()
    if sampling.temperature > 0:
        warpers.append(TemperatureLogitsWarper(float(sampling.temperature)))
        if sampling.top_k > 0:
            warpers.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1.0:
            warpers.append(TopPLogitsWarper(sampling.top_p))
    return warpers


__all__ = ["Sampling", "TextStream", "decode"]
