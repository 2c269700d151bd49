"""How fast this machine trains: a few steps of the model itself where it is small, the rate of products otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

from gama.data import augment
from gama.model.configuration import GamaConfig
from gama.model.gama import GamaForConditionalGeneration
from gama.products import product, quicken
from gama.training import footprint, stages
from gama.training.footprint import Shape
from gama.training.kept import halve, is_halved
from gama.training.objectives import attention_of, keep_less
from gama.training.recipe import Recipe

SHARE_OF_RATE = {torch.float32: 0.7, torch.bfloat16: 0.5}
"""What a training step reaches of the rate of large products: benchmarks/train_step.py and full_size.py, stage 2."""

_SIDE = 1024  # of the matrices whose product is timed
_LONGEST = 4.0  # seconds that one micro-batch may take to be tried
_LARGEST = 2 * 2**30  # bytes of weights, gradients and averages that are made to try it
_SECONDS = 3.0  # spent on it
_UPDATED = 2**23  # parameters whose update is timed: more than caches hold
_FRAMES = 1024


@dataclass(frozen=True)
class Speed:
    """What a training step costs here.

    Attributes:
        micro_batch: seconds of one forward and backward.
        optimizer: seconds of one optimizer step.
        item: seconds in which one item is read and changed.
        tried: whether the step was timed; otherwise it is computed from the rate of products.
        rate: floating-point operations a second of a large product.
        grown: bytes by which the process grew at most while it tried; 0 where it did not, or this is not told.
        busy: processor seconds that passed in a second of timing; below 1 where other programs took their share.
        device: ``cpu`` or ``cuda``.
    """

    micro_batch: float
    optimizer: float
    item: float
    tried: bool
    rate: float
    device: str
    grown: int = 0
    busy: float = 1.0


def calibrate(
    config: GamaConfig, recipe: Recipe, shapes: Sequence[Shape], flops: int, held: int, learning: int
) -> Speed:
    """Time this machine for a few seconds.

    Args:
        config, recipe: what is trained.
        shapes: of a usual micro-batch, which is timed, and of the largest one.
        flops: of its forward and backward.
        held: bytes of weights, gradients and optimizer states.
        learning: parameters that learn.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    begun, processor = time.perf_counter(), time.process_time()
    precision = torch.bfloat16 if recipe.training.get("bf16") else torch.float32
    rate = product_rate(device, precision)
    guess = flops / rate / SHARE_OF_RATE[precision]
    item = item_seconds(recipe)
    tried = guess <= _LONGEST and held <= _LARGEST and recipe.quant == "none"
    before = _forget_peak()
    if tried:
        micro_batch, optimizer = _tried(config, recipe, shapes, device)
    else:
        micro_batch, optimizer = guess, _update_seconds(learning, device)
    grown = max(0, resident("VmHWM") - before) if tried and before and device == "cpu" else 0
    busy = (time.process_time() - processor) / (time.perf_counter() - begun)
    return Speed(micro_batch, optimizer, item, tried, rate, device, grown, busy)


def resident(kind: str = "VmRSS") -> int:
    """Bytes of this process in memory (``VmRSS``), or at most until now (``VmHWM``); 0 where no system says so."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(kind)), 0)


def _forget_peak() -> int:
    """Let the peak begin anew; returns what is in memory now, 0 where the peak cannot be told."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 0
    return resident()


def product_rate(device: str, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a large matrix product."""
    side = 8 * _SIDE if device == "cuda" else _SIDE
    left = torch.randn(side, side, device=device).to(dtype)
    seconds = _seconds(lambda: product(left, left), device, 0.5)
    return 2 * side**3 / seconds


def _update_seconds(learning: int, device: str) -> float:
    """Seconds of an optimizer step over so many parameters, by those of one over a part of them."""
    part = max(1, min(learning, _UPDATED))
    parameter = nn.Parameter(torch.zeros(part, device=device))
    parameter.grad = torch.ones_like(parameter)
    return _seconds(_updater([parameter]), device, 0.3) * learning / part


def _updater(learning: list[nn.Parameter]) -> Callable[[], None]:
    """An optimizer step as the Trainer makes it."""
    optimizer = torch.optim.AdamW(learning, lr=0.0, fused=True)

    def update() -> None:
        nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()

    return update


def _tried(config: GamaConfig, recipe: Recipe, shapes: Sequence[Shape], device: str) -> tuple[float, float]:
    """Seconds of a micro-batch and of an optimizer step of a model of random weights."""
    state = torch.random.get_rng_state()
    gama = GamaForConditionalGeneration(config)
    if recipe.lora is not None:
        stages.add_lora(gama, recipe.lora)
    stages.set_trainable(gama, recipe.trainable)
    if is_halved(recipe):
        halve(gama.language_model)
    quicken(gama)
    if footprint.keeps_less(recipe):
        keep_less(gama)
    gama.to(device).train()
    heads = footprint.training_heads(gama, recipe)
    if heads is not None:
        heads.to(device)
    usual, largest = (
        {name: t.to(device) for name, t in footprint.random_inputs(gama, recipe, shape).items()} for shape in shapes
    )
    bf16 = bool(recipe.training.get("bf16"))

    def step(inputs: dict[str, Tensor] = usual) -> None:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
            loss = footprint.shaped_loss(gama, recipe, heads, inputs)
        loss.backward()

    update = _updater([p for p in gama.parameters() if p.requires_grad])
    with attention_of(plain=plain_attention(recipe)):
        micro_batch = _seconds(step, device, _SECONDS)
        step(largest)  # last: in the room that smaller ones have left it does not fit
    updating = _seconds(update, device, 0.3)
    torch.random.set_rng_state(state)
    return micro_batch, updating


def plain_attention(recipe: Recipe) -> bool:
    """Whether training computes attention by plain products: see :func:`gama.training.trainer.run`."""
    return bool(recipe.training.get("bf16")) and not torch.cuda.is_available()


def item_seconds(recipe: Recipe) -> float:
    """Seconds in which the features of one clip are read and augmented."""
    if recipe.objective == "text":
        return 0.0
    rng = np.random.default_rng(0)
    values = np.zeros((_FRAMES, 128), np.float16)

    def read() -> None:
        fbank = torch.from_numpy(values.astype(np.float32))
        if rng.random() < recipe.data.augmentation:
            augment.mask_bands(augment.equalise(fbank, _FRAMES, rng), _FRAMES, rng)

    return _mean_seconds(read, 32)


def _mean_seconds(work: Callable[[], None], count: int) -> float:
    begun = time.perf_counter()
    for _ in range(count):
        work()
    return (time.perf_counter() - begun) / count


def _seconds(work: Callable[[], object], device: str, limit: float) -> float:
    """The median time of one call, after a first one that does not count; two calls or more."""
    taken: list[float] = []
    begun = time.perf_counter()
    while len(taken) < 3 or time.perf_counter() - begun < limit:
        before = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - before)
    return median(taken[1:])
