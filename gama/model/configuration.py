"""Configurations: audio encoder, Q-Former and the whole GAMA. No torch."""

from __future__ import annotations

from typing import Any, Literal

from transformers import AutoConfig, PreTrainedConfig

from gama.model.former_names import note_former_name

AggregatorForm = Literal["released", "paper"]
StemForm = Literal["linear", "conv"]

_RELEASED_QFORMER: dict[str, Any] = {}
"""What stands for a Q-Former of the released sizes; None is no Q-Former."""

_LLAMA2_7B: dict[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 4096,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}


class GamaEncoderConfig(PreTrainedConfig):
    """The CAV-MAE audio encoder; defaults are the released sizes (original: ``cavmae.py``, ``CAVMAEFTAudio``).

    Args:
        num_frames: frames of 10 ms the fbank is cut or padded to.
        num_mel_bins: mel bins of the fbank.
        patch_size: side of a square patch; the grid is (num_mel_bins / patch_size) x (num_frames / patch_size).
        taps: indices of the layers whose outputs feed the aggregator, in the order it reads them.
        feature_divisor: what the features are divided by after the mean over frequency (50 in the released code).
        stem: ``linear`` (one convolution per patch) or ``conv`` (a small stack of convolutions to the same grid).
        stem_channels: channels of the stages of the ``conv`` stem, each of which halves both sides.
        dropout: dropout after attention and feed-forward; the released encoder has none.
        time_pool: neighbours in time that are averaged into one after the mean over frequency: 1 in GAMA, 2 in LTU.
    """

    model_type = "gama_encoder"

    def __init__(
        self,
        num_frames: int = 1024,
        num_mel_bins: int = 128,
        patch_size: int = 16,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        layer_norm_eps: float = 1e-5,
        taps: list[int] | None = None,
        feature_divisor: float = 50.0,
        stem: StemForm = "linear",
        stem_channels: list[int] | None = None,
        dropout: float = 0.0,
        time_pool: int = 1,
        **kwargs: Any,
    ) -> None:
        if time_pool < 1:
            raise ValueError(f"time_pool is {time_pool}; expected 1 or more")
        self.num_frames = num_frames
        self.num_mel_bins = num_mel_bins
        self.patch_size = patch_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.layer_norm_eps = layer_norm_eps
        self.taps = [4, 8] if taps is None else list(taps)
        self.feature_divisor = feature_divisor
        self.stem = stem
        self.stem_channels = [] if stem_channels is None else list(stem_channels)
        self.dropout = dropout
        self.time_pool = time_pool
        super().__init__(**kwargs)

    @property
    def grid(self) -> tuple[int, int]:
        """Patches along (frequency, time)."""
        return self.num_mel_bins // self.patch_size, self.num_frames // self.patch_size

    @property
    def pooled_time(self) -> int:
        """Features in time that a clip is pooled to."""
        return self.grid[1] // self.time_pool


class GamaQFormerConfig(PreTrainedConfig):
    """The audio Q-Former; defaults are the released sizes (BERT base, cross-attention in every 2nd layer).

    The aggregator's two layers share the width, heads and epsilon given here, as in the released code.

    Args:
        num_query_tokens: query tokens, and so soft tokens of the Q-Former branch.
        aggregator_dropout: dropout of the aggregator while it trains; the Q-Former has none (it was always in
            evaluation mode in the original, also when trained).
        time_positions: whether the features the queries read carry learned positions in time. The released Q-Former
            has none; a small encoder trained on crops keeps too little of them to say when something happens.
    """

    model_type = "gama_qformer"

    def __init__(
        self,
        num_query_tokens: int = 32,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        cross_attention_frequency: int = 2,
        layer_norm_eps: float = 1e-12,
        aggregator_dropout: float = 0.1,
        time_positions: bool = False,
        **kwargs: Any,
    ) -> None:
        self.num_query_tokens = num_query_tokens
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.cross_attention_frequency = cross_attention_frequency
        self.layer_norm_eps = layer_norm_eps
        self.aggregator_dropout = aggregator_dropout
        self.time_positions = time_positions
        super().__init__(**kwargs)


def with_current_names(facts: dict[str, Any]) -> dict[str, Any]:
    """A configuration as a file holds it, under the names of today."""
    if "encoder_config" not in facts or "audio_config" in facts:
        return facts
    return {("audio_config" if name == "encoder_config" else name): value for name, value in facts.items()}


class GamaConfig(PreTrainedConfig):
    """GAMA: audio tower in front of any causal language model. Without arguments, the released model (7B).

    Args:
        text_config: a transformers configuration (or its dict with ``model_type``) of any causal language model.
        audio_config: see :class:`GamaEncoderConfig`.
        qformer_config: see :class:`GamaQFormerConfig`; None for LTU's form, which has neither Q-Former nor aggregator
            but one linear projector over the pooled features.
        aggregator: ``released`` (two self-attention layers: the released code computes cross-attention and drops it)
            or ``paper`` (equation 2: B2(B1(last; tap 4); tap 8)); without a Q-Former there is none of either form.
        audio_token_id: the placeholder id in ``input_ids``; by default the first id beyond the vocabulary. It needs
            no row in the language model.
        prefix_positions: whether a learned vector is added to each soft token, so that the language model can tell the
            places of the prefix apart; off in the released form.
        license: licence of the weights, carried into exports.
        lineage: where the weights come from (recipes, parents, hashes).
        encoder_config: deprecated, the name of ``audio_config`` in folders of before; read as that, with a note.
    """

    model_type = "gama"
    sub_configs = {
        "text_config": AutoConfig,
        "audio_config": GamaEncoderConfig,
        "qformer_config": GamaQFormerConfig,
    }

    def __init__(
        self,
        text_config: PreTrainedConfig | dict[str, Any] | None = None,
        audio_config: GamaEncoderConfig | dict[str, Any] | None = None,
        qformer_config: GamaQFormerConfig | dict[str, Any] | None = _RELEASED_QFORMER,
        aggregator: AggregatorForm = "released",
        audio_token_id: int | None = None,
        prefix_positions: bool = False,
        license: str | None = None,
        lineage: list[dict[str, Any]] | None = None,
        encoder_config: GamaEncoderConfig | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if audio_config is not None and encoder_config is not None:
            raise ValueError("audio_config and encoder_config are two names of one thing; give audio_config")
        if encoder_config is not None:
            note_former_name("encoder_config")
            audio_config = encoder_config
        if text_config is None:
            text_config = {"model_type": "llama", **_LLAMA2_7B}
        text: Any = text_config
        if isinstance(text_config, dict):
            text = AutoConfig.for_model(**{"model_type": "llama", **text_config})
        if isinstance(audio_config, dict):
            audio_config = GamaEncoderConfig(**audio_config)
        if isinstance(qformer_config, dict):
            qformer_config = GamaQFormerConfig(**qformer_config)
        if aggregator not in ("released", "paper"):
            raise ValueError(f"aggregator is {aggregator!r}; expected 'released' or 'paper'")
        self.text_config = text
        self.audio_config = audio_config or GamaEncoderConfig()
        self.qformer_config = qformer_config
        self.aggregator = aggregator
        self.audio_token_id = text.vocab_size if audio_token_id is None else audio_token_id
        self.prefix_positions = prefix_positions
        self.license = license
        self.lineage = lineage or []
        for name in ("bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings"):
            kwargs.setdefault(name, getattr(text, name, None))
        super().__init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As transformers' ``from_dict``. A folder of before is opened without a note: nobody wrote the name now."""
        return super().from_dict(with_current_names(config_dict), **kwargs)

    @property
    def encoder_config(self) -> GamaEncoderConfig:
        """Deprecated name of ``audio_config``."""
        note_former_name("encoder_config")
        return self.audio_config

    @encoder_config.setter
    def encoder_config(self, value: GamaEncoderConfig) -> None:
        note_former_name("encoder_config")
        self.audio_config = value

    @property
    def num_audio_tokens(self) -> int:
        """Soft tokens a clip becomes: Q-Former queries, then the pooled features (32 + 64 = 96; in LTU 0 + 32)."""
        queries = 0 if self.qformer_config is None else self.qformer_config.num_query_tokens
        return queries + self.audio_config.pooled_time

    @num_audio_tokens.setter
    def num_audio_tokens(self, value: int) -> None:
        if value != self.num_audio_tokens:
            raise ValueError(
                f"num_audio_tokens is {value}, but this model makes {self.num_audio_tokens} of a clip: it follows from "
                "qformer_config.num_query_tokens and audio_config (num_frames, patch_size, time_pool)"
            )

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """The language model's configuration (what ``generate`` and caches ask for)."""
        return self.text_config


__all__ = ["GamaConfig", "GamaEncoderConfig", "GamaQFormerConfig"]
