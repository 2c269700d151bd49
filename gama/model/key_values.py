"""The KV cache of a language model: what transformers calls it, and one that is written in place.

A cache that grows by concatenation copies every key and value at every token.
"""

from __future__ import annotations

import warnings
from dataclasses import fields
from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicLayer
from transformers.modeling_outputs import CausalLMOutputWithPast

CACHE_NAMES = ("cache", "past_key_values")
"""Every name of the cache as an argument and as an output: since transformers 5.24, and before."""

CACHE = next(name for name in CACHE_NAMES if name in {field.name for field in fields(CausalLMOutputWithPast)})
"""The name that the installed transformers uses; passing the other one warns there, or is refused."""

ROOM = 256
"""Positions by which the room grows."""


def take_cache(arguments: dict[str, Any]) -> Any:
    """Remove the cache from keyword arguments, under either name, and return it; None where there is none.

    Raises:
        ValueError: two caches, one under each name.
    """
    given = [cache for name in CACHE_NAMES if (cache := arguments.pop(name, None)) is not None]
    if len(given) > 1:
        raise ValueError("both cache and past_key_values were given: they are two names of one argument")
    return given[0] if given else None


def warn_of_old_name(past_key_values: Any) -> None:
    """As transformers' own models do since the cache has a new name: say that the old one is deprecated."""
    if past_key_values is not None and CACHE != "past_key_values":
        warnings.warn("`past_key_values` is deprecated, use `cache`", FutureWarning, stacklevel=3)


class RoomyLayer(DynamicLayer):
    """Keys and values of one layer, (B, H, S, D), in room for more than S positions."""

    keys: Tensor
    values: Tensor

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self._key_room = key_states.new_empty(0)
        self._value_room = value_states.new_empty(0)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        begin = self.get_seq_length()
        end = begin + key_states.shape[-2]
        self._key_room = _with_room(self._key_room, self.keys, key_states, end)
        self._value_room = _with_room(self._value_room, self.values, value_states, end)
        self._key_room[:, :, begin:end] = key_states
        self._value_room[:, :, begin:end] = value_states
        self.keys, self.values = self._key_room[:, :, :end], self._value_room[:, :, :end]
        return self.keys, self.values

    def reset(self) -> None:
        """Forget every position; transformers before 5.18 fills them with zeros and counts them on."""
        if self.is_initialized:
            self.keys, self.values = self.keys[:, :, :0], self.values[:, :, :0]

    def take_place(self) -> tuple[Tensor, Tensor, int]:
        """Count one position more, for whoever writes its keys and values by himself.

        Returns:
            The room of keys and that of values, (B, H, R, D), contiguous, and where in R the position lies. There must
            be positions before it.
        """
        at = self.get_seq_length()
        one = self.keys[:, :, :1]
        self._key_room = _with_room(self._key_room, self.keys, one, at + 1)
        self._value_room = _with_room(self._value_room, self.values, one, at + 1)
        self.keys, self.values = self._key_room[:, :, : at + 1], self._value_room[:, :, : at + 1]
        return self._key_room, self._value_room, at


def _with_room(room: Tensor, held: Tensor, new: Tensor, end: int) -> Tensor:
    """The room, or a larger one with what is held; rows that were selected or moved elsewhere get room anew."""
    begin = end - new.shape[-2]
    fits = room.ndim == 4 and room.shape[0] == new.shape[0] and room.shape[2] >= end
    if fits and (begin == 0 or held.data_ptr() == room.data_ptr()):
        return room
    batch, heads, _, width = new.shape
    larger = new.new_empty(batch, heads, -(-end // ROOM) * ROOM, width)
    if begin:
        larger[:, :, :begin] = held
    return larger
