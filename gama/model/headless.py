"""GamaModel: the audio tower's prefix in front of a language model without its head."""

from __future__ import annotations

from typing import Any, Self

from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming
from transformers.modeling_outputs import BaseModelOutputWithPast

from gama.model.configuration import GamaConfig
from gama.model.key_values import CACHE, take_cache, warn_of_old_name
from gama.model.prefix import PrefixMixin, asked_for, one_name
from gama.model.tower import GamaAudioTower


class GamaModel(PrefixMixin):
    """GAMA without a head: hidden states instead of logits.

    It reads the folders of the whole model and leaves the head out. ``GamaForConditionalGeneration.model`` is one over
    the same modules.
    """

    _keys_to_ignore_on_load_unexpected = [r"language_model\.lm_head\."]

    def __init__(self, config: GamaConfig) -> None:
        super().__init__(config)
        self.audio_tower = GamaAudioTower(config)
        self.language_model = AutoModel.from_config(config.text_config)
        self.prefix_positions = position_table(config)
        self.post_init()

    @classmethod
    def over(cls, whole: PrefixMixin, decoder: PreTrainedModel) -> Self:
        """A headless model that shares the modules of a whole one; nothing is copied or drawn.

        Args:
            whole: the model with a head.
            decoder: its language model without the head.
        """
        view = cls.__new__(cls)
        PreTrainedModel.__init__(view, whole.config)
        view.audio_tower, view.language_model = whole.audio_tower, decoder
        view.prefix_positions = whole.prefix_positions
        for name in ("_no_split_modules", "_skip_keys_device_placement", "_keep_in_fp32_modules"):
            setattr(view, name, getattr(whole, name))
        for name in ("_keep_in_fp32_modules_strict", "_keys_to_ignore_on_save", "_keys_to_ignore_on_load_missing"):
            setattr(view, name, getattr(whole, name))
        view.all_tied_weights_keys = view.get_expanded_tied_weights_keys(all_submodels=True)
        return view

    def get_decoder(self) -> nn.Module:
        return self.language_model

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Any = None,
        inputs_embeds: Tensor | None = None,
        input_features: Tensor | None = None,
        audio_features: Any = None,
        use_cache: bool | None = None,
        return_dict: bool | None = None,
        past_key_values: Any = None,
        audio_values: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast | tuple[Any, ...]:
        """Hidden states of the last layer (B, T, D); arguments as ``GamaForConditionalGeneration.forward`` has."""
        past = take_cache({"cache": cache, "past_key_values": past_key_values})
        warn_of_old_name(past_key_values)
        embeds = self.prompt_embeds(input_ids, inputs_embeds, one_name(input_features, audio_values), audio_features)
        outputs = self.language_model(
            inputs_embeds=embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=use_cache,
            return_dict=True,
            **asked_for(output_attentions=output_attentions, output_hidden_states=output_hidden_states),
            **{CACHE: past},
            **kwargs,
        )
        wanted = self.config.return_dict if return_dict is None else return_dict
        return outputs if wanted else outputs.to_tuple()


def position_table(config: GamaConfig) -> nn.Embedding | None:
    """The vectors of the prefix's places, where the configuration asks for them: (96, D)."""
    if not config.prefix_positions:
        return None
    return nn.Embedding(config.num_audio_tokens, config.text_config.hidden_size)


def register_key_mapping() -> None:
    """Teach transformers that folders hold the language model whole: its layers are under ``language_model.model``."""
    layers = WeightRenaming(source_patterns=r"^language_model\.model\.", target_patterns="language_model.")
    register_checkpoint_conversion_mapping("GamaModel", [layers], overwrite=True)


register_key_mapping()

__all__ = ["GamaModel"]
