"""transformers' Trainer around an objective: its own weights, its own checkpoints, its own numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.data import RandomSampler, SequentialSampler
from transformers import Trainer, TrainerCallback

from gama.data.dataset import EpochDataset
from gama.errors import CheckpointError, GamaError
from gama.training import checkpoints
from gama.training.grouping import LengthGrouped
from gama.training.metrics import StepNumbers

Beside = Callable[[int], Mapping[str, str]]
"""Step -> the texts that are kept beside a checkpoint's weights, by the name of their file."""


class StageTrainer(Trainer):
    """transformers' Trainer around a :class:`~gama.training.objectives.TrainingObjective`.

    Args:
        numbers: filled while a step is computed.
        beside: what else a checkpoint holds.
    """

    def __init__(self, *args: Any, numbers: StepNumbers, beside: Beside, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.numbers = numbers
        self.beside = beside
        self._run_dir: str | None = None

    def training_step(self, model: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        loss = super().training_step(model, *args, **kwargs)
        self.numbers.add(loss)
        return loss

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        self.numbers.grad_norm = super()._clip_grad_norm(model)
        return self.numbers.grad_norm

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        self.numbers.grad_norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        return self.numbers.grad_norm

    def prediction_step(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, None, None]:
        """The loss alone, whatever the batch calls its targets."""
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = self.compute_loss(model, self._prepare_inputs(inputs))
        return loss.detach(), None, None

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        dataset = train_dataset or self.train_dataset
        if self.args.train_sampling_strategy == "group_by_length" and dataset.lengths is not None:
            together = self.args.train_batch_size * self.args.world_size
            return LengthGrouped(dataset, dataset.lengths, batch=together, seed=self.args.seed)
        if self.args.train_sampling_strategy == "group_by_length":
            return RandomSampler(dataset)  # the length of every row is drawn anew each time
        return super()._get_train_sampler(train_dataset)

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        return SequentialSampler(eval_dataset)

    def gathered(self) -> dict[str, Tensor] | None:
        """The model's weights where they lie in pieces in all processes, which must all ask; otherwise None."""
        if not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            return None
        state = self.accelerator.get_state_dict(self.model_wrapped)
        return {name.removeprefix("gama."): t for name, t in state.items() if name.startswith("gama.")}

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def _get_output_dir(self, trial: Any) -> str:
        return self._run_dir or str(super()._get_output_dir(trial))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        output, step = Path(self.args.output_dir), self.state.global_step
        del self.state.log_history[:-1]  # metrics.jsonl is the record; it would be written again with every save
        self._run_dir = str(output / checkpoints.PARTIAL)
        try:
            super()._save_checkpoint(model, trial)
            if self.args.should_save:
                for name, text in self.beside(step).items():
                    (Path(self._run_dir) / f"checkpoint-{step}" / name).write_text(text, encoding="utf-8")
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                checkpoints.finish(output, step, self.args.save_total_limit)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise GamaError(
                f"{output}: checkpoint-{step} could not be written: {' '.join(str(error).split())}; {_left(output)}",
                "make room on the disk and continue with --resume",
            ) from error
        finally:
            self._run_dir = None
        self.accelerator.wait_for_everyone()

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        checkpoints.write_weights(self.model, state_dict if state_dict is not None else self.model.state_dict(), folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        with _reading(resume_from_checkpoint, checkpoints.WEIGHTS):
            checkpoints.read_weights(model or self.model, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with _reading(checkpoint, "optimizer.pt or scheduler.pt"):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with _reading(checkpoint, "rng_state.pth"):
            super()._load_rng_state(checkpoint)


@contextmanager
def _reading(checkpoint: str | None, files: str) -> Iterator[None]:
    """A part of a checkpoint that cannot be loaded is named, and nothing in it is ever run."""
    try:
        yield
    except GamaError:
        raise
    except UnpicklingError as error:
        raise CheckpointError(
            f"{checkpoint}: {files} holds something else than numbers, and was not loaded",
            "put the file back that the run wrote, or train anew into another --output",
        ) from error
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, EOFError, SafetensorError) as error:
        raise CheckpointError(
            f"{checkpoint}: {files} cannot be loaded: {' '.join(str(error).split())[:200]}",
            "put the file back that the run wrote, or train anew into another --output",
        ) from error


def _left(output: Path) -> str:
    last = checkpoints.last_checkpoint(output)
    return "there is no earlier one" if last is None else f"{last.name} is whole"


class Epochs(TrainerCallback):
    """Tells the data which epoch it is: accelerate forgets to where batches are skipped or shared among processes."""

    def __init__(self, dataset: EpochDataset) -> None:
        self.dataset = dataset

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.dataset.set_epoch(int((state.epoch or 0.0) + 1e-6))
