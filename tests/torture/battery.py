"""``make torture``: every battery one after the other, with seeds of your choice, within 20 minutes.

    python tests/torture/battery.py --seed 7 --minutes 20 --only audio

Each battery is tried in parts until its count or its share of the time is used up; what was tried is what is counted.
The last lines are a table in Markdown, as docs/reliability.md has it.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

PARTS = 10
"""Calls by which a battery reaches its count."""


@dataclass(frozen=True)
class Battery:
    """One kind of trouble.

    Attributes:
        module: of this folder; its ``run(seed, count)`` returns an object with tried, held and failures.
        what: for the table.
        count: how many inputs, commands or pairs.
        share: of the time.
    """

    module: str
    what: str
    count: int
    share: float


BATTERIES = {
    "audio": Battery("bad_audio", "damaged clips of every container and codec, 5 kinds of damage", 22_500, 0.25),
    "checkpoints": Battery("bad_checkpoints", "damaged weight files and model folders", 600, 0.12),
    "quantized": Battery("bad_quantized", "changed 4-bit folders", 250, 0.10),
    "text": Battery("bad_text", "recipes, tables, manifests, transcripts, settings", 800, 0.10),
    "chat": Battery("bad_chat", "malformed lines for `gama chat --json`", 2_000, 0.04),
    "hub": Battery("hostile_hub", "lies of a model hub", 2_000, 0.06),
    "disk": Battery("full_disk", "commands on a disk that fills up", 60, 0.08),
    "pairs": Battery("concurrency", "two commands on one target", 20, 0.05),
    "kills": Battery("kills", "SIGKILL of training and of long runs, then a resume", 20, 0.08),
    "interrupts": Battery("interrupts", "Ctrl-C, SIGTERM and SIGKILL of every command at any moment", 200, 0.12),
}


@dataclass(frozen=True)
class Figures:
    """What became of a battery: counts, and a line for each failure."""

    tried: int
    held: int
    failures: tuple[str, ...]
    seconds: float


def run(battery: Battery, seed: int, count: int, seconds: float) -> Figures:
    """Try ``count`` inputs, or as many as fit into the time; a part that has begun is ended."""
    module: Any = importlib.import_module(f"torture.{battery.module}")
    begun, tried, held, failures = time.monotonic(), 0, 0, []
    part = max(1, -(-count // PARTS))
    for number in range(-(-count // part)):
        spent = time.monotonic() - begun
        if number and spent + spent / number > seconds:
            break
        outcome = module.run(seed * 1000 + number, min(part, count - number * part))
        tried, held = tried + outcome.tried, held + outcome.held
        failures += [" ".join(str(failure).split()) for failure in outcome.failures]
    return Figures(tried, held, tuple(failures), time.monotonic() - begun)


def main(words: Sequence[str] | None = None) -> int:
    import argparse

    parser = argparse.ArgumentParser(description="Try bad input, signals and full disks on gama.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--only", choices=BATTERIES, action="append", help="may be given several times")
    given = parser.parse_args(words)
    chosen = {name: BATTERIES[name] for name in given.only or BATTERIES}
    whole = sum(battery.share for battery in chosen.values())
    rows, failed = [], 0
    for name, battery in chosen.items():
        found = run(battery, given.seed, battery.count, given.minutes * 60 * battery.share / whole)
        failed += len(found.failures)
        rows.append(f"| {battery.what} | {found.tried:,} | {found.held:,} | {found.seconds:.0f} s |")
        print(f"{name}: {found.held} of {found.tried} held, {found.seconds:.0f} s", flush=True)
        for failure in found.failures:
            print(f"  {failure[:400]}", flush=True)
    print("\n".join(["", "| what | tried | held | took |", "|---|---:|---:|---:|", *rows]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
