"""Several processes that work together: those that ``torchrun`` or ``accelerate launch`` starts, and workers of ours.

A worker does not see Ctrl-C, which a terminal sends to all processes of a command: the parent ends it. Where the parent
is killed, its workers die with it. No torch at import.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gama import interrupts

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing.process import BaseProcess

_GLANCE = 0.5  # seconds between two looks at whether a parent that is not multiprocessing's still lives
_PR_SET_PDEATHSIG = 1  # of Linux's prctl


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


# -- workers -----------------------------------------------------------------------------------------------------------


@contextmanager
def shielded() -> Iterator[None]:
    """Processes started inside never see Ctrl-C, from their first instruction on; one that comes meanwhile waits."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows: a worker ignores it as soon as it runs
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # it would be started with the first worker, and lift the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def be_worker() -> None:
    """What a process of ours begins with: it leaves Ctrl-C to the parent, and dies with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # at once, even where a long call holds the GIL
    wait = _wait_for_new_parent if parent is None else parent.join
    threading.Thread(target=_die_after, args=(wait,), daemon=True, name="gama-parent").start()


def _wait_for_new_parent() -> None:
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(_GLANCE)


def _die_after(wait: Callable[[], object]) -> None:
    wait()
    os._exit(1)  # nobody is left to be told


@contextmanager
def process_pool(
    workers: int, start: Callable[..., None] | None = None, arguments: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """Spawned workers, which a signal ends at once; give them work inside :func:`shielded`.

    Args:
        workers: processes.
        start: of a module; runs once in each of them.
        arguments: of ``start``.
    """
    from concurrent.futures import ProcessPoolExecutor

    context = multiprocessing.get_context("spawn")  # threads of torch and numpy do not survive a fork
    first = (pickle.dumps((start, arguments)),)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=first)
    try:
        yield pool
    finally:
        if interrupts.pending():
            for child in multiprocessing.active_children():
                child.terminate()
        pool.shutdown(cancel_futures=interrupts.pending())


def _begin(pickled: bytes, *channels: Any) -> None:
    """A worker's first function: what it is to run comes as bytes, as unpickling it may import for seconds."""
    be_worker()
    start, arguments = pickle.loads(pickled)
    if start is not None:
        start(*arguments, *channels)


def spawn(function: Callable[..., None], *arguments: Any, channel: Any) -> BaseProcess:
    """Start a worker that runs ``function(*arguments, channel)``; it is ended with this process at the latest.

    Args:
        function: of a module.
        arguments: of any kind that can be pickled.
        channel: a queue of multiprocessing.
    """
    pickled = pickle.dumps((function, arguments))
    process = multiprocessing.get_context("spawn").Process(target=_begin, args=(pickled, channel), daemon=True)
    with shielded():
        process.start()
    return process


__all__ = ["be_worker", "count", "first_process_first", "process_pool", "rank", "shielded", "spawn"]
