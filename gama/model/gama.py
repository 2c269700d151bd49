"""GamaForConditionalGeneration: the audio tower's prefix in front of any causal language model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers.generation import LogitsProcessorList
from transformers.modeling_outputs import CausalLMOutputWithPast

from gama.model.configuration import GamaConfig
from gama.model.encoder import GamaEncoder
from gama.model.key_values import CACHE, CACHE_NAMES, take_cache
from gama.model.qformer import GamaQFormer, waves
from gama.model.tower import GamaAudioTower, TowerOutput

IGNORED = -100
"""The label of a position that is no target."""


def text_ids_only(ids: Tensor, audio_token_id: int, prompt_mask: Tensor | None) -> Tensor:
    """Ids (B, T) with placeholders and padding shown as the row's first text id; lengths stay true.

    Args:
        ids: (B, T), the prompt and what was generated.
        audio_token_id: the placeholder.
        prompt_mask: (B, P) mask of the prompt, 0 at padding; None where nothing is padded.
    """
    hidden = ids == audio_token_id
    if prompt_mask is not None:
        hidden[:, : prompt_mask.shape[1]] |= prompt_mask.to(ids.device) == 0
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


class GamaPreTrainedModel(PreTrainedModel):
    """What every GAMA model shares with transformers."""

    config_class = GamaConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["EncoderLayer", "QFormerLayer", "AggregatorLayer"]
    _skip_keys_device_placement = list(CACHE_NAMES)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        # the modules that hold these parameters themselves: transformers passes over those that hold none
        if isinstance(module, GamaQFormer):
            nn.init.trunc_normal_(module.query_tokens, std=0.02)
            if module.time_positions is not None:
                module.time_positions.copy_(waves(*module.time_positions.shape[1:]))
        elif isinstance(module, GamaEncoder):
            nn.init.trunc_normal_(module.position, std=0.02)
            nn.init.trunc_normal_(module.modality, std=0.02)


class GamaForConditionalGeneration(GamaPreTrainedModel, GenerationMixin):
    """GAMA as a transformers model.

    ``input_ids`` hold ``config.audio_token_id`` ``config.num_audio_tokens`` times where a clip goes; the embeddings
    there are replaced by the clip's prefix. Masks and positions are used exactly as given.
    """

    def __init__(self, config: GamaConfig) -> None:
        super().__init__(config)
        self.audio_tower = GamaAudioTower(config)
        self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        width = config.text_config.hidden_size
        self.prefix_positions = nn.Embedding(config.num_audio_tokens, width) if config.prefix_positions else None
        self.post_init()

    # -- embeddings belong to the language model -------------------------------------------------------------------

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_output_embeddings(value)

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Module:
        resized = self.language_model.resize_token_embeddings(*args, **kwargs)
        self.config.text_config.vocab_size = self.language_model.config.vocab_size
        return resized

    # -- audio -----------------------------------------------------------------------------------------------------

    def hear(self, audio_values: Tensor, *, taps: bool = False) -> TowerOutput:
        """Run the audio tower: normalised fbank (clips, 1024, 128) -> every stage of the tower."""
        return self.audio_tower(audio_values.to(self.audio_tower.encoder.position.device), taps=taps)

    def get_audio_features(self, audio_values: Tensor) -> Tensor:
        """The prefix of each clip: normalised fbank (clips, 1024, 128) -> (clips, 96, D)."""
        return self.place(self.hear(audio_values).prefix)

    def place(self, prefix: Tensor) -> Tensor:
        """Add to each soft token the vector of its place, where the model has them: (..., 96, D) -> (..., 96, D)."""
        return prefix if self.prefix_positions is None else prefix + self.prefix_positions.weight

    def embed(self, input_ids: Tensor, audio_features: Tensor | None = None) -> Tensor:
        """Embed ids (B, T), the placeholders replaced by ``audio_features`` (clips, 96, D) in order -> (B, T, D).

        Raises:
            ValueError: where placeholders and clips do not match.
        """
        placeholder = input_ids == self.config.audio_token_id
        embeds = self.get_input_embeddings()(input_ids.masked_fill(placeholder, 0))
        expected = 0 if audio_features is None else audio_features.shape[0] * audio_features.shape[1]
        found = int(placeholder.sum())
        if found != expected:
            clips = 0 if audio_features is None else audio_features.shape[0]
            raise ValueError(
                f"input_ids hold {found} audio placeholders (id {self.config.audio_token_id}), "
                f"{clips} clip(s) need {expected}: {self.config.num_audio_tokens} for each"
            )
        if audio_features is None:
            return embeds
        flat = audio_features.to(embeds.dtype).to(embeds.device).flatten(0, 1)
        return embeds.masked_scatter(placeholder.unsqueeze(-1), flat)

    # -- forward ---------------------------------------------------------------------------------------------------

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Any = None,
        inputs_embeds: Tensor | None = None,
        audio_values: Tensor | None = None,
        audio_features: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        return_dict: bool | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Next-token logits (B, T, V), and the loss where ``labels`` are given.

        Args:
            input_ids: (B, T) with placeholders where clips go.
            attention_mask: (B, T), or (B, 1, T, S) for packed rows; used as given.
            position_ids: (B, T); used as given, left to the language model where absent.
            cache: keys and values of earlier positions; ``past_key_values`` is its name in transformers before 5.24,
                and is accepted as well.
            audio_values: (clips, 1024, 128) normalised fbank, clips in reading order over the batch.
            audio_features: (clips, 96, D) prefixes from :meth:`get_audio_features`, instead of ``audio_values``.
            labels: (B, T) targets, -100 where there is none. Placeholders and the token right after a clip are never
                targets, as in the released code.
        """
        cache = take_cache({"cache": cache, "past_key_values": past_key_values})
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("give input_ids or inputs_embeds")
            if audio_features is None and audio_values is not None:
                audio_features = self.get_audio_features(audio_values)
            inputs_embeds = self.embed(input_ids, audio_features)
        outputs = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            return_dict=True,
            **{CACHE: cache},
            **{k: v for k, v in kwargs.items() if k != "num_items_in_batch"},
        )
        loss = None
        if labels is not None:
            targets = labels if input_ids is None else self._without_audio(labels, input_ids)
            loss = self.loss_function(
                logits=outputs.logits, labels=targets, vocab_size=self.config.text_config.vocab_size, **kwargs
            )
        output = CausalLMOutputWithPast(
            loss=loss,
            logits=outputs.logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **{CACHE: getattr(outputs, CACHE)},
        )
        return output if return_dict is not False else output.to_tuple()

    def _without_audio(self, labels: Tensor, input_ids: Tensor) -> Tensor:
        placeholder = input_ids == self.config.audio_token_id
        after = torch.zeros_like(placeholder)
        after[:, 1:] = placeholder[:, :-1]
        return labels.masked_fill(placeholder | after, IGNORED)

    # -- generation ------------------------------------------------------------------------------------------------

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """As transformers' ``generate``; the cache may have either of its names, whatever the release."""
        cache = take_cache(kwargs)
        return super().generate(*args, **kwargs | ({} if cache is None else {CACHE: cache}))

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, *args: Any, is_first_iteration: bool | None = False, **kwargs: Any
    ) -> dict[str, Any]:
        """Audio is read where its placeholders are computed, and lives in the cache afterwards."""
        inputs = super().prepare_inputs_for_generation(
            input_ids, *args, is_first_iteration=is_first_iteration, **kwargs
        )
        left = inputs.get("input_ids")
        decoding = not is_first_iteration and kwargs.get("use_cache", True)
        cached = left is not None and kwargs.get(CACHE) is not None
        if decoding or (cached and not bool((left == self.config.audio_token_id).any())):
            inputs.pop("audio_values", None)
            inputs.pop("audio_features", None)
        return inputs

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: Tensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Repeat rows with all their clips in order: rows r1 r1 r2 r2 want clips c1 c2 c1 c2 c3 c3."""
        audio = {k: model_kwargs.pop(k) for k in ("audio_values", "audio_features") if model_kwargs.get(k) is not None}
        if expand_size > 1 and input_ids is not None:
            clips = (input_ids == self.config.audio_token_id).sum(dim=1) // self.config.num_audio_tokens
            audio = {
                k: torch.cat([part.repeat(expand_size, 1, 1) for part in v.split(clips.tolist())])
                for k, v in audio.items()
            }
        input_ids, model_kwargs = super()._expand_inputs_for_generation(
            expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **model_kwargs
        )
        return input_ids, model_kwargs | audio

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


__all__ = ["GamaForConditionalGeneration", "GamaPreTrainedModel"]
