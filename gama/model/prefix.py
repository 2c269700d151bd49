"""Clips into the embeddings of a prompt: fbank -> prefix -> the places of the placeholders."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from gama.errors import CheckpointError
from gama.model.former_names import note_former_name
from gama.model.pretrained import GamaPreTrainedModel
from gama.model.tower import GamaAudioTower, TowerOutput

_PARTS = ("audio_tower.", "language_model.")


def one_name(input_features: Tensor | None, audio_values: Tensor | None) -> Tensor | None:
    """The normalised fbank under either name; ``audio_values`` is the deprecated one, and noted.

    Raises:
        ValueError: for both.
    """
    if input_features is not None and audio_values is not None:
        raise ValueError("input_features and audio_values are two names of one thing; give input_features")
    if audio_values is None:
        return input_features
    note_former_name("audio_values")
    return audio_values


def asked_for(**options: bool | None) -> dict[str, bool]:
    """The options that are not left to the configuration."""
    return {name: value for name, value in options.items() if value is not None}


class PrefixMixin(GamaPreTrainedModel):
    """The audio side of a GAMA model, with a head or without."""

    audio_tower: GamaAudioTower
    language_model: Any
    prefix_positions: nn.Embedding | None

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """As transformers' ``from_pretrained``.

        Raises:
            CheckpointError: for the weights of an audio tower alone, whose language model would be random.
        """
        model, report = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        model._require_language_model(set(report["missing_keys"]), args[0] if args else None)
        return (model, report) if output_loading_info else model

    def _require_language_model(self, missing: set[str], source: Any) -> None:
        tied = self.all_tied_weights_keys or {}
        names = {part: {n for n in self.state_dict() if n.startswith(part) and n not in tied} for part in _PARTS}
        tower, language_model = (names[part] - missing for part in _PARTS)
        if tower and not language_model:
            raise CheckpointError(
                f"{source}: the weights hold an audio tower and no language model",
                "give the folder of the whole model; a merged export is put together by gama.export.merged.join",
            )

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def hear(self, input_features: Tensor, *, taps: bool = False, **wanted: bool) -> TowerOutput:
        """Run the audio tower: normalised fbank (clips, 1024, 128) -> every stage of the tower."""
        device = self.audio_tower.encoder.position.device
        if device.type != "meta":  # else its weights lie elsewhere, and who brings them moves its input too
            input_features = input_features.to(device)
        return self.audio_tower(input_features, taps=taps, **wanted)

    def audio_prefix(self, input_features: Tensor) -> Tensor:
        """The prefix of each clip: normalised fbank (clips, 1024, 128) -> (clips, 96, D)."""
        return self.place(self.hear(input_features).prefix)

    def get_audio_features(
        self,
        input_features: Tensor | None = None,
        *,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        audio_values: Tensor | None = None,
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """Encode clips.

        Args:
            input_features: (clips, 1024, 128) normalised fbank.
            output_attentions: whether to return the attention weights of the encoder's layers.
            output_hidden_states: whether to return what goes into each layer of the encoder.
            return_dict: False for a tuple.
            audio_values: deprecated name of ``input_features``.

        Returns:
            ``pooler_output`` (clips, 96, D), the prefix in the language model's width, and ``last_hidden_state``
            (clips, F*T, C), the encoder's last layer.
        """
        fbank = one_name(input_features, audio_values)
        if fbank is None:
            raise ValueError("no clips: give input_features")
        own = self.config.audio_config
        output = self.hear(
            fbank,
            attentions=bool(own.output_attentions if output_attentions is None else output_attentions),
            hidden_states=bool(own.output_hidden_states if output_hidden_states is None else output_hidden_states),
        )
        features = BaseModelOutputWithPooling(
            last_hidden_state=output.encoded,
            pooler_output=self.place(output.prefix),
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )
        wanted = self.config.return_dict if return_dict is None else return_dict
        return features if wanted else features.to_tuple()

    def place(self, prefix: Tensor) -> Tensor:
        """Add to each soft token the vector of its place, where the model has them: (..., 96, D) -> (..., 96, D)."""
        if self.prefix_positions is None:
            return prefix
        # by a call of the module: whoever keeps its weights elsewhere brings them for a call alone
        places = self.prefix_positions(torch.arange(self.prefix_positions.num_embeddings, device=prefix.device))
        return prefix + places.to(prefix.device)

    def embed(self, input_ids: Tensor, audio_features: Any = None) -> Tensor:
        """Embed ids (B, T), the placeholders replaced by ``audio_features`` in order -> (B, T, D).

        Args:
            input_ids: with placeholders where clips go.
            audio_features: prefixes (clips, 96, D), the output of :meth:`get_audio_features`, or single soft
                tokens (N, D).

        Raises:
            ValueError: where placeholders and soft tokens do not match.
        """
        placeholder = input_ids == self.config.audio_token_id
        embeds = self.get_input_embeddings()(input_ids.masked_fill(placeholder, 0))
        return self._fill(embeds, placeholder, audio_features)

    def prompt_embeds(
        self,
        input_ids: Tensor | None,
        inputs_embeds: Tensor | None,
        input_features: Tensor | None,
        audio_features: Any,
    ) -> Tensor:
        """What the language model reads, (B, T, D), of whichever inputs are given.

        Embeddings that come with clips hold the placeholder's own embedding where the clips go.

        Raises:
            ValueError: for no text at all, or where placeholders and clips do not match.
        """
        if audio_features is None and input_features is not None:
            audio_features = self.audio_prefix(input_features)
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("give input_ids or inputs_embeds")
            return self.embed(input_ids, audio_features)
        if audio_features is None:
            return inputs_embeds
        token = self.config.audio_token_id
        if token >= self.config.get_text_config().vocab_size:
            raise ValueError(f"the placeholder {token} has no embedding, so clips need input_ids, not inputs_embeds")
        own = self.get_input_embeddings()(torch.tensor(token, device=inputs_embeds.device)).to(inputs_embeds.device)
        return self._fill(inputs_embeds, (inputs_embeds == own).all(-1), audio_features)

    def _fill(self, embeds: Tensor, placeholder: Tensor, features: Any) -> Tensor:
        """Embeddings (B, T, D) with the placeholders (B, T) replaced by soft tokens."""
        if features is not None and not isinstance(features, Tensor):
            features = features.pooler_output
        rows = None if features is None else features.reshape(-1, features.shape[-1])
        if not torch.compiler.is_compiling():  # a graph holds no test of what its inputs hold
            self._require_match(int(placeholder.sum()), 0 if rows is None else len(rows))
        if rows is None:
            return embeds
        return embeds.masked_scatter(placeholder.unsqueeze(-1), rows.to(embeds.device, embeds.dtype))

    def _require_match(self, placeholders: int, soft: int) -> None:
        if placeholders != soft:
            each = self.config.num_audio_tokens
            raise ValueError(
                f"input_ids hold {placeholders} audio placeholders (id {self.config.audio_token_id}), "
                f"{soft // each} clip(s) need {soft}: {each} for each"
            )


__all__ = ["PrefixMixin", "asked_for", "one_name"]
