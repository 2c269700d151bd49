"""How fast the audio front end is on two cores, by torch and as ONNX, and how fast ``gama ask`` starts.

    python benchmarks/export.py --size released --folder /tmp/bench     # random weights of the released sizes
    python benchmarks/export.py --size mini --folder /tmp/bench-mini
    python benchmarks/export.py --cold-start

Exports the graphs once into the folder, then measures each way in a process of its own: the median of clips of 10 s
from waveform to prefix, after warming up; peak memory of that process; the audio tower's operations over the time, as a
share of the float32 matmul peak of the same cores in the same run (the better of ``a @ b`` and oneDNN's product, as in
benchmarks/tower.py). Prints the table of benchmarks/export.md. For a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gama.bench.child import peak_memory

SECONDS = 10.0
REPEATS = {1: 10, 8: 3}
WAYS = ("torch fp32", "torch bf16", "onnx fp32", "onnx int8")
EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "dog_then_bells.flac"


def clips(batch: int) -> np.ndarray:
    random = np.random.default_rng(0)
    return (0.1 * random.standard_normal((batch, round(16_000 * SECONDS)))).astype(np.float32)


def model_of(size: str) -> Any:
    """gama-mini, or random weights of the released sizes in front of a language model of one layer."""
    import torch

    import gama
    from gama.inference.engine import Gama
    from gama.model import GamaConfig, GamaForConditionalGeneration

    mini = gama.load(runtime="torch")
    if size == "mini":
        return mini
    torch.manual_seed(0)
    text = {"model_type": "llama", "vocab_size": 64, "hidden_size": 4096, "intermediate_size": 64}
    heads = {"num_hidden_layers": 1, "num_attention_heads": 32, "num_key_value_heads": 32}
    model = GamaForConditionalGeneration(GamaConfig(text_config=text | heads)).eval()
    return Gama(model, mini.processor, name="released sizes, random weights")


def export(size: str, folder: Path) -> None:
    from gama.checkpoints.bundled import model_folder
    from gama.export.clips import generated_clips
    from gama.export.onnx import Plan, export_front_end

    gama = model_of(size)
    for precision in ("fp32", "int8"):
        plan = Plan(precision=precision, answers=False, allow_drift=True)  # type: ignore[arg-type]
        report = export_front_end(gama, model_folder(), folder / precision, plan, generated_clips(4))
        print(f"{precision}: cosine ≥ {min(c.cosine for c in report.clips):.6f}", file=sys.stderr)


# -- one measurement, in its own process ------------------------------------------------------------------------------


def timed(run: Callable[[], Any], repeats: int) -> float:
    run()
    run()
    taken = []
    for _ in range(repeats):
        begun = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def torch_way(size: str, dtype: str, waveform: np.ndarray) -> tuple[Callable[[], Any], float]:
    """The front end by torch, and the operations of one clip."""
    import torch

    from gama.bench.work import tower_operations
    from gama.fbank import kaldi_fbank

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = model_of(size).model
    fbank, samples = kaldi_fbank(), torch.from_numpy(waveform)
    model.audio_tower.to(getattr(torch, dtype))

    def run() -> Any:
        with torch.inference_mode():
            return model.audio_prefix(fbank(samples))

    return run, tower_operations(model.config.to_dict())


def onnx_way(graph: Path, waveform: np.ndarray) -> Callable[[], Any]:
    from gama.instant.frontend import open_front_end

    front_end = open_front_end(graph, "cpu")
    rows = list(waveform)
    return lambda: front_end.prefix(rows)


def measure(size: str, folder: Path, way: str, batch: int, repeats: int) -> dict[str, Any]:
    waveform = clips(batch)
    flops = 0.0
    if way.startswith("torch"):
        dtype = "float32" if way.endswith("fp32") else "bfloat16"
        run, flops = torch_way(size, dtype, waveform)
    else:
        run = onnx_way(folder / way.split()[1] / "prefix.onnx", waveform)
    seconds = timed(run, repeats)
    peak = (peak_memory() or 0) / 2**20
    return {"way": way, "batch": batch, "seconds": seconds, "peak_mib": peak, "flops": flops}


def matmul_peak() -> float:
    """GFLOP/s of a large float32 product on the cores of this process."""
    from gama.bench.machine import torch_products

    return torch_products("float32", len(os.sched_getaffinity(0)), side=2048) / 1e9


# -- all of them -------------------------------------------------------------------------------------------------------


def aside(*words: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(size: str, folder: Path, repeats: int | None) -> None:
    shared = ("--size", size, "--folder", str(folder))
    peak = aside(*shared, "--measure", "peak")["gflops"]
    found = [
        aside(*shared, "--measure", way, "--batch", str(batch), "--repeats", str(repeats or REPEATS[batch]))
        for way in WAYS
        for batch in REPEATS
    ]
    flops = max(entry["flops"] for entry in found)
    cores = len(os.sched_getaffinity(0))
    print(f"{size}: {flops / 1e9:.1f} GFLOP a clip; matmul peak {peak:.0f} GFLOP/s on {cores} cores\n")
    print("| way | batch | ms a clip | clips/s | share of the matmul peak | peak memory, MiB | file, MB |")
    print("|---|---|---|---|---|---|---|")
    for entry in found:
        a_clip = entry["seconds"] / entry["batch"]
        files = folder.glob(f"{entry['way'].split()[1]}/prefix.onnx*")
        size_mb = f"{sum(f.stat().st_size for f in files) / 1e6:.0f}" if entry["way"].startswith("onnx") else ""
        share = f"{flops / a_clip / 1e9 / peak:.2f}"
        numbers = f"{a_clip * 1e3:.1f} | {1 / a_clip:.1f} | {share} | {entry['peak_mib']:.0f} | {size_mb}"
        print(f"| {entry['way']} | {entry['batch']} | {numbers} |")


def cold_start(repeats: int) -> None:
    """``gama ask`` from nothing to the whole answer, the two runtimes by turns."""
    taken: dict[str, list[float]] = {"onnx": [], "torch": []}
    for _ in range(repeats):
        for runtime, times in taken.items():
            command = [sys.executable, "-m", "gama_cli.main", "ask", str(EXAMPLE), "what happened?"]
            begun = time.perf_counter()
            subprocess.run([*command, "--runtime", runtime], check=True, capture_output=True)
            times.append(time.perf_counter() - begun)
    print("| runtime | median, s | least, s |")
    print("|---|---|---|")
    for runtime, times in taken.items():
        print(f"| {runtime} | {statistics.median(times):.2f} | {min(times):.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["mini", "released"], default="mini")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--cold-start", action="store_true")
    parser.add_argument("--repeats", type=int, help="clips or batches to take medians of")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cold_start:
        cold_start(options.repeats or 7)
    elif options.folder is None:
        parser.error("give --folder for the exported graphs, or --cold-start")
    elif options.measure == "peak":
        print(json.dumps({"gflops": matmul_peak()}))
    elif options.measure:
        repeats = options.repeats or REPEATS[options.batch]
        print(json.dumps(measure(options.size, options.folder, options.measure, options.batch, repeats)))
    else:
        if not (options.folder / "int8" / "prefix.onnx").is_file():
            export(options.size, options.folder)
        table(options.size, options.folder, options.repeats)


if __name__ == "__main__":
    main()
