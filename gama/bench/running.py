"""All the measurements of ``gama bench``, each in a process of its own, as one JSON object."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from gama import __version__
from gama.bench import machine, work
from gama.bench.child import NOISE_SECONDS
from gama.bench.timing import Timing
from gama.checkpoints.bundled import model_folder
from gama.errors import GamaError

FORMAT = 1
"""Of the object; it grows when a measurement changes its meaning."""

RuntimeName = Literal["onnx", "torch"]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        loading: keyword arguments of :func:`gama.load` but for the runtime.
        runtimes: one after the other.
        starts: fresh processes for import, load and the first answer.
        repeats: answers in the process that is kept.
        tokens: most new tokens of an answer.
        quick: rates of the machine from products too small to mean anything; for tests.
    """

    loading: dict[str, Any]
    runtimes: tuple[RuntimeName, ...]
    starts: int = 3
    repeats: int = 7
    tokens: int = 64
    quick: bool = False


@dataclass(frozen=True)
class Limit:
    """What the machine allows: a value in the unit of the measurement, and where it comes from."""

    value: float
    source: str


def measure(plan: Plan, say: Say = lambda text: None) -> dict[str, Any]:
    """Run everything.

    Args:
        plan: what.
        say: told what is measured next.

    Raises:
        GamaError: where a measurement fails, with what it said.
    """
    folder = model_folder(plan.loading.get("name_or_dir"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    say("the machine: memory bandwidth and products")
    many = machine.cores()
    found = {n: _child({"what": "machine", "threads": n, "quick": plan.quick}, threads=n) for n in sorted({1, many})}
    with tempfile.TemporaryDirectory() as place:
        clip = str(Path(place) / "noise.wav")
        _child({"what": "noise", "path": clip})
        runs = [_run(plan, runtime, clip, _Limits(folder, config, found[many]), say) for runtime in plan.runtimes]
    return {
        "gama_bench": FORMAT,
        "gama": __version__,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {**machine.facts(), "rates": list(found.values())},
        "model": {"name": str(plan.loading.get("name_or_dir") or "mini"), "tower_operations": _tower(config)},
        "runs": runs,
    }


def _tower(config: dict[str, Any]) -> float | None:
    try:
        return work.tower_operations(config)
    except (KeyError, TypeError):  # a configuration that leaves out what equals the defaults
        return None


# -- one runtime -------------------------------------------------------------------------------------------------------


def _run(plan: Plan, runtime: RuntimeName, clip: str, limits: _Limits, say: Say) -> dict[str, Any]:
    say(f"{runtime}: {plan.starts} cold starts")
    values, least = _cold(plan, runtime, clip)
    say(f"{runtime}: {plan.repeats} answers")
    asked = {"what": "warm", "runtime": runtime, "loading": plan.loading, "clip": clip}
    warm = _child(asked | {"repeats": plan.repeats, "tokens": plan.tokens})
    values |= warm["seconds"]
    allowed = limits.of(warm["runtime"], warm["prompt_tokens"]) | least
    rows = []
    for name, kind in MEASURES.items():
        if name in values:
            limit = allowed.get(name)
            row = {"name": name, "unit": kind, **asdict(Timing.of(values[name]))}
            rows.append(row | {"limit": limit.value if limit else None, "limited_by": limit.source if limit else None})
    return {"runtime": warm["runtime"], "prompt_tokens": warm["prompt_tokens"], "measures": rows}


MEASURES = {
    "cold start": "s",
    "import": "s",
    "load": "s",
    "first answer": "s",
    "decode": "s",
    "fbank": "s",
    "tower": "s",
    "hear": "s",
    "prefill": "s",
    "first token": "s",
    "token": "s",
    "second question": "s",
    "memory": "bytes",
}
"""What is measured, in the order of an answer, with its unit."""


def _cold(plan: Plan, runtime: RuntimeName, clip: str) -> tuple[dict[str, list[float]], dict[str, Limit]]:
    """Values of each fresh start, and what the bare packages take, in turns."""
    values: dict[str, list[float]] = {}
    bare: dict[str, list[float]] = {"cold start": [], "import": []}
    for _ in range(plan.starts):
        begun = time.perf_counter()
        bare["import"].append(_child({"what": "packages", "runtime": runtime})["import"])
        bare["cold start"].append(time.perf_counter() - begun)
        begun = time.perf_counter()
        found = _child({"what": "cold", "runtime": runtime, "loading": plan.loading, "clip": clip})
        for name, value in {"cold start": time.perf_counter() - begun, **found}.items():
            values.setdefault(name, []).append(value)
    source = "the packages alone"
    return values, {name: Limit(Timing.of(taken).median, source) for name, taken in bare.items()}


@dataclass(frozen=True)
class _Limits:
    """What a model could take at best on this machine."""

    folder: Path
    config: dict[str, Any]
    rates: dict[str, Any]

    def of(self, runtime: dict[str, Any], prompt: int) -> dict[str, Limit]:
        """By name of the measurement; nothing where the processor that computes was not measured."""
        if runtime["device"] != "cpu":
            return {}
        return {name: limit for name, limit in self._all(runtime, prompt) if limit is not None}

    def _all(self, runtime: dict[str, Any], prompt: int) -> Iterator[tuple[str, Limit | None]]:
        text = self.config.get("text_config") or {}
        dtype = runtime["dtype"]
        yield "decode", self._reading(NOISE_SECONDS * 16_000 * (2 + 4))  # of 16 bits, to float32
        yield "fbank", self._products(work.fbank_operations(NOISE_SECONDS), "float32")
        tower = self._products(_tower(self.config), dtype)
        yield from (("tower", tower), ("hear", tower))
        prefill = self._products(work.prefill_operations(text, prompt), dtype)
        yield "prefill", prefill
        if tower is not None and prefill is not None:
            yield "first token", Limit(tower.value + prefill.value, tower.source)
        yield "token", self._reading(work.token_bytes(text, dtype, runtime["quantization"]))
        weights = sum(file.stat().st_size for file in self.folder.glob("*.safetensors"))
        yield "load", self._reading(float(weights) or None)
        yield "memory", Limit(float(weights), "the weights as stored") if weights else None

    def _products(self, operations: float | None, dtype: str) -> Limit | None:
        rate = self.rates.get(dtype)
        return Limit(operations / rate, f"products in {dtype}") if operations and rate else None

    def _reading(self, count: float | None) -> Limit | None:
        return Limit(count / self.rates["read"], "memory bandwidth") if count else None


def _child(given: dict[str, Any], *, threads: int | None = None) -> dict[str, Any]:
    """Measure in a fresh process; with threads, its libraries for linear algebra use that many."""
    extra = {} if threads is None else {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "gama.bench.child", json.dumps(given)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **extra}, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        reason = said[-1] if said else f"exit status {done.returncode}"
        raise GamaError(f"measuring {given['what']} failed: {reason}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


__all__ = ["FORMAT", "MEASURES", "Plan", "measure"]
