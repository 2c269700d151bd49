"""GamaForConditionalGeneration: the audio tower's prefix in front of any causal language model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast

from gama.model.configuration import GamaConfig
from gama.model.generation import GenerationWithClips, TextOnlyProcessors, text_ids_only
from gama.model.headless import GamaModel, position_table
from gama.model.key_values import CACHE, take_cache, warn_of_old_name
from gama.model.prefix import asked_for, one_name
from gama.model.pretrained import GamaPreTrainedModel
from gama.model.tower import GamaAudioTower

IGNORED = -100
"""The label of a position that is no target."""


class GamaForConditionalGeneration(GenerationWithClips):
    """GAMA as a transformers model.

    ``input_ids`` hold ``config.audio_token_id`` ``config.num_audio_tokens`` times where a clip goes; the embeddings
    there are replaced by the clip's prefix. Masks and positions are used exactly as given.

    Attributes:
        audio_tower: fbank -> prefix.
        language_model: a causal language model of transformers, with its head.
        model: all of it without the head (``base_model`` for transformers' tools).
        lm_head: the language model's head.
    """

    def __init__(self, config: GamaConfig) -> None:
        super().__init__(config)
        self.audio_tower = GamaAudioTower(config)
        self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        self.prefix_positions = position_table(config)
        self.post_init()

    # -- the parts under the names that tools look for -----------------------------------------------------------------

    @property
    def model(self) -> GamaModel:
        """The model without its head, over the same modules."""
        decoder = self.get_decoder()
        view: GamaModel | None = self.__dict__.get("_headless")
        parts = (self.audio_tower, decoder, self.prefix_positions)
        if view is None or any(
            ours is not its
            for ours, its in zip(parts, (view.audio_tower, view.language_model, view.prefix_positions), strict=True)
        ):
            view = GamaModel.over(self, decoder)
            self.__dict__["_headless"] = view  # no child: each module is in the tree once
        view.training = self.training
        return view

    @property
    def lm_head(self) -> nn.Module:
        """The language model's head."""
        return self.get_output_embeddings()

    def get_decoder(self) -> nn.Module:
        return self.language_model.get_decoder()

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_output_embeddings(value)

    def get_submodule(self, target: str) -> nn.Module:
        # peft looks here for the words whose vectors it tunes, and else takes the first model among the children
        return self.get_input_embeddings() if target == "embeddings.word_embeddings" else super().get_submodule(target)

    # -- forward ---------------------------------------------------------------------------------------------------

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Any = None,
        inputs_embeds: Tensor | None = None,
        input_features: Tensor | None = None,
        audio_features: Any = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        return_dict: bool | None = None,
        past_key_values: Any = None,
        audio_values: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Next-token logits (B, T, V), and the loss where ``labels`` are given.

        Args:
            input_ids: (B, T) with placeholders where clips go.
            attention_mask: (B, T), or (B, 1, T, S) for packed rows; used as given.
            position_ids: (B, T); used as given, left to the language model where absent.
            cache: keys and values of earlier positions; ``past_key_values`` is its name in transformers before 5.24,
                and is accepted as well.
            inputs_embeds: (B, T, D) instead of ``input_ids``. Beside clips they hold the placeholder's own embedding
                where the clips go.
            input_features: (clips, 1024, 128) normalised fbank, clips in reading order over the batch.
            audio_features: prefixes from :meth:`get_audio_features`, or (clips, 96, D), instead of ``input_features``.
            labels: (B, T) targets, -100 where there is none. Placeholders and the token right after a clip are never
                targets, as in the released code.
            audio_values: deprecated name of ``input_features``.
        """
        past = take_cache({"cache": cache, "past_key_values": past_key_values})
        warn_of_old_name(past_key_values)
        embeds = self.prompt_embeds(input_ids, inputs_embeds, one_name(input_features, audio_values), audio_features)
        outputs = self.language_model(
            inputs_embeds=embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            return_dict=True,
            **asked_for(output_attentions=output_attentions, output_hidden_states=output_hidden_states),
            **{CACHE: past},
            **{k: v for k, v in kwargs.items() if k not in ("num_items_in_batch", "shift_labels")},
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
        wanted = self.config.return_dict if return_dict is None else return_dict
        return output if wanted else output.to_tuple()

    def _without_audio(self, labels: Tensor, input_ids: Tensor) -> Tensor:
        placeholder = input_ids == self.config.audio_token_id
        after = torch.zeros_like(placeholder)
        after[:, 1:] = placeholder[:, :-1]
        return labels.masked_fill(placeholder | after, IGNORED)


__all__ = ["GamaForConditionalGeneration", "GamaModel", "GamaPreTrainedModel", "TextOnlyProcessors", "text_ids_only"]
