"""How long ``gama ask`` takes from nothing, and the second question in one process, against importing what it needs.

    python benchmarks/ask.py --markdown
    python benchmarks/ask.py --runtime onnx --repeats 20

The packaged model and a clip of 10 s; each cold start is a process of its own, the ways by turns. The import is the
packages alone (numpy, soundfile, tokenizers, onnxruntime; or numpy, soundfile, torch, transformers) in a process that
does nothing else. The second question is about the same clip, in Python, with the model loaded: what was heard is kept.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from printing import Column, emit, parser

from gama.bench.machine import installed
from gama.bench.timing import Timing, alternate

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "dog_then_bells.flac"
QUESTIONS = ("what happened?", "is there a dog in this recording?")

SECOND = """
import json, sys, time
from gama.inference.opening import load
asker = load(runtime={runtime!r})
from gama import audio
clip = audio.load({clip!r})
asker.ask(clip, {first!r})
taken = []
for _ in range({repeats}):
    begun = time.perf_counter()
    asker.ask(clip, {second!r})
    taken.append(time.perf_counter() - begun)
print(json.dumps(taken))
"""

COLUMNS = (
    Column("runtime"),
    Column("what"),
    Column("ms_median", "ms", ".0f"),
    Column("ms_low", "least quartile", ".0f"),
    Column("ms_high", "upper quartile", ".0f"),
)


def process(*words: str) -> Callable[[], Any]:
    return lambda: subprocess.run([sys.executable, *words], check=True, capture_output=True)


def starts(runtime: str) -> dict[str, Callable[[], Any]]:
    bare = json.dumps({"what": "packages", "runtime": runtime})
    ask = ("-m", "gama_cli.main", "ask", str(EXAMPLE), QUESTIONS[0], "--runtime", runtime)
    return {
        f"{runtime}|import of the packages alone, in a process": process("-m", "gama.bench.child", bare),
        f"{runtime}|gama ask, in a process": process(*ask),
    }


def second(runtime: str, repeats: int) -> Timing:
    script = SECOND.format(
        runtime=runtime, clip=str(EXAMPLE), first=QUESTIONS[0], second=QUESTIONS[1], repeats=repeats + 1
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return Timing.of(json.loads(done.stdout.splitlines()[-1])[1:])


def main() -> None:
    command = parser(__doc__, repeats=7)
    command.add_argument("--runtime", choices=["onnx", "torch"], action="append")
    options = command.parse_args()
    everything = ["onnx", "torch"] if installed("torch") else ["onnx"]
    runtimes = options.runtime or (["onnx"] if options.smoke else everything)
    repeats = 1 if options.smoke else options.repeats
    ways = {name: way for runtime in runtimes for name, way in starts(runtime).items()}
    times = {"python|an empty process": process("-c", "")} | ways
    found = alternate(times, repeats, warm=0 if options.smoke else 1, clock=time.perf_counter)
    found |= {f"{runtime}|second question, in Python": second(runtime, 3 * repeats) for runtime in runtimes}
    rows = [
        {
            "runtime": name.partition("|")[0],
            "what": name.partition("|")[2],
            **{f"ms_{part}": getattr(timing, part) * 1e3 for part in ("median", "low", "high")},
        }
        for name, timing in found.items()
    ]
    emit(options, "gama ask", COLUMNS, rows)


if __name__ == "__main__":
    main()
