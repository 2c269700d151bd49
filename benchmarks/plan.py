"""What `gama plan` predicts against what `gama train` then does: seconds a step and memory, for gama-mini's stages.

    python benchmarks/plan.py --steps 12 --stages 1 3 5

Each stage starts from the packaged model and reads scenes of its own making. Memory is the most that the process held
of its own, looked at twenty times a second: pages of files that it maps are not its own, the system can take them back.
Processor seconds are compared beside wall time, because a busy machine stretches the latter. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

GAMA = [sys.executable, "-m", "gama_cli.main"]
_TICK = os.sysconf("SC_CLK_TCK")
_POLL = 0.05  # seconds
_WARM_UP = 3  # steps that are not counted


def planned(words: Sequence[str], folder: Path) -> dict[str, Any]:
    done = subprocess.run([*GAMA, "plan", *words, "--json"], cwd=folder, capture_output=True, text=True, check=True)
    values: dict[str, Any] = json.loads(done.stdout)
    return values


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def own_pages(pid: int) -> int:
    """Bytes in memory that belong to no file."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


def trained(words: Sequence[str], folder: Path) -> dict[str, float]:
    """Run a stage and watch it: seconds and processor seconds a step after the first ones, and its peak of memory."""
    metrics = folder / "run" / "metrics.jsonl"
    process = subprocess.Popen([*GAMA, "train", *words, "--output", "run"], cwd=folder, stderr=subprocess.PIPE)
    peak, at = 0, []
    while process.poll() is None:
        try:
            peak = max(peak, own_pages(process.pid))
            done = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
            if done > len(at):
                at += [(time.monotonic(), processor_seconds(process.pid))] * (done - len(at))
        except (FileNotFoundError, ProcessLookupError):
            break
        time.sleep(_POLL)
    _, said = process.communicate()
    if process.returncode:
        raise SystemExit(said.decode())
    pairs = list(zip(at[_WARM_UP:], at[_WARM_UP + 1 :], strict=False))
    return {
        "seconds": median(b[0] - a[0] for a, b in pairs),
        "processor": (at[-1][1] - at[_WARM_UP][1]) / len(pairs),
        "memory": peak,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="+", default=["1", "2", "3", "4", "5"])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--scenes", type=int, default=64)
    given = parser.parse_args()
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    print("| stage | s a step, planned | actual | processor s, planned | actual | GiB, planned | actual |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as base:
        scenes = ["prepare", "scenes", "--count", str(given.scenes), "--seed", "1", "--out", "scenes"]
        subprocess.run([*GAMA, *scenes], cwd=base, check=True, capture_output=True)
        for stage in given.stages:
            folder = Path(base) / stage
            folder.mkdir()
            same = ["--data", str(Path(base) / "scenes/manifest.json"), "--from", "mini"]
            same += ["--set", f"max_steps={given.steps}", "--stage", stage]
            plan = planned(["mini", *same], folder)
            actual = trained(["--recipe", "mini", *same], folder)
            pairs = [
                (plan["seconds_a_step"], actual["seconds"]),
                (plan["processor_seconds_a_step"], actual["processor"]),
                (plan["memory"]["total"] / 2**30, actual["memory"] / 2**30),
            ]
            print(f"| {stage} | " + " | ".join(f"{a:.3g} | {b:.3g}" for a, b in pairs) + " |", flush=True)


if __name__ == "__main__":
    main()
