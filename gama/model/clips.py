"""The forms in which a clip may be given -> one waveform at 16 kHz."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from gama.audio import SAMPLE_RATE, Waveform
from gama.audio import load as load_audio
from gama.audio.arrays import samples_of
from gama.errors import AudioError

MOST_CHANNELS = 8
"""The shorter side of a two-dimensional array up to which it is taken for channels where that is in doubt."""

logger = logging.get_logger(__name__)


def clips_of(audio: Any, prompts: int | None = None) -> list[Any]:
    """One clip, a list of clips or a list of lists -> a flat list, in reading order.

    A two-dimensional array inside a list is one clip of several channels. An array that is everything that was given
    is a batch of clips, as for transformers' feature extractors, unless only one clip is expected or a row of it is
    too short to be a clip.

    Args:
        audio: what was given.
        prompts: how many clips are expected, where that is known.
    """
    if isinstance(audio, (np.ndarray, torch.Tensor)) and audio.ndim == 2:
        channels = min(audio.shape) <= MOST_CHANNELS and (prompts == 1 or _is_upright(audio))
        return [audio] if channels and len(audio) != prompts else list(audio)
    if _is_list_of_clips(audio):
        return [clip for part in audio for clip in _flat(part)]
    return [audio]


def _flat(audio: Any) -> list[Any]:
    return [clip for part in audio for clip in _flat(part)] if _is_list_of_clips(audio) else [audio]


def _is_list_of_clips(audio: Any) -> bool:
    return isinstance(audio, (list, tuple)) and not (audio and _is_number(audio[0]))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) or (isinstance(value, torch.Tensor) and value.ndim == 0)


def _is_upright(array: Any) -> bool:
    """Whether an array is (N, C) rather than (C, N)."""
    return bool(array.shape[1] <= MOST_CHANNELS < array.shape[0])


def waveform(clip: Any, sampling_rate: int | None = None, default_rate: int = SAMPLE_RATE) -> Waveform:
    """A clip at 16 kHz, its channels averaged.

    Args:
        clip: samples (N,), (C, N) or (N, C); a :class:`~gama.audio.Waveform`; a path; the bytes of a file; what an
            Audio column of datasets gives: ``{"array", "sampling_rate"}``, ``{"path", "bytes"}`` or a decoder.
        sampling_rate: Hz of samples that do not tell their own.
        default_rate: Hz where nothing tells; a warning is logged.

    Raises:
        AudioError: for a clip that cannot be read or is shorter than 25 ms.
    """
    if isinstance(clip, Waveform):
        return clip
    if isinstance(clip, Mapping):
        return _of_mapping(clip, sampling_rate, default_rate)
    if callable(decode := getattr(clip, "get_all_samples", None)):  # torchcodec's AudioDecoder
        samples = decode()
        return _of_samples(samples.data, int(samples.sample_rate))
    if isinstance(clip, (np.ndarray, torch.Tensor, list, tuple)):
        if sampling_rate is None:
            logger.warning_once(
                f"An array was given without sampling_rate; {default_rate} Hz is assumed. A wrong rate gives wrong "
                "answers without an error: pass sampling_rate."
            )
        return _of_samples(clip, sampling_rate or default_rate)
    return load_audio(clip)


def _of_mapping(clip: Mapping[str, Any], sampling_rate: int | None, default_rate: int) -> Waveform:
    """What datasets gives for a clip, decoded or not."""
    if clip.get("array") is not None:
        return waveform(clip["array"], clip.get("sampling_rate") or sampling_rate, default_rate)
    if clip.get("bytes") is not None:
        return load_audio(clip["bytes"], name=clip.get("path"))
    if clip.get("path") is not None:
        return load_audio(clip["path"])
    raise AudioError(
        f"a clip has {sorted(map(str, clip))}", "a dict needs 'array' and 'sampling_rate', 'bytes' or 'path'"
    )


def _of_samples(samples: Any, rate: int) -> Waveform:
    array = samples_of(samples)
    if array.ndim == 2 and _is_upright(array):
        array = array.T
    return load_audio(array, sampling_rate=rate)


__all__ = ["clips_of", "waveform"]
