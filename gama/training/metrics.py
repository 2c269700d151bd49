"""The numbers of every optimizer step: looked at before the weights move, written as one JSON line afterwards."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from gama.atomic import write_errors, write_text
from gama.errors import GamaError
from gama.training.checkpoints import last_checkpoint

METRICS = "metrics.jsonl"

Watch = Callable[[int, int, Mapping[str, float]], None]
"""Called after every optimizer step with its number, how many there will be, and its numbers."""


@dataclass
class StepNumbers:
    """What one optimizer step is made of, gathered while it is computed.

    Attributes:
        loss: sum over the micro-batches of what each contributes; stays on the device.
        grad_norm: before clipping.
        learning_rate: with which the weights move.
    """

    loss: Tensor | None = None
    grad_norm: Any = None
    learning_rate: float = 0.0

    def add(self, loss: Tensor) -> None:
        """Count a micro-batch."""
        self.loss = loss.detach() if self.loss is None else self.loss + loss.detach()

    def own_loss(self, processes: int) -> float:
        """The step's loss, the mean over all processes; the next step begins with none."""
        if self.loss is None:
            return math.nan
        if processes > 1:
            torch.distributed.all_reduce(self.loss)
            self.loss = self.loss / processes
        value, self.loss = float(self.loss), None
        return value


class MetricsLog(TrainerCallback):
    """One JSON line for each optimizer step in ``metrics.jsonl``, whatever ``logging_steps`` is.

    After a resume no step stands twice. A loss or gradient that is no number ends the run before the weights are
    touched, in all processes alike.

    Args:
        path: the file.
        numbers: shared with the loop that fills it.
        watch: shown the progress.
    """

    def __init__(self, path: Path, numbers: StepNumbers, watch: Watch | None = None) -> None:
        self.path = path
        self.numbers = numbers
        self.watch = watch
        self.loss = math.nan
        self.begun = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.begun = time.monotonic()
        if self.path.exists() and state.is_world_process_zero:
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
            write_text(self.path, "".join(f"{line}\n" for line in lines if _step(line) <= state.global_step))

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        self.loss = self.numbers.own_loss(args.world_size)
        self._require_finite("loss", self.loss, state)
        if not args.fp16:  # there the scaler skips such a step by design
            self._require_finite("gradient norm", self.numbers.grad_norm, state)
        self.numbers.learning_rate = float(optimizer.param_groups[0]["lr"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        now = time.monotonic()
        rows = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        line = {"loss": self.loss, "learning_rate": self.numbers.learning_rate, "epoch": float(state.epoch or 0.0)}
        if self.numbers.grad_norm is not None:
            line["grad_norm"] = float(self.numbers.grad_norm)
        line["rows_per_s"] = round(rows / max(now - self.begun, 1e-9), 3)
        self.begun = now
        with write_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": state.global_step, **line}) + "\n")
        if self.watch is not None:
            self.watch(state.global_step, state.max_steps, line)

    def _require_finite(self, what: str, value: Any, state: Any) -> None:
        if value is None or math.isfinite(float(value)):
            return
        last = last_checkpoint(self.path.parent)
        kept = f"; {last.name} is kept" if last else ""
        raise GamaError(
            f"the {what} became {float(value)} at step {state.global_step + 1}{kept}",
            "train anew into another --output with a lower learning_rate",
        )


def _step(line: str) -> float:
    """The step of a line of metrics; infinity for a line that was cut short when a run was killed."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return math.inf
