"""GamaFeatureExtractor: waveforms -> fbank."""

from __future__ import annotations

from typing import Any

import torch
from transformers import BatchFeature
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor

from gama.errors import AudioError
from gama.fbank import KaldiFbank, kaldi_fbank
from gama.model.clips import clips_of, waveform
from gama.model.former_names import FORMER_NAMES, note_former_name

FEATURES = "input_features"
"""What the features of clips are called among a model's inputs."""

_FIXED: dict[str, tuple[Any, ...]] = {
    "padding": (None, True, "longest", "max_length", "do_not_pad", False),
    "truncation": (None, True),
    "max_length": (None,),
    "pad_to_multiple_of": (None,),
    "return_attention_mask": (None, False),
}
"""Arguments of transformers' feature extractors that have nothing to choose here, and the values they may have."""


class GamaFeatures(BatchFeature):
    """Inputs of the model; names that were in use before are read as well, with a note."""

    def __getitem__(self, item: Any) -> Any:
        return super().__getitem__(_current(item, self.data))

    def __getattr__(self, item: str) -> Any:
        return super().__getattr__(item if item in ("data", "__setstate__") else _current(item, self.data))


def _current(name: Any, data: Any) -> Any:
    now = FORMER_NAMES.get(name) if isinstance(name, str) and name not in data else None
    if now is None or now not in data:
        return name
    note_former_name(name)
    return now


class GamaFeatureExtractor(SequenceFeatureExtractor):
    """Waveforms -> normalised Kaldi fbank (clips, num_frames, num_mel_bins)."""

    model_input_names = [FEATURES]

    def __init__(
        self,
        feature_size: int = 128,
        sampling_rate: int = 16_000,
        padding_value: float = 0.0,
        num_frames: int = 1024,
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)
        self.num_frames = num_frames

    def __call__(
        self,
        audio: Any = None,
        sampling_rate: int | None = None,
        return_tensors: str | None = "pt",
        *,
        raw_speech: Any = None,
        device: str | torch.device | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Features of one clip or a list of clips; each is cut or padded to ``num_frames``.

        Args:
            audio: one clip or a list of them, in any form that :func:`gama.model.clips.waveform` takes. An array
                (B, N) is a batch.
            sampling_rate: rate of given samples in Hz; they are resampled. A warning is logged where it is missing.
            return_tensors: ``pt``, ``np`` or None for a list of arrays.
            raw_speech: the same as ``audio``, as other feature extractors call it.
            device: where to compute.
            **kwargs: ``padding`` and ``truncation`` are taken and change nothing.

        Raises:
            AudioError: for a clip that cannot be read or is shorter than 25 ms, and for other arguments.
        """
        audio = raw_speech if audio is None else audio
        if audio is None:
            raise AudioError("no clip was given", "give audio=…")
        _check_fixed(kwargs, self.num_frames)
        clips = [waveform(clip, sampling_rate, self.sampling_rate).samples for clip in clips_of(audio)]
        if not clips:
            raise AudioError("no clip was given", "give audio=…")
        fbank = kaldi_fbank(self.num_frames, self.feature_size)
        if device is not None:
            fbank = KaldiFbank(self.num_frames, self.feature_size).to(device)
        values = torch.cat([fbank(torch.from_numpy(clip).unsqueeze(0).to(device or "cpu")) for clip in clips])
        if return_tensors is None:
            return GamaFeatures({FEATURES: list(values.cpu().numpy())})
        return GamaFeatures({FEATURES: values if return_tensors == "pt" else values.cpu()}, tensor_type=return_tensors)


def _check_fixed(kwargs: dict[str, Any], num_frames: int) -> None:
    for name, value in kwargs.items():
        if name not in _FIXED:
            raise AudioError(
                f"the feature extractor was given {name}={value!r}", "it takes sampling_rate, return_tensors and device"
            )
        if value not in _FIXED[name]:
            raise AudioError(
                f"the feature extractor was given {name}={value!r}; every clip becomes {num_frames} frames",
                f"leave {name} out, and cut clips before",
            )


__all__ = ["GamaFeatureExtractor", "GamaFeatures"]
