"""Several processes that work together, as ``torchrun`` or ``accelerate launch`` starts them. No torch at import."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def first_process_first() -> Iterator[bool]:
    """What is inside runs in the first process before it runs in the others; yields whether this is the first."""
    if count() == 1:
        yield True
        return
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())
    with state.main_process_first():
        yield rank() == 0


__all__ = ["count", "first_process_first", "rank"]
