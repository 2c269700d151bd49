"""What the numbers of TrainingArguments may be: checked before anything is loaded, and without transformers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MOST = 2**31 - 1
"""The largest whole number of a recipe."""


@dataclass(frozen=True)
class Range:
    """The values that a number may have.

    Attributes:
        least, most: both included, unless ``above`` or ``below`` is set.
        above: whether ``least`` itself is left out.
        below: whether ``most`` itself is left out.
        kind: ``int``, ``float``, or one of them with None.
        also: a further value, outside the range.
        meaning: of the further value.
    """

    least: float
    most: float = MOST
    above: bool = False
    below: bool = False
    kind: Any = int
    also: float | None = None
    meaning: str = ""

    def holds(self, value: float | None) -> bool:
        """Whether a value is in it."""
        if value is None or value == self.also:
            return True
        return (value > self.least if self.above else value >= self.least) and (
            value < self.most if self.below else value <= self.most
        )

    def __str__(self) -> str:
        least = f"more than {self.least:g}" if self.above else f"{self.least:g} or more"
        most = "" if self.most >= MOST else f" and {'less than' if self.below else 'at most'} {self.most:g}"
        return least + most + (f", or {self.also:g} {self.meaning}" if self.also is not None else "")


_COUNT = Range(1)
_OPTIONAL_COUNT = Range(1, kind=int | None)
_STEPS = Range(0, above=True, kind=float)  # below 1: a share of all steps
_SEED = Range(0, 2**32 - 1)  # numpy's

RANGES: Mapping[str, Range] = {
    "per_device_train_batch_size": _COUNT,
    "per_device_eval_batch_size": _COUNT,
    "gradient_accumulation_steps": _COUNT,
    "max_steps": Range(1, also=-1, meaning="for num_train_epochs"),
    "num_train_epochs": Range(0, 1e6, above=True, kind=float),
    "learning_rate": Range(0, 1e3, kind=float),
    "warmup_steps": Range(0, kind=float),
    "warmup_ratio": Range(0, 1, kind=float | None),
    "weight_decay": Range(0, 1e3, kind=float),
    "adam_beta1": Range(0, 1, below=True, kind=float),
    "adam_beta2": Range(0, 1, below=True, kind=float),
    "adam_epsilon": Range(0, 1, above=True, kind=float),
    "max_grad_norm": Range(0, 1e9, kind=float),
    "label_smoothing_factor": Range(0, 1, below=True, kind=float),
    "neftune_noise_alpha": Range(0, 1e6, above=True, kind=float | None),
    "torch_empty_cache_steps": _OPTIONAL_COUNT,
    "logging_steps": _STEPS,
    "eval_steps": Range(0, above=True, kind=float | None),
    "eval_delay": Range(0, kind=float),
    "eval_accumulation_steps": _OPTIONAL_COUNT,
    "save_steps": _STEPS,
    "save_total_limit": _OPTIONAL_COUNT,
    "seed": _SEED,
    "data_seed": Range(0, 2**32 - 1, kind=int | None),
    "dataloader_num_workers": Range(0, 1024),
    "dataloader_prefetch_factor": _OPTIONAL_COUNT,
    "ddp_bucket_cap_mb": _OPTIONAL_COUNT,
    "ddp_timeout": _COUNT,
    "local_rank": Range(-1),
}
"""The numeric arguments of TrainingArguments."""


def out_of_range(values: Mapping[str, Any]) -> Iterator[tuple[str, Any, Range]]:
    """Which of some fitted values are outside their range."""
    for key, value in values.items():
        if not RANGES[key].holds(value):
            yield key, value, RANGES[key]
