"""What every GAMA model and each part of its audio tower share with transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from gama.model.configuration import GamaConfig
from gama.model.key_values import CACHE_NAMES
from gama.model.remote import write_remote_code

_HUB = ("repo_id", "commit_message", "private", "revision", "create_pr", "commit_description", "tags")
"""Arguments of push_to_hub that save_pretrained takes as well."""


class GamaPreTrainedModel(PreTrainedModel):
    """Flags that tools of transformers read, and the start of weights."""

    config_class: type[PreTrainedConfig] = GamaConfig
    base_model_prefix = "model"
    input_modalities: tuple[str, ...] = ("audio", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _no_split_modules = ["EncoderLayer", "QFormerLayer", "AggregatorLayer"]
    _skip_keys_device_placement = list(CACHE_NAMES)

    def save_pretrained(self, save_directory: Any, *args: Any, push_to_hub: bool = False, **kwargs: Any) -> None:
        """As transformers', with the code that opens the folder where gama is not installed."""
        hub = {name: kwargs.pop(name) for name in _HUB if push_to_hub and name in kwargs}
        super().save_pretrained(save_directory, *args, **kwargs)
        if self.config.model_type == GamaConfig.model_type:
            write_remote_code(save_directory)
        if push_to_hub:
            self.push_to_hub(hub.pop("repo_id", Path(save_directory).name), **hub)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        # the modules that hold parameters themselves: transformers passes over those that hold none
        start = getattr(module, "start_own_weights", None)
        if start is not None:
            start()


__all__ = ["GamaPreTrainedModel"]
