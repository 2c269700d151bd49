"""Commands on a disk that fills up at a seeded moment: ``python tests/torture/full_disk.py --seed 1 --count 40``.

Where a small file system can be mounted (Linux, as root), the output lies on a tmpfs with a seeded number of free
bytes; elsewhere no file may grow beyond that number (RLIMIT_FSIZE). A command has to end with status 1 and one line
that names what it could not write, to leave older files as they were, and no temporary file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = 4096
_LONGEST = 900.0  # seconds for one command


@dataclass(frozen=True)
class Outcome:
    """What came of a battery.

    Attributes:
        tried: commands that had less room than they need.
        held: those that ended as they should.
        failures: the others, a line each, with the number of the try.
    """

    tried: int
    held: int
    failures: tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """A command that writes into the folder ``out``.

    Attributes:
        name: of the case.
        words: after ``gama``; OUT is the folder.
        need: bytes that it writes; less than these are free.
        says: what its error names; OUT is the folder.
        typed: what it reads from stdin.
        keeps: endings of files that are left on purpose, so that a run can go on.
        stdout: where its answers go, if not into a pipe.
        old: a file that it replaces.
        every: how rare it is: 1 for the quick ones.
    """

    name: str
    words: tuple[str, ...]
    need: int
    says: str = "OUT"
    typed: str = ""
    keeps: tuple[str, ...] = ()
    stdout: str = ""
    old: str = ""
    every: int = 1


_CLIPS = ("a.wav", "b.wav", "c.wav")
_SHORT = ("--max-new-tokens", "4")
CASES = (
    Case("config", ("config", "set", "temperature", "0.5"), 1, old="config.toml"),
    Case("recipes", ("recipes", "copy", "mini", "OUT/recipe"), 20_000),
    Case("combine", ("prepare", "combine", "rows.json*40", "--out", "OUT/rows.json"), 200_000, old="rows.json"),
    Case(
        *("check", ("prepare", "check", "many.json", "--workers", "1", "--out", "OUT/rows.json"), 100_000),
        old="rows.json",
    ),
    Case("scenes", ("prepare", "scenes", "--count", "3", "--out", "OUT/scenes"), 150_000, keeps=(".flac",)),
    Case("audio", ("prepare", "audio", "clips", "--workers", "1", "--out", "OUT/16k"), 60_000, keeps=(".flac",)),
    Case(
        *("features", ("prepare", "features", "rows.json", "--workers", "1", "--out", "OUT/features"), 60_000),
        keeps=(".safetensors", "paths.jsonl"),
    ),
    Case(
        *("answers", ("ask", "--manifest", "long.json", "--out", "OUT/answers.jsonl", *_SHORT), 90_000),
        keeps=(".partial",),
    ),
    Case("eval", ("eval", "rows.json", "--answers", "OUT/answers.jsonl", *_SHORT), 1, old="answers.jsonl"),
    Case("log", ("chat", "clips/a.wav", "--log", "OUT/log.jsonl", *_SHORT), 1, typed="what?\n", keeps=("log.jsonl",)),
    Case("save", ("chat", "clips/a.wav", *_SHORT), 1, typed="what?\n/save OUT/talk.md\n", old="talk.md"),
    Case("device", ("ask", "--manifest", "rows.json", "--out", "/dev/full", *_SHORT), 1, says="/dev/full"),
    Case(
        *("stdout", ("ask", *(f"clips/{c}" for c in _CLIPS), "what?", *_SHORT), 1),
        says="standard output",
        stdout="/dev/full",
    ),
    Case("table", ("config",), 1, says="standard output", stdout="/dev/full"),
    Case("export", ("export", "--no-answers", "--out", "OUT/onnx"), 2_000_000, every=6),
    Case("quantize", ("quantize", "mini", "--out", "OUT/4bit"), 5_000_000, every=6),
    Case("merged", ("export", "merged", "--out", "OUT/merged"), 20_000_000, every=6),
)  # fmt: skip


def run(seed: int, count: int, *, say: Callable[[str], None] = lambda _: None) -> Outcome:
    """Try commands until ``count`` had too little room.

    Args:
        seed: of the commands and of the room that each has.
        count: tries.
        say: told of every failure.
    """
    chance = random.Random(seed)
    bag = [case for case in CASES for _ in range(max(each.every for each in CASES) // case.every)]
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="gama-full-") as scratch:
        folder = Path(scratch)
        write_inputs(folder)
        for number in range(count):
            case = chance.choice(bag)
            room = chance.randrange(case.need)
            if wrong := attempt(case, room, folder):
                failures.append(f"seed {seed}, try {number}: {case.name} with {room} bytes: {wrong}")
                say(failures[-1])
    return Outcome(count, count - len(failures), tuple(failures))


def write_inputs(folder: Path) -> None:
    """Three clips of a second, and manifests of nine rows about them: short, many, and with long texts."""
    import numpy as np
    import soundfile

    (folder / "clips").mkdir()
    random_state = np.random.default_rng(0)
    event = {"label": "rain", "start": 0.0, "end": 1.0, "count": 1, "level_db": -20.0, "centroid_hz": 900.0}
    row = {"instruction": "what happened?", "input": "", "output": "rain", "dataset": "x", "task": "what"}
    rows = []
    for name in _CLIPS:
        soundfile.write(folder / "clips" / name, 0.1 * random_state.standard_normal(16_000), 16_000)
        rows.append({"audio_id": f"clips/{name}", **row, "events": [event], "duration": 1.0})
    (folder / "rows.json").write_text(json.dumps(rows * 3))
    (folder / "many.json").write_text(json.dumps(rows * 150))
    (folder / "long.json").write_text(json.dumps([{**each, "output": "rain " * 2000} for each in rows * 3]))


@contextmanager
def _small_disk(folder: Path, room: int, old: str) -> Iterator[tuple[Path, int | None]]:
    """A folder with an older file and so many bytes free; and the largest file where it cannot be mounted."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    mounted = _mount(out, room + 4 * _BLOCK)
    try:
        if old:
            text = "temperature = 0.25\n" if old == "config.toml" else "<!-- gama-chat -->\n" + "old\n"
            (out / old).write_text(text)
        if mounted:
            _fill(out / "filler", room)
        yield out, None if mounted else room
    finally:
        if mounted:
            subprocess.run(["umount", str(out)], check=True)


def _mount(out: Path, size: int) -> bool:
    if sys.platform != "linux" or os.geteuid():
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(out)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _fill(filler: Path, room: int) -> None:
    """Leave whole blocks free, at most ``room`` bytes."""
    facts = os.statvfs(filler.parent)
    free = facts.f_bavail * facts.f_frsize
    filler.write_bytes(bytes(max(0, free - room // _BLOCK * _BLOCK)))


def attempt(case: Case, room: int, folder: Path) -> str:
    """What is wrong with one command; empty where it held."""
    with _small_disk(folder, room, case.old) as (out, largest):
        before = _state(out)
        words = [word.replace("OUT", str(out)) for word in case.words]
        stdout = Path(case.stdout).open("wb") if case.stdout else subprocess.PIPE  # noqa: SIM115
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GAMA_HOME": str(out)}
        try:
            done = subprocess.run(
                [sys.executable, "-m", "gama_cli.main", *words],
                cwd=folder, env=environment, input=case.typed.replace("OUT", str(out)).encode(), stdout=stdout,
                stderr=subprocess.PIPE, timeout=_LONGEST, check=False,
                preexec_fn=None if largest is None else partial(_limit, largest),
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"did not end within {_LONGEST:.0f} s"
        finally:
            if not isinstance(stdout, int):
                stdout.close()
        return _wrong(case, out, before, _state(out), done.returncode, done.stderr.decode(errors="replace"))


def _limit(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def _wrong(case: Case, out: Path, before: dict[str, str], after: dict[str, str], status: int, stderr: str) -> str:
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    if "Traceback" in stderr or "internal error" in stderr:
        return stderr.strip().splitlines()[-1]
    if status != 1:
        return f"status {status}: {stderr.strip()[-300:]}"
    if len(errors) != 1 or case.says.replace("OUT", str(out)) not in errors[0]:
        return f"the errors are {errors}"
    if changed := [name for name, digest in before.items() if after.get(name) != digest]:
        return f"changed: {', '.join(changed)}"
    if left := [name for name in set(after) - set(before) if not name.endswith(case.keeps or ("/",))]:
        return f"left: {', '.join(sorted(left))}"
    return ""


def _state(out: Path) -> dict[str, str]:
    """The digest of every file; what is allowed to stay is told from litter by its ending."""
    files = (path for path in sorted(out.rglob("*")) if path.is_file())
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=40)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # nothing stays mounted
    outcome = run(given.seed, given.count, say=print)
    print(f"{outcome.held} of {outcome.tried} held")
    raise SystemExit(outcome.held < outcome.tried)


if __name__ == "__main__":
    main()
