"""GAMA as a transformers model: tensors in, tensors out. Importing this registers the Auto classes."""

from __future__ import annotations

from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForCausalLM, AutoProcessor

from gama.model.configuration import GamaConfig, GamaEncoderConfig, GamaQFormerConfig
from gama.model.gama import GamaForConditionalGeneration
from gama.model.headless import GamaModel
from gama.model.processing import GamaFeatureExtractor, GamaProcessor


def register() -> None:
    """Teach transformers' Auto classes the model type ``gama``. Safe to call more than once."""
    from transformers import AutoModel, AutoModelForMultimodalLM

    AutoConfig.register("gama", GamaConfig, exist_ok=True)
    AutoModel.register(GamaConfig, GamaModel, exist_ok=True)
    for auto in (AutoModelForCausalLM, AutoModelForMultimodalLM):
        auto.register(GamaConfig, GamaForConditionalGeneration, exist_ok=True)
    AutoFeatureExtractor.register(GamaConfig, GamaFeatureExtractor, exist_ok=True)
    AutoProcessor.register(GamaConfig, GamaProcessor, exist_ok=True)


register()

__all__ = [
    "GamaConfig",
    "GamaEncoderConfig",
    "GamaFeatureExtractor",
    "GamaForConditionalGeneration",
    "GamaModel",
    "GamaProcessor",
    "GamaQFormerConfig",
    "register",
]
