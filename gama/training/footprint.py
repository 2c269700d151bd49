"""How much memory a training step takes and how much it computes, from shapes alone: nothing is allocated.

The model is built of tensors without contents (``torch``'s fake tensors) and trained for one step; what is alive at
each moment is counted, and so are the products. Sizes come from the configuration: no weights are read.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from gama.model.configuration import GamaConfig
from gama.model.gama import GamaForConditionalGeneration
from gama.training import stages
from gama.training.kept import halve, is_halved, layout_of, prefix_of
from gama.training.model_config import recipe_errors
from gama.training.objectives import Hearing, Tagging, attention_of, keep_less
from gama.training.recipe import Recipe

FLOAT = 4  # bytes: gradients and averages are kept in float32
_TAGGING_FRAMES = 512  # of a crop


@dataclass(frozen=True)
class Shape:
    """One micro-batch.

    Attributes:
        rows: how many.
        tokens: of each, the clip's prefix and padding included.
        targets: of each, those that count in the loss: the language model's head sees no other.
    """

    rows: int
    tokens: int
    targets: int


@dataclass(frozen=True)
class Step:
    """What one forward and backward of a micro-batch takes.

    Attributes:
        peak: bytes alive at most beside weights and optimizer states, and beside gradients that were there before.
        flops: floating-point operations of the products.
    """

    peak: int
    flops: int


@dataclass(frozen=True)
class Part:
    """Parameters of one part of the model, the bytes that hold them, and those that stay in a mapped file."""

    name: str
    trainable: int
    frozen: int
    weights: int
    mapped: int = 0


def skeleton(config: GamaConfig, recipe: Recipe) -> GamaForConditionalGeneration:
    """The model that a stage trains, without contents: adapters put in, parts frozen."""
    from transformers.initialization import no_init_weights

    with torch.device("meta"), no_init_weights(), recipe_errors():
        gama = GamaForConditionalGeneration(config)
        gama.tie_weights()
        if recipe.lora is not None:
            stages.add_lora(gama, recipe.lora)
    stages.set_trainable(gama, recipe.trainable)
    if is_halved(recipe):
        halve(gama.language_model)
    return gama


def parts(gama: GamaForConditionalGeneration, quant: str = "none", mapped: Collection[str] = ()) -> list[Part]:
    """Parameters and weights by part; the adapters stand apart from the language model.

    Args:
        gama: the model, as :func:`skeleton` makes it.
        quant: of the recipe.
        mapped: ``audio_tower`` and ``language_model``, where their weights come as they are out of a mapped file.
    """
    packed = {f"{name}.weight" for name, _ in quantized_layers(gama, quant)}
    sums: dict[str, list[int]] = {}
    for name, parameter in gama.named_parameters():
        entry = sums.setdefault(_part_of(name), [0, 0, 0, 0])
        entry[0 if parameter.requires_grad else 1] += parameter.numel()
        untouched = not parameter.requires_grad and parameter.dtype == torch.float32
        entry[3 if untouched and name.partition(".")[0] in mapped else 2] += (
            packed_bytes(parameter.shape, quant) if name in packed else parameter.element_size() * parameter.numel()
        )
    return [Part(name, *counts) for name, counts in sums.items()]


def _part_of(name: str) -> str:
    if ".lora_" in name:
        return "LoRA"
    first, _, rest = name.partition(".")
    part = rest.partition(".")[0] if first == "audio_tower" else first
    return "projectors" if part.endswith("projector") else part.replace("_", " ")


def quantized_layers(gama: GamaForConditionalGeneration, quant: str) -> list[tuple[str, nn.Module]]:
    """The layers that bitsandbytes holds in 4 or 8 bits: the language model's linear ones but its head."""
    if quant == "none":
        return []
    return [
        (name, module)
        for name, module in gama.named_modules()
        if name.startswith("language_model.")
        and isinstance(module, nn.Linear)
        and ".lora_" not in name
        and not name.endswith("lm_head")
    ]


def packed_bytes(shape: torch.Size, quant: str) -> int:
    """Bytes of a weight (out, in) held by bitsandbytes: NF4 with its scales quantized again, or int8 by rows."""
    count = math.prod(shape)
    if quant == "8bit":
        return count + FLOAT * shape[0]
    blocks = count / 64
    return math.ceil(count / 2 + blocks + FLOAT * blocks / 256)


class _Unpacked(torch.autograd.Function):
    """A product with a weight that is unpacked for it and forgotten, in the backward pass again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, out_features: int, dtype: torch.dtype) -> Tensor:
        ctx.weight = (out_features, x.shape[-1])
        x = x.to(dtype)
        return F.linear(x, x.new_empty(ctx.weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        return gradient @ gradient.new_empty(ctx.weight), None, None


class _PackedLinear(nn.Module):
    """Stands in for a layer of bitsandbytes where only shapes count."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.out_features, self.dtype = linear.out_features, dtype

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = _Unpacked.apply(x, self.out_features, self.dtype)
        return result


class LivePeak(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive, those of ``known`` storages excepted."""

    def __init__(self, known: Iterator[Tensor]) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._kept = [tensor.untyped_storage() for tensor in known]
        self._known: dict[int, Any] = {storage._cdata: None for storage in self._kept}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self.live += size
        self.peak = max(self.peak, self.live)
        self._known[key] = weakref.ref(storage, lambda _: self._free(key, size))

    def _free(self, key: int, size: int) -> None:
        self.live -= size
        self._known.pop(key, None)


def _flash_forward(query: Any, key: Any, value: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _flash_backward(
    gradient: Any, query: Any, key: Any, value: Any, *args: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    return int(sdpa_backward_flop_count(gradient, query, key, value))


# torch counts the attention kernels of GPUs alone
_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _flash_forward,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _flash_backward,
}


def measure(
    config: GamaConfig, recipe: Recipe, shape: Shape, *, plain_attention: bool, accumulates: bool = True
) -> Step:
    """One training step of fake tensors.

    Args:
        config, recipe: what is trained.
        shape: of the micro-batch.
        plain_attention: whether attention is computed by plain products, as training in bf16 on a CPU does.
        accumulates: whether gradients are there before the step; otherwise they come while activations go, and count.
    """
    bf16 = bool(recipe.training.get("bf16"))
    gama = skeleton(config, recipe)
    _pack(gama, recipe.quant, torch.bfloat16 if bf16 else torch.float32)
    if keeps_less(recipe):
        keep_less(gama)
    with FakeTensorMode(), attention_of(plain=plain_attention):
        _fill(gama)
        heads = training_heads(gama, recipe)
        gama.train()
        for parameter in gama.parameters():
            if parameter.requires_grad and accumulates:
                parameter.grad = torch.empty_like(parameter)
        inputs = random_inputs(gama, recipe, shape)
        with LivePeak(_tensors(gama)) as live, FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION) as flops:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                loss = shaped_loss(gama, recipe, heads, inputs)
            loss.backward()
    return Step(live.peak, int(flops.get_total_flops()))


def keeps_less(recipe: Recipe) -> bool:
    """Whether layers are computed again in the backward pass; the key has two names."""
    return any(recipe.training.get(key) for key in ("gradient_checkpointing", "activation_checkpointing"))


def _tensors(gama: nn.Module) -> Iterator[Tensor]:
    for parameter in gama.parameters():
        yield parameter
        if parameter.grad is not None:
            yield parameter.grad
    yield from gama.buffers()


def _pack(gama: GamaForConditionalGeneration, quant: str, dtype: torch.dtype) -> None:
    for name, module in quantized_layers(gama, quant):
        assert isinstance(module, nn.Linear)
        parent, _, leaf = name.rpartition(".")
        owner = gama.get_submodule(parent)
        if hasattr(owner, "_modules"):
            owner._modules[leaf] = _PackedLinear(module, dtype)


def _fill(module: nn.Module) -> None:
    """Replace what is on ``meta`` by fake tensors of the CPU, shared ones by one."""
    made: dict[Tensor, nn.Parameter] = {}
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                if parameter not in made:
                    empty = torch.empty(parameter.shape, dtype=parameter.dtype)
                    made[parameter] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
                part._parameters[name] = made[parameter]
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def training_heads(gama: GamaForConditionalGeneration, recipe: Recipe) -> nn.Module | None:
    """The heads an objective trains beside the model, where they are more than a scale."""
    if recipe.objective == "tagging":
        return Tagging(gama)
    if recipe.objective == "naming" and recipe.loss.hearing:
        return Hearing(gama.config.audio_config.hidden_size)
    return None


def random_inputs(gama: GamaForConditionalGeneration, recipe: Recipe, shape: Shape) -> dict[str, Tensor]:
    """A micro-batch of no meaning."""
    encoder = gama.config.audio_config
    frames = _TAGGING_FRAMES if recipe.objective == "tagging" else encoder.num_frames
    audio = torch.empty(shape.rows, frames, encoder.num_mel_bins)
    if recipe.data.keep_frozen:
        layout = layout_of(gama.audio_tower)
        audio = torch.empty(shape.rows, layout.rows, layout.width)
    ids = torch.zeros(shape.rows, shape.tokens, dtype=torch.long)
    mask = torch.ones(shape.rows, 1, shape.tokens, shape.tokens, dtype=torch.bool)
    targets = torch.zeros(shape.rows, max(1, shape.targets), dtype=torch.long)
    return {"audio": audio, "ids": ids, "mask": mask, "targets": targets}


def shaped_loss(
    gama: GamaForConditionalGeneration, recipe: Recipe, heads: nn.Module | None, inputs: dict[str, Tensor]
) -> Tensor:
    """What the objective computes, where its contents may not be looked at."""
    if isinstance(heads, Tagging):
        features = gama.audio_tower.encoder.pool(gama.audio_tower.encoder(inputs["audio"]).last)
        return heads.head(heads.norm(features)).float().mean()
    embeddings = gama.get_input_embeddings().get_parameter("weight")
    ids = inputs["ids"]
    prefix = None if recipe.objective == "text" else _prefix(gama, recipe, inputs["audio"])
    loss = ids.new_zeros((), dtype=torch.float32)
    if prefix is not None and (recipe.objective == "naming" or recipe.loss.naming):
        named = prefix.float() @ embeddings.float().T
        loss = loss + F.cross_entropy(named.flatten(0, 1), ids.new_zeros(named.shape[0] * named.shape[1]))
        if recipe.objective == "naming":
            return loss
    embeds = gama.get_input_embeddings()(ids)
    if prefix is not None:
        embeds = torch.cat([gama.place(prefix).to(embeds.dtype), embeds[:, prefix.shape[1] :]], dim=1)
    places = {"attention_mask": inputs["mask"], "position_ids": ids}
    targets = inputs["targets"]
    with _flat_rows(gama.get_output_embeddings()):
        logits = gama(inputs_embeds=embeds, use_cache=False, logits_to_keep=targets.shape[1], **places).logits
    return loss + F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


@contextmanager
def _flat_rows(head: nn.Module) -> Iterator[None]:
    """Within, the head sees its rows as a training step gives them, (1, N, D): of a part of (B, T, D) it is slow."""
    hook = head.register_forward_pre_hook(lambda _, given: (given[0].flatten(0, 1).unsqueeze(0), *given[1:]))
    try:
        yield
    finally:
        hook.remove()


def _prefix(gama: GamaForConditionalGeneration, recipe: Recipe, audio: Tensor) -> Tensor:
    """The prefix of every clip, from what is kept of the frozen parts where the recipe keeps it."""
    if recipe.data.keep_frozen:
        return prefix_of(gama.audio_tower, layout_of(gama.audio_tower), audio)
    return gama.hear(audio).prefix
