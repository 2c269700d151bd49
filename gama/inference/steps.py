"""One token at a time: keys and values in place, and on a GPU the whole step as one CUDA graph.

Keys and values are written into room that was made before (``gama/model/key_values.py``). A GPU waits for Python to
launch a step's hundreds of kernels; recorded once as a graph they are launched together. A graph reads and writes fixed
addresses, so it has keys and values of its own: those of the prompt are copied in, and those of the answer are copied
out at the end.
"""

from __future__ import annotations

import logging
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from gama.model.key_values import CACHE, ROOM, RoomyLayer

if TYPE_CHECKING:
    from gama.model.gama import GamaForConditionalGeneration

_WORTH = 8  # tokens that may follow from which a graph is recorded; for fewer it would cost more than it saves
_WARM_UPS = 3  # runs before a recording, in which libraries make their workspaces
_KEPT_GRAPHS = 2

logger = logging.getLogger(__name__)


def new_cache(model: GamaForConditionalGeneration) -> Any:
    """An empty cache for one prompt or a batch; None for a language model whose layers are not all of full attention,
    which makes its own."""
    return Cache(layer_class_to_replicate=RoomyLayer) if _is_plain(model) else None


def _is_plain(model: GamaForConditionalGeneration) -> bool:
    config = model.config.text_config
    layers = getattr(config, "layer_types", None)
    if layers is not None:
        return set(layers) == {"full_attention"}
    return getattr(config, "sliding_window", None) is None and hasattr(config, "num_key_value_heads")


class Steps(ABC):
    """Reads one id of each row and tells the logits of the next."""

    @abstractmethod
    def __call__(self, ids: Tensor, growing: Sequence[bool]) -> Tensor:
        """Ids (B,) -> logits (B, 1, V). A row that does not grow reads on without taking a position."""

    @abstractmethod
    def close(self) -> None:
        """Leave the keys and values of all that was read in the prompt's cache."""


def steps_for(model: GamaForConditionalGeneration, cache: Any, mask: Tensor, most: int) -> Steps:
    """The steps after a prompt.

    Args:
        model: the model.
        cache: keys and values of the prompt.
        mask: (B, P), 0 at padding.
        most: tokens that may follow.
    """
    if model.device.type == "cuda" and most >= _WORTH and _is_plain(model):
        recorded = _recorded(model, cache, len(mask), mask.shape[1] + most)
        if recorded is not None and not recorded.is_taken:
            return GraphSteps(recorded, cache, mask)
    return PlainSteps(model, cache, mask)


class PlainSteps(Steps):
    """By the model as it is."""

    def __init__(self, model: GamaForConditionalGeneration, cache: Any, mask: Tensor) -> None:
        self._model, self._cache, self._mask = model, cache, mask

    def __call__(self, ids: Tensor, growing: Sequence[bool]) -> Tensor:
        grown = torch.tensor(growing, dtype=self._mask.dtype, device=self._mask.device).unsqueeze(1)
        self._mask = torch.cat([self._mask, grown], dim=1)
        output = self._model(
            input_ids=ids.unsqueeze(1),
            attention_mask=self._mask,
            position_ids=self._mask.sum(-1, keepdim=True) - 1,
            use_cache=True,
            **{CACHE: self._cache},
        )
        self._cache = getattr(output, CACHE)
        logits: Tensor = output.logits
        return logits

    def close(self) -> None:
        """They are there already."""


# -- CUDA graphs -------------------------------------------------------------------------------------------------------


class _FixedLayer(DynamicLayer):
    """Keys and values of one layer at fixed addresses; ``at`` (1,) says where the next position goes, ``seen`` how
    many there are."""

    seen = 0

    def __init__(self, keys: Tensor, values: Tensor, at: Tensor) -> None:
        super().__init__()
        self.keys, self.values, self.at = keys, values, at
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        self.keys.index_copy_(2, self.at, key_states)
        self.values.index_copy_(2, self.at, value_states)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self.seen  # not of the tensor: a recording must not wait for the GPU


class FixedStep:
    """One step of a batch over keys and values at fixed addresses, and its CUDA graph.

    Args:
        model: the model; whoever asks it holds it.
        cache: of a prompt, whose heads, widths and types the fixed keys and values take.
        batch: rows.
        room: positions of prompt and answer.

    Attributes:
        is_taken: whether an answer is being written by it; another that is written meanwhile is computed plainly.
    """

    is_taken = False

    def __init__(self, model: GamaForConditionalGeneration, cache: Any, batch: int, room: int) -> None:
        self._model, self.room = weakref.ref(model), room
        weight = _embedding(model)
        self.at = torch.zeros(1, dtype=torch.long, device=weight.device)
        self.ids = torch.zeros(batch, 1, dtype=torch.long, device=weight.device)
        self.positions = torch.zeros_like(self.ids)
        self.unseen = torch.finfo(weight.dtype).min
        self.mask = weight.new_full((batch, 1, 1, room), self.unseen)
        self.layers = [
            _FixedLayer(_fixed(held.keys, batch, room), _fixed(held.values, batch, room), self.at)
            for held in cache.layers
        ]
        self.cache = Cache(layers=list(self.layers))
        self.logits: Tensor | None = None
        self._graph: torch.cuda.CUDAGraph | None = None

    def compute(self) -> Tensor:
        """The step itself, on what the fixed tensors hold."""
        model = self._model()
        assert model is not None
        output = model.language_model(
            inputs_embeds=model.get_input_embeddings()(self.ids),
            attention_mask=self.mask,
            position_ids=self.positions,
            use_cache=True,
            **{CACHE: self.cache},
        )
        logits: Tensor = output.logits
        return logits

    def record(self) -> None:
        """Record the step as a CUDA graph."""
        self.mask[..., 0] = 0
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                self.compute()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # another thread may hear a clip meanwhile
            self.logits = self.compute()
        self._graph = graph

    def run(self) -> Tensor:
        """One step; by the graph where there is one."""
        if self._graph is None:
            return self.compute()
        self._graph.replay()
        assert self.logits is not None
        return self.logits.clone()  # the next step writes over it


def _fixed(held: Tensor, batch: int, room: int) -> Tensor:
    return held.new_zeros(batch, held.shape[1], room, held.shape[3])


class GraphSteps(Steps):
    """By a :class:`FixedStep`."""

    def __init__(self, step: FixedStep, cache: Any, mask: Tensor) -> None:
        self._step, self._cache = step, cache
        step.is_taken = True
        self._begin = self._length = mask.shape[1]
        for layer, held in zip(step.layers, cache.layers, strict=True):
            layer.keys[:, :, : self._begin] = held.keys
            layer.values[:, :, : self._begin] = held.values
        step.mask.fill_(step.unseen)
        step.mask[:, 0, 0, : self._begin].masked_fill_(mask.bool(), 0)
        self._taken = mask.sum(-1, keepdim=True)

    def __call__(self, ids: Tensor, growing: Sequence[bool]) -> Tensor:
        step = self._step
        grown = torch.tensor(growing, device=ids.device).unsqueeze(1)
        self._taken += grown
        step.ids.copy_(ids.unsqueeze(1))
        step.positions.copy_(self._taken - 1)
        step.at.fill_(self._length)
        step.mask[:, 0, 0, self._length] = torch.where(grown[:, 0], 0.0, step.unseen)
        for layer in step.layers:
            layer.seen = self._length
        self._length += 1
        return step.run()

    def close(self) -> None:
        for index, layer in enumerate(self._step.layers):
            part = slice(self._begin, self._length)
            self._cache.update(layer.keys[:, :, part], layer.values[:, :, part], index)
        self._step.is_taken = False


_RECORDED: weakref.WeakKeyDictionary[Any, dict[tuple[int, int, int], FixedStep | None]] = weakref.WeakKeyDictionary()


def _recorded(model: GamaForConditionalGeneration, cache: Any, batch: int, needed: int) -> FixedStep | None:
    """The step of a model for so many rows and positions, recorded when it is first wanted.

    None where it cannot be recorded (a layer that waits for the GPU, memory): the model's own way is taken then.
    """
    if not all(isinstance(layer, DynamicLayer) for layer in cache.layers):
        return None
    kept = _RECORDED.setdefault(model, {})
    room = -(-needed // ROOM) * ROOM
    key = (_embedding(model).data_ptr(), batch, room)
    if key not in kept:
        for old in list(kept)[: 1 - _KEPT_GRAPHS]:
            del kept[old]
        kept[key] = None
        try:
            step = FixedStep(model, cache, batch, room)
            step.record()
            kept[key] = step
        except RuntimeError as error:
            logger.debug("no CUDA graph: %s", error)
    return kept[key]


def _embedding(model: GamaForConditionalGeneration) -> Tensor:
    """(V, D)."""
    weight: Tensor = model.get_input_embeddings().weight  # type: ignore[assignment]
    return weight


__all__ = ["FixedStep", "GraphSteps", "PlainSteps", "Steps", "new_cache", "steps_for"]
