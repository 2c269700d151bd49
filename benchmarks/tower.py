"""How fast the audio tower is on a CPU, against the matrix products of the same cores in the same run.

    python benchmarks/tower.py --threads 2 --batch 1 8 --markdown
    python benchmarks/tower.py --threads 1 --markdown
    python benchmarks/tower.py --threads 1 --clock cpu      # a busy machine: seconds of the processor, not of the wall

The released sizes (CAV-MAE ViT-B of 12 layers, Q-Former, aggregator, projectors), random weights, the same for every
way. The ways take turns: the original's computation (benchmarks/plain_model.py: attention in steps, six more LayerNorms
a layer, cross-attention whose result is dropped), in float32 and under autocast; this project's tower on PyTorch's own
products; and as it is, in float32 and bfloat16. ``--int8 DIR`` adds a folder of ``gama export onnx --precision int8``,
which holds weights of its own: benchmarks/export.py says how exact it is.

The peak is the better of ``a @ b`` and oneDNN's product of two large matrices. Every way is charged the same work, what
is needed for the answer. The difference is the relative L2 distance of the prefix from the first way's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from plain_model import AudioTower
from printing import Column, emit, parser
from torch import Tensor, nn

from gama import products
from gama.bench.machine import torch_products
from gama.bench.timing import Clock, Timing, alternate
from gama.bench.work import tower_operations
from gama.model.configuration import GamaConfig
from gama.model.tower import GamaAudioTower

SMALL = {
    "audio_config": {"hidden_size": 64, "num_hidden_layers": 9, "num_attention_heads": 2, "intermediate_size": 128},
    "qformer_config": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128},
    "text_config": {"model_type": "llama", "hidden_size": 64, "vocab_size": 64, "num_attention_heads": 2},
}

# -- the ways ----------------------------------------------------------------------------------------------------------


@contextmanager
def own_products() -> Iterator[None]:
    """PyTorch's own products and attention in place of oneDNN's."""
    kinds = products._kinds
    products._kinds = frozenset  # type: ignore[assignment]
    try:
        yield
    finally:
        products._kinds = kinds


def ways(config: GamaConfig, fbank: Tensor, int8: Path | None, threads: int) -> dict[str, Callable[[], Tensor]]:
    torch.manual_seed(0)
    tower = GamaAudioTower(config).eval()
    half = GamaAudioTower(config).eval()
    half.load_state_dict(tower.state_dict())
    half.bfloat16()
    plain = AudioTower(config).eval()
    plain.load_state_dict(tower.state_dict(), strict=False)  # what it has besides counts for nothing

    def original() -> Tensor:
        with own_products():
            return plain(fbank)

    def autocast() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return original()

    def without() -> Tensor:
        with own_products():
            return tower(fbank).prefix

    found: dict[str, Callable[[], Tensor]] = {
        "the original's way, float32": original,
        "the original's way, autocast to bfloat16": autocast,
        "gama on PyTorch's own products, float32": without,
        "gama, float32": lambda: tower(fbank).prefix,
        "gama, bfloat16": lambda: half(fbank).prefix,
    }
    if int8 is not None:
        found["gama, ONNX int8, from the waveform"] = onnx_way(int8, len(fbank), threads)
    return found


def onnx_way(folder: Path, batch: int, threads: int) -> Callable[[], Tensor]:
    from gama.instant.frontend import FrontEnd
    from gama.instant.providers import session

    path = folder / "prefix.onnx"
    front_end = FrontEnd(path, session(path, "cpu", num_threads=threads))
    clips = list(0.1 * np.random.default_rng(0).standard_normal((batch, 160_000)).astype(np.float32))
    return lambda: torch.from_numpy(front_end.prefix(clips))


def measured(options: argparse.Namespace, batch: int, clock: Clock) -> Iterator[dict[str, Any]]:
    config = GamaConfig(**SMALL) if options.smoke else GamaConfig()
    fbank = 0.5 * torch.randn(batch, 1024, 128, generator=torch.Generator().manual_seed(1))
    operations = batch * tower_operations(config.to_dict())
    side = 64 if options.smoke else 2048
    run = ways(config, fbank, options.int8, options.threads)
    with torch.inference_mode():
        prefixes = {name: way().float() for name, way in run.items()}
        # the peaks before and after, so that a clock that slows down is seen
        peaks = [peak_rates(options.threads, side, clock)]
        times = alternate(run, options.repeats, clock=clock)
        peaks.append(peak_rates(options.threads, side, clock))
    peak = {dtype: max(rates[dtype] for rates in peaks) for dtype in peaks[0]}
    first, reference = next(iter(times.values())), next(iter(prefixes.values()))
    for name, timing in times.items():
        rate = operations / timing.median
        yield {
            "way": name,
            "threads": options.threads,
            "batch": batch,
            **spread(timing, batch),
            "gflops": rate / 1e9,
            "of_float32_peak": rate / peak["float32"],
            "of_bfloat16_peak": rate / peak["bfloat16"],
            "times_the_original": first.median / timing.median,
            "difference": None if "ONNX" in name else float((prefixes[name] - reference).norm() / reference.norm()),
            "float32_peak_gflops": peak["float32"] / 1e9,
            "bfloat16_peak_gflops": peak["bfloat16"] / 1e9,
        }


def peak_rates(threads: int, side: int, clock: Clock) -> dict[str, float]:
    return {dtype: torch_products(dtype, threads, side=side, clock=clock) for dtype in ("float32", "bfloat16")}


def spread(timing: Timing, batch: int) -> dict[str, float]:
    """Milliseconds a clip."""
    return {f"ms_{name}": getattr(timing, name) * 1e3 / batch for name in ("median", "low", "high")}


# -- where the time goes -----------------------------------------------------------------------------------------------


def breakdown(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Milliseconds of the processor in each kind of work, for one clip."""
    config = GamaConfig(**SMALL) if options.smoke else GamaConfig()
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        tower = GamaAudioTower(config).eval().to(dtype)
        fbank = torch.randn(1, 1024, 128)
        taken: dict[str, float] = {}
        with torch.inference_mode(), clocked(taken):
            tower(fbank)
            taken.clear()
            begun = time.process_time()
            for _ in range(options.repeats):
                tower(fbank)
            taken["all"] = time.process_time() - begun
        inside = sum(seconds for name, seconds in taken.items() if name != "all")
        taken["additions, casts, pooling, calls"] = taken["all"] - inside
        for name, seconds in sorted(taken.items(), key=lambda item: -item[1]):
            share = seconds / taken["all"]
            rows.append({"dtype": str(dtype)[6:], "part": name, "ms": seconds * 1e3 / options.repeats, "share": share})
    return rows


@contextmanager
def clocked(taken: dict[str, float]) -> Iterator[None]:
    """Count the processor's seconds in the parts; what one part spends in another is counted once."""
    depth = 0
    kept: list[tuple[Any, str, Any]] = []

    def watch(owner: Any, attribute: str, label: Callable[..., str]) -> None:
        inner = getattr(owner, attribute)
        kept.append((owner, attribute, inner))

        def outer(*args: Any, **named: Any) -> Any:
            nonlocal depth
            depth += 1
            begun = time.process_time()
            try:
                return inner(*args, **named)
            finally:
                depth -= 1
                if depth == 0:
                    name = label(*args, **named)
                    taken[name] = taken.get(name, 0.0) + time.process_time() - begun

        setattr(owner, attribute, outer)

    from gama.model import attention, encoder, tower

    def rows(linear: nn.Linear, x: Tensor) -> str:
        return "linear layers of the encoder" if x.shape[-2] > 64 else "linear layers behind it"

    def attending(query: Tensor, *_: Any) -> str:
        return "attention of the encoder" if query.shape[-2] > 64 else "attention behind it"

    try:
        watch(products.Linear, "forward", rows)
        for module in (encoder, attention, tower):
            watch(module, "linear_gelu", rows)
        watch(attention, "attend", attending)
        watch(products.LayerNorm, "forward", lambda *_: "LayerNorm")
        watch(encoder.LinearPatches, "forward", lambda *_: "patches")
        yield
    finally:
        for owner, attribute, inner in reversed(kept):
            setattr(owner, attribute, inner)


COLUMNS = (
    Column("way"),
    Column("threads"),
    Column("batch"),
    Column("ms_median", "ms a clip", ".0f"),
    Column("ms_low", "least quartile", ".0f"),
    Column("ms_high", "upper quartile", ".0f"),
    Column("gflops", "GFLOP/s", ".0f"),
    Column("of_float32_peak", "of the float32 peak", ".2f"),
    Column("of_bfloat16_peak", "of the bfloat16 peak", ".2f"),
    Column("times_the_original", "times the original", ".2f"),
    Column("difference", "difference", ".1e"),
    Column("float32_peak_gflops", "float32 peak, GFLOP/s", ".0f"),
    Column("bfloat16_peak_gflops", "bfloat16 peak, GFLOP/s", ".0f"),
)
PARTS = (Column("dtype"), Column("part"), Column("ms", "ms", ".1f"), Column("share", "share", ".2f"))


def main() -> None:
    command = parser(__doc__, repeats=7)
    command.add_argument("--batch", type=int, nargs="+", default=[1])
    command.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: with one thread alone")
    command.add_argument("--int8", type=Path, metavar="DIR", help="an exported front end of int8 besides")
    command.add_argument("--breakdown", action="store_true", help="where the processor's time goes, in one thread")
    options = command.parse_args()
    if options.breakdown:
        options.threads = 1
    if options.clock == "cpu" and options.threads != 1:
        command.error("--clock cpu counts all threads together: give --threads 1")
    torch.set_num_threads(options.threads)
    if options.breakdown:
        emit(options, "audio tower, parts", PARTS, breakdown(options))
        return
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    rows = [row for batch in options.batch for row in measured(options, batch, clock)]
    emit(options, "audio tower", COLUMNS, rows)


if __name__ == "__main__":
    main()
