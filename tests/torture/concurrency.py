"""Pairs of commands on one target at once: ``python tests/torture/concurrency.py --seed 1 --count 20``.

Both may end well, one after the other, or one is refused with a line that names the other; what is there at the end is
what one of them alone would have written, whole, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from torture.full_disk import ROOT, Outcome, write_inputs

_LONGEST = 600.0  # seconds for both
_LATEST = 1.5  # seconds from the first command's start to the second's
_SHORT = ("--max-new-tokens", "4")


@dataclass(frozen=True)
class Pair:
    """Two commands on one target.

    Attributes:
        name: of the pair.
        first, second: words after ``gama``; OUT is the folder of the target.
        one: whether the later one is to be refused while the first runs; otherwise it waits.
        check: says what is wrong with the folder at the end; empty for nothing.
        every: how rare it is: 1 for the quick ones.
    """

    name: str
    first: tuple[str, ...]
    second: tuple[str, ...]
    one: bool
    check: Callable[[Path], str]
    every: int = 1


def _settings(out: Path) -> str:
    import tomllib

    found = tomllib.loads((out / "config.toml").read_text())
    return "" if found == {"seed": 1, "top_k": 2} else f"an update is lost: {found}"


def _answers(out: Path) -> str:
    rows = [json.loads(line)["row"] for line in (out / "answers.jsonl").read_text().splitlines()]
    return "" if rows == list(range(1, 10)) else f"rows {rows}"


def _manifest(out: Path) -> str:
    rows = json.loads((out / "scenes" / "manifest.json").read_text())
    clips = [row["audio_id"] for row in rows]
    audio = sorted(path.name for path in (out / "scenes" / "audio").iterdir())
    whole = [f"audio/{name}" for name in audio] == clips == [f"audio/{i:06d}.flac" for i in range(4)]
    return "" if whole else f"clips {clips}, files {audio}"


def _features(out: Path) -> str:
    from gama.data.shard_index import Folder
    from gama.data.shards import VERSION, damaged

    count = len(Folder(out / "features", VERSION).keys)
    return "" if count == 3 and not damaged(out / "features") else f"{count} contents"


def _run(out: Path) -> str:
    steps = [json.loads(line)["step"] for line in (out / "run" / "metrics.jsonl").read_text().splitlines()]
    return "" if steps == [1, 2, 3] and (out / "run" / "config.json").is_file() else f"steps {steps}"


def _model(name: str) -> Callable[[Path], str]:
    return lambda out: "" if list((out / name).rglob("*.safetensors")) else "no weights"


def _twice(
    name: str, words: tuple[str, ...], check: Callable[[Path], str], *, one: bool = True, every: int = 1
) -> Pair:
    return Pair(name, words, words, one, check, every)


_TRAIN = ("train", "--recipe", "mini", "--stage", "3", "--from", "mini", "--data", "rows.json", "--set", "max_steps=3")
PAIRS = (
    Pair("settings", ("config", "set", "seed", "1"), ("config", "set", "top_k", "2"), one=False, check=_settings),
    _twice("answers", ("ask", "--manifest", "rows.json", "--out", "OUT/answers.jsonl", *_SHORT), _answers),
    _twice("scenes", ("prepare", "scenes", "--count", "4", "--out", "OUT/scenes"), _manifest),
    _twice(
        *("features", ("prepare", "features", "rows.json", "--workers", "1", "--out", "OUT/features"), _features),
        one=False,
        every=2,
    ),
    _twice("quantize", ("quantize", "mini", "--out", "OUT/4bit"), _model("4bit"), every=3),
    _twice("merged", ("export", "merged", "--out", "OUT/merged"), _model("merged"), every=3),
    _twice("train", (*_TRAIN, "--output", "OUT/run"), _run, every=3),
)  # fmt: skip


def run(seed: int, count: int, *, say: Callable[[str], None] = lambda _: None) -> Outcome:
    """Run pairs of commands.

    Args:
        seed: of the pairs and of the time between the two.
        count: pairs.
        say: told of every failure.
    """
    chance = random.Random(seed)
    bag = [pair for pair in PAIRS for _ in range(max(each.every for each in PAIRS) // pair.every)]
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="gama-pairs-") as scratch:
        folder = Path(scratch)
        write_inputs(folder)
        for number in range(count):
            pair, apart = chance.choice(bag), chance.uniform(0, _LATEST)
            if wrong := attempt(pair, apart, folder):
                failures.append(f"seed {seed}, try {number}: {pair.name}, {apart:.2f} s apart: {wrong}")
                say(failures[-1])
    return Outcome(count, count - len(failures), tuple(failures))


def attempt(pair: Pair, apart: float, folder: Path) -> str:
    """What is wrong with one pair; empty where it held."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    first = _started(pair.first, folder, out)
    time.sleep(apart)
    second = _started(pair.second, folder, out)
    ends = []
    for process in (first, second):
        try:
            _, stderr = process.communicate(timeout=_LONGEST)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return "did not end"
        ends.append((process.returncode, stderr))
    return _wrong(pair, ends) or pair.check(out) or _litter(out)


def _started(words: tuple[str, ...], folder: Path, out: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GAMA_HOME": str(out)}
    environment |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "gama_cli.main", *(word.replace("OUT", str(out)) for word in words)]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, **pipes)  # type: ignore[call-overload]


def _wrong(pair: Pair, ends: list[tuple[int, str]]) -> str:
    for status, stderr in ends:
        if "Traceback" in stderr or "internal error" in stderr:
            return stderr.strip().splitlines()[-1]
        if status not in (0, 1):
            return f"status {status}: {stderr.strip()[-300:]}"
    if not any(status == 0 for status, _ in ends):
        return f"both failed: {ends[0][1].strip()[-300:]}"
    refused = [stderr for status, stderr in ends if status]
    if refused and not pair.one:
        return f"one was refused: {refused[0].strip()[-300:]}"
    # one that came when the first had ended finds what it has written, which is another reason
    if refused and not any(word in refused[0] for word in ("has been writing", "holds", "exists", "is writing")):
        return f"refused for another reason: {refused[0].strip()[-300:]}"
    return ""


def _litter(out: Path) -> str:
    endings = (".tmp", ".lock", ".part", ".partial")
    left = [str(path.relative_to(out)) for path in out.rglob("*") if path.name.endswith(endings)]
    left += [str(path.relative_to(out)) for path in out.rglob("*.partial-*")]
    return f"left: {', '.join(sorted(left))}" if left else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=20)
    given = parser.parse_args()
    outcome = run(given.seed, given.count, say=print)
    print(f"{outcome.held} of {outcome.tried} held")
    raise SystemExit(outcome.held < outcome.tried)


if __name__ == "__main__":
    main()
