"""Generation: which clips a step of ``generate`` reads, and what its processors and assistants may see."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationMixin
from transformers.generation import LogitsProcessorList
from transformers.generation.candidate_generator import PromptLookupCandidateGenerator

from gama.model.key_values import CACHE, take_cache
from gama.model.prefix import PrefixMixin

_AUDIO = ("input_features", "audio_values", "audio_features")


def text_ids_only(ids: Tensor, audio_token_id: int, prompt_mask: Tensor | None) -> Tensor:
    """Ids (B, T) with placeholders and padding shown as the row's first text id; lengths stay true.

    Args:
        ids: (B, T), the prompt and what was generated.
        audio_token_id: the placeholder.
        prompt_mask: (B, P) mask of the prompt, 0 at padding; None where nothing is padded.
    """
    if ids.shape[1] == 0:  # embeddings were given, and nothing is generated yet
        return ids
    hidden = ids == audio_token_id
    if prompt_mask is not None:
        width = min(prompt_mask.shape[1], ids.shape[1])
        hidden[:, :width] |= prompt_mask[:, :width].to(ids.device) == 0
    first = (~hidden).to(torch.uint8).argmax(dim=1, keepdim=True)
    text = ids.gather(1, first)
    text = text.masked_fill(text == audio_token_id, 0)  # a row of placeholders alone
    return torch.where(hidden, text, ids)


class TextOnlyProcessors(LogitsProcessorList):
    """Logits processors that are shown text ids alone.

    A placeholder may lie beyond the vocabulary and padding is no text, yet processors index the scores by the ids
    they see (repetition penalty): see :func:`text_ids_only`.
    """

    def __init__(self, processors: LogitsProcessorList, audio_token_id: int, prompt_mask: Tensor | None) -> None:
        super().__init__(processors)
        self.audio_token_id = audio_token_id
        self.prompt_mask = prompt_mask

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        if self.audio_token_id < scores.shape[-1]:
            scores = scores.clone()
            scores[:, self.audio_token_id] = -torch.inf  # it stands for sound and is never an answer
        return super().__call__(text_ids_only(input_ids, self.audio_token_id, self.prompt_mask), scores, **kwargs)


class GenerationWithClips(PrefixMixin, GenerationMixin):
    """``generate`` of a model whose prompt holds clips.

    A clip is read where its placeholders are computed, and lives in the cache afterwards. That holds for any part of a
    prompt: a prompt in chunks, a second turn over the cache of the first, the rounds of an assistant.
    """

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """As transformers' ``generate``; the cache may have either of its names, whatever the release."""
        cache = take_cache(kwargs)
        return super().generate(*args, **kwargs | ({} if cache is None else {CACHE: cache}))

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        next_sequence_length: int | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        is_first_iteration: bool | None = False,
        prompt_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """As transformers' own, with the clips of the placeholders that this step computes.

        Args:
            prompt_ids: the ids whose next part ``input_ids`` are, where the prompt is read in chunks.
        """
        audio = {name: kwargs.pop(name) for name in _AUDIO if kwargs.get(name) is not None}
        inputs = super().prepare_inputs_for_generation(
            input_ids,
            next_sequence_length=next_sequence_length,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )
        if not audio:
            return inputs
        step = inputs.get("input_ids")
        if step is None:
            return inputs | audio
        past = 0 if kwargs.get(CACHE) is None else kwargs[CACHE].get_seq_length()
        if past and step.shape[1] == 1 and not is_first_iteration and prompt_ids is None:
            return inputs  # a decoding step
        return inputs | self._clips_of(step, input_ids if prompt_ids is None else prompt_ids, past, audio)

    def _clips_of(self, step: Tensor, ids: Tensor, past: int, audio: dict[str, Any]) -> dict[str, Any]:
        """The clips, or the soft tokens, whose placeholders are computed now.

        Args:
            step: (B, S) ids that are computed now: the last of ``ids`` so far read, or a part of them.
            ids: (B, T) all that is known of the prompt and the answer.
            past: positions in the cache.
            audio: the clips of the whole prompt.
        """
        placeholder = step == self.config.audio_token_id
        now = int(placeholder.sum())
        if now == 0:
            return {}
        given = self._soft_tokens(audio)
        everywhere = ids == self.config.audio_token_id
        if now == given or int(everywhere.sum()) != given:
            return audio  # all of them, or a mismatch, which the forward pass reports
        begin = past if past + step.shape[1] <= ids.shape[1] else ids.shape[1] - step.shape[1]
        order = everywhere.flatten().cumsum(0).view_as(everywhere) - 1
        rows = order[:, begin : begin + step.shape[1]][placeholder]
        features = self._encoded(audio)
        return {"audio_features": features.reshape(-1, features.shape[-1])[rows]}

    def _soft_tokens(self, audio: dict[str, Any]) -> int:
        """How many soft tokens the clips make."""
        features = audio.get("audio_features")
        if features is None:
            return len(next(iter(audio.values()))) * self.config.num_audio_tokens
        features = features if isinstance(features, Tensor) else features.pooler_output
        return features.numel() // features.shape[-1]

    def _encoded(self, audio: dict[str, Any]) -> Tensor:
        features = audio.get("audio_features")
        if features is None:
            return self.audio_prefix(next(iter(audio.values())))
        return features if isinstance(features, Tensor) else features.pooler_output

    def _prefill(
        self, input_ids: Tensor, generation_config: Any, model_kwargs: dict[str, Any], *args: Any, **kw: Any
    ) -> Any:
        """A prompt in chunks: its clips are encoded once, and each chunk is told what it is a part of."""
        audio = {name: model_kwargs.pop(name) for name in _AUDIO if model_kwargs.get(name) is not None}
        if generation_config.prefill_chunk_size is None or not audio:
            model_kwargs |= audio
            return super()._prefill(input_ids, generation_config, model_kwargs, *args, **kw)
        cache = model_kwargs.get(CACHE)
        past = 0 if cache is None else cache.get_seq_length()
        mask = model_kwargs.get("attention_mask")
        only_new = past and mask is not None and mask.shape[1] != input_ids.shape[1]
        before = input_ids.new_zeros(len(input_ids), past) if only_new else input_ids[:, :0]
        model_kwargs |= {"audio_features": self._encoded(audio), "prompt_ids": torch.cat([before, input_ids], dim=1)}
        try:
            return super()._prefill(input_ids, generation_config, model_kwargs, *args, **kw)
        finally:
            del model_kwargs["audio_features"], model_kwargs["prompt_ids"]
            model_kwargs |= audio

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: Tensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Repeat rows with all their clips in order: rows r1 r1 r2 r2 want clips c1 c2 c1 c2 c3 c3."""
        audio = {name: model_kwargs.pop(name) for name in _AUDIO if model_kwargs.get(name) is not None}
        if expand_size > 1 and audio and input_ids is not None and input_ids.numel():
            clips = (input_ids == self.config.audio_token_id).sum(dim=1) // self.config.num_audio_tokens
            parts = self._encoded(audio).split(clips.tolist())  # encoded once, not once a beam
            audio = {"audio_features": torch.cat([part.repeat(expand_size, 1, 1) for part in parts])}
        input_ids, model_kwargs = super()._expand_inputs_for_generation(
            expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **model_kwargs
        )
        return input_ids, model_kwargs | audio

    def _get_candidate_generator(self, *args: Any, **kwargs: Any) -> Any:
        """Proposals are text alone: a look-up in the prompt is shown text, an assistant's end where a clip begins."""
        generator = super()._get_candidate_generator(*args, **kwargs)
        propose, token = generator.get_candidates, self.config.audio_token_id
        looks_up = isinstance(generator, PromptLookupCandidateGenerator)

        def get_candidates(input_ids: Tensor, *rest: Any, **named: Any) -> tuple[Tensor, Tensor | None]:
            shown = text_ids_only(input_ids, token, None) if looks_up else input_ids
            ids, logits = propose(shown, *rest, **named)
            new = ids[:, input_ids.shape[1] :].to(input_ids.device)
            placeholder = (new[0] == token).nonzero()
            end = int(placeholder[0]) if len(placeholder) else new.shape[1]
            return torch.cat([input_ids, new[:, :end]], dim=1), None if logits is None else logits[:, :end]

        generator.get_candidates = get_candidates
        return generator

    def _get_logits_processor(
        self, *args: Any, model_kwargs: dict[str, Any] | None = None, **kwargs: Any
    ) -> LogitsProcessorList:
        mask = (model_kwargs or {}).get("attention_mask")
        prompt = kwargs.get("encoder_input_ids")
        if prompt is not None and prompt.ndim == 2:
            own = mask if mask is not None and mask.shape == prompt.shape else None
            kwargs["encoder_input_ids"] = text_ids_only(prompt, self.config.audio_token_id, own)
        processors = super()._get_logits_processor(*args, model_kwargs=model_kwargs, **kwargs)
        return TextOnlyProcessors(processors, self.config.audio_token_id, mask if mask is None else mask.clone())


__all__ = ["GenerationWithClips", "TextOnlyProcessors", "text_ids_only"]
