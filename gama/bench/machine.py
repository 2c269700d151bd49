"""What this machine is, and how fast it multiplies and reads. No torch until its rates are asked for."""

from __future__ import annotations

import os
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from gama.bench.timing import Clock, once

PACKAGES = ("numpy", "onnxruntime", "tokenizers", "torch", "transformers", "bitsandbytes")

_SIDE = 2048  # of the square products: large enough for the full rate, 17 GFLOP
_READ = 2**28  # bytes read at once, beyond any cache
_TURNS = 5


def facts() -> dict[str, Any]:
    """Processor, cores of this process, memory, system and versions; None for what the system does not tell."""
    return {
        "cpu": _cpu(),
        "cores": cores(),
        "memory_bytes": _memory(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := installed(name)) is not None},
    }


def installed(name: str) -> str | None:
    """The version of a package; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def cores() -> int:
    """Processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu() -> str:
    file = Path("/proc/cpuinfo")
    if file.is_file():
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


@dataclass(frozen=True)
class Rates:
    """What the machine allows.

    Attributes:
        threads: of these figures.
        read: bytes a second from memory.
        float32, bfloat16: floating-point operations a second of large products; None where nothing here does them.
    """

    threads: int
    read: float
    float32: float
    bfloat16: float | None


def rates(threads: int, *, side: int = _SIDE, turns: int = _TURNS, read: int = _READ) -> Rates:
    """Measure; numpy must have been started with that many threads (``OMP_NUM_THREADS``).

    The rate of products is the best that any library here reaches: numpy, or PyTorch by either of its own.
    """
    with_torch = installed("torch") is not None
    float32 = _numpy_products(side, turns)
    bfloat16 = None
    if with_torch:
        float32 = max(float32, torch_products("float32", threads, side=side, turns=turns))
        bfloat16 = torch_products("bfloat16", threads, side=side, turns=turns)
    return Rates(threads, bandwidth(threads, size=read, turns=turns), float32, bfloat16)


def bandwidth(threads: int, *, size: int = _READ, turns: int = _TURNS) -> float:
    """Bytes a second that the threads together read from memory, at best."""
    parts = np.array_split(np.ones(size // 4, dtype=np.float32), threads)
    with ThreadPoolExecutor(threads) as pool:

        def run() -> None:
            list(pool.map(lambda part: part.max(), parts))

        return size / min(once(run) for _ in range(turns + 1))


def _numpy_products(side: int, turns: int) -> float:
    a = np.random.default_rng(0).standard_normal((side, side), dtype=np.float32)
    return 2.0 * side**3 / min(once(lambda: a @ a) for _ in range(turns + 1))


def torch_products(
    dtype: str, threads: int, *, side: int = _SIDE, turns: int = _TURNS, clock: Clock = time.perf_counter
) -> float:
    """Operations a second of PyTorch's products, at best: of ``@``, and of what the audio tower uses."""
    import torch

    from gama.products import product

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            a = torch.randn(side, side).to(getattr(torch, dtype))
            best = min(min(once(lambda: a @ a, clock), once(lambda: product(a, a), clock)) for _ in range(turns + 1))
    finally:
        torch.set_num_threads(before)
    return 2.0 * side**3 / best
