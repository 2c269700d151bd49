"""Keys and values of one prompt and its answer, on either runtime. No torch until it is needed."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from gama.audio import Waveform
from gama.inference.asking import Asker
from gama.inference.sampling import Sampling

if TYPE_CHECKING:
    from gama.inference.engine import Gama
    from gama.instant.engine import Instant

_CUTTABLE = {"full_attention", "sliding_attention", "chunked_attention"}


class Cache(Protocol):
    """What a language model has computed of a prompt."""

    @property
    def length(self) -> int:
        """Positions held."""

    def cut(self, length: int) -> None:
        """Keep the first positions alone."""

    def prepare(self, ids: Sequence[int], windows: Sequence[Waveform]) -> Any:
        """Hear what stands in the rest of a prompt: the windows of the ids after those held.

        Args:
            ids: of the whole prompt.
            windows: of what is not held.
        """

    def tokens(self, prepared: Any, sampling: Sampling) -> Generator[int, None, None]:
        """The ids of the answer, the stopping one included.

        The cache holds all that was read when the generator has ended or was closed.
        """


class TorchCache:
    """By transformers' own cache.

    Args:
        gama: the model.
    """

    def __init__(self, gama: Gama) -> None:
        from transformers import DynamicCache

        from gama.inference.steps import new_cache as roomy

        self._gama = gama
        self._cache = roomy(gama.model) or DynamicCache() if is_cuttable(gama) else None

    @property
    def length(self) -> int:
        return 0 if self._cache is None else int(self._cache.get_seq_length())

    def cut(self, length: int) -> None:
        if self._cache is not None and length < self.length:
            self._cache.crop(length - self.length)

    def prepare(self, ids: Sequence[int], windows: Sequence[Waveform]) -> tuple[dict[str, Any], list[int]]:
        import torch

        from gama.model.key_values import CACHE

        device = self._gama.model.device
        inputs: dict[str, Any] = {
            "input_ids": torch.tensor([list(ids[self.length :])], device=device),
            "attention_mask": torch.ones(1, len(ids), dtype=torch.long, device=device),
        }
        if self._cache is not None:
            inputs[CACHE] = self._cache
        if windows:
            inputs["audio_features"] = self._gama.hear(windows)
        return inputs, list(ids)

    def tokens(self, prepared: tuple[dict[str, Any], list[int]], sampling: Sampling) -> Generator[int, None, None]:
        from gama.inference.decoding import decode

        inputs, ids = prepared
        with closing(decode(self._gama.model, inputs, sampling, self._gama.stop_ids, told=[ids])) as tokens:
            for token in tokens:
                yield int(token)


class InstantCache:
    """By the exported graph's past.

    Args:
        instant: the model.
    """

    def __init__(self, instant: Instant) -> None:
        self._instant = instant
        self._past = instant.language.begin()

    @property
    def length(self) -> int:
        return self._past.length

    def cut(self, length: int) -> None:
        self._past.cut(length)

    def prepare(self, ids: Sequence[int], windows: Sequence[Waveform]) -> tuple[list[int], Any]:
        return list(ids), np.concatenate(list(self._instant.hear(windows))) if windows else None

    def tokens(self, prepared: tuple[list[int], Any], sampling: Sampling) -> Generator[int, None, None]:
        return self._instant.language.generate(*prepared, sampling, self._instant.stop_ids, self._past)


def new_cache(asker: Asker) -> Cache:
    """An empty cache for whatever runs the model."""
    if asker.runtime.name == "torch":
        return TorchCache(cast("Gama", asker))
    return InstantCache(cast("Instant", asker))


def is_cuttable(asker: Asker) -> bool:
    """Whether a cache can be cut back: a recurrent state cannot."""
    if asker.runtime.name != "torch":
        return True
    layers = getattr(cast("Gama", asker).model.config.text_config, "layer_types", None) or ()
    return set(layers) <= _CUTTABLE


__all__ = ["Cache", "InstantCache", "TorchCache", "is_cuttable", "new_cache"]
