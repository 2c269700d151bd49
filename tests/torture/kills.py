"""SIGKILL at seeded moments of training and of answering a manifest: ``python tests/torture/kills.py --seed 1``.

The commands run in children forked from a process that has imported everything, so that a moment is one of the work and
not of the imports. What holds: after one or two kills and a resume, metrics and weights, or the file of answers, are
those of a run that nothing disturbed; and at every kill the files that had their names before are whole.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CLIPS = 12
STEPS = 9


@dataclass(frozen=True)
class Failure:
    """A try that lost something.

    Attributes:
        command: ``train`` or ``ask``.
        number: of the try; the same seed kills at the same moments of an equally fast machine.
        delays: seconds from the start to each kill.
        wrong: what was lost, or how the command ended.
    """

    command: str
    number: int
    delays: tuple[float, ...]
    wrong: str


@dataclass
class Outcome:
    """Counts of the battery.

    Attributes:
        tried: commands that were killed while they ran, and resumed.
        held: those that lost nothing.
        finished: commands that had ended before their kill; counted in neither.
    """

    tried: int = 0
    held: int = 0
    finished: int = 0
    failures: list[Failure] = field(default_factory=list)


# -- the process that the commands are forked from ---------------------------------------------------------------------


def _serve() -> None:
    """Reads jobs from stdin, ``{"words": […], "delay": seconds or null}`` a line, and answers with a line each."""
    import torch

    import gama.inference.opening
    import gama.instant.engine
    import gama.training.calibration
    import gama.training.trainer
    from gama_cli.main import cli

    del gama
    torch.set_num_threads(1)
    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        begun = time.monotonic()
        child = os.fork()
        if child == 0:
            _run(cli, job["words"], Path(job["log"]))
        timer = None if job["delay"] is None else threading.Timer(job["delay"], os.kill, (child, signal.SIGKILL))
        if timer is not None:
            timer.start()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if timer is not None:
            timer.cancel()
        print(json.dumps([status, time.monotonic() - begun]), flush=True)


def _run(cli: Any, words: list[str], log: Path) -> None:
    status = 3
    try:
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        cli.main(words, prog_name="gama")
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


class _Server:
    def __init__(self, folder: Path) -> None:
        self.log = folder / "command.log"
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__, "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=folder,
        )
        assert self._line() == "ready\n", "the server does not start"

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def run(self, words: list[str], delay: float | None = None) -> tuple[int, float]:
        """Exit status, negative for a signal, and seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"words": words, "delay": delay, "log": str(self.log)}) + "\n")
        self._process.stdin.flush()
        status, seconds = json.loads(self._line())
        return status, seconds

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


# -- the commands ------------------------------------------------------------------------------------------------------


class _Train:
    """A stage of nine steps with three saves."""

    name = "train"

    def __init__(self, folder: Path) -> None:
        sys.path.insert(0, str(ROOT / "tests"))
        from training import tiny

        self.folder = folder
        tiny.write_parent(folder / "base")
        self.manifest = tiny.write_clips(folder / "scenes", 6)
        self.recipe = tiny.write_stage(
            folder / "mine" / "stage1.yaml", max_steps=STEPS, save_steps=3, logging_steps=4, warmup_steps=3
        )

    def words(self, name: str, *, resume: bool) -> list[str]:
        places = ["--data", str(self.manifest), "--from", str(self.folder / "base")]
        words = ["train", "--recipe", str(self.recipe), "--stage", "1", *places, "--output", str(self.folder / name)]
        return [*words, "--resume"] if resume else words

    def prepare(self, name: str, chance: random.Random) -> None:
        """Nothing is there before."""

    def whole(self, name: str) -> str:
        """What is wrong with the files that have their names."""
        from gama.training.checkpoints import damage, numbered

        for checkpoint in numbered(self.folder / name).values():
            if fault := damage(checkpoint, contents=True):
                return f"{checkpoint.name} is not whole: {fault}"
        return ""

    def result(self, name: str) -> Any:
        """What a run leaves: its metrics but for the time, and its weights."""
        from safetensors.torch import load_file

        lines = (self.folder / name / "metrics.jsonl").read_text().splitlines()
        metrics = [{k: v for k, v in json.loads(line).items() if k != "rows_per_s"} for line in lines]
        weights = {k: v.tolist() for k, v in load_file(self.folder / name / "model.safetensors").items()}
        return metrics, weights

    def left(self, name: str) -> list[str]:
        """Files of a killed run that nobody needs."""
        return [path.name for path in (self.folder / name).iterdir() if path.suffix == ".tmp"]


class _Ask:
    """A manifest of questions to the packaged model; every second time over the answers of an earlier run."""

    name = "ask"

    def __init__(self, folder: Path) -> None:
        import numpy as np
        import soundfile

        self.folder = folder
        noise = np.random.default_rng(0)
        rows = []
        for number in range(CLIPS):
            soundfile.write(folder / f"{number}.wav", 0.1 * noise.standard_normal(16_000), 16_000)
            for question in ("what happened?", "is there a dog?"):
                rows.append({"audio_id": f"{number}.wav", "instruction": question})
        rows.insert(5, {"audio_id": "none.wav", "instruction": "what happened?"})
        (folder / "rows.json").write_text(json.dumps(rows))
        self.before = ""

    def words(self, name: str, *, resume: bool) -> list[str]:
        own = ["ask", "--manifest", str(self.folder / "rows.json"), "--out", str(self.folder / name)]
        words = [*own, "--batch-size", "2", "--max-new-tokens", "12"]
        return [*words, "--resume"] if resume else words

    def prepare(self, name: str, chance: random.Random) -> None:
        """Perhaps the answers of an earlier run."""
        self.before = (self.folder / "whole").read_text() if chance.random() < 0.5 else ""
        if self.before:
            (self.folder / name).write_text(self.before)

    def whole(self, name: str) -> str:
        file = self.folder / name
        there = file.read_text() if file.exists() else ""
        known = {self.before, (self.folder / "whole").read_text()}
        return "" if there in known else f"{name} is neither what it was nor whole"

    def result(self, name: str) -> Any:
        return (self.folder / name).read_text()

    def left(self, name: str) -> list[str]:
        return [path.name for path in self.folder.glob(f"{name}.*")]


def _ended(status: int, command: str) -> bool:
    return status == (1 if command == "ask" else 0)  # one clip of the manifest does not exist


def _tried(
    server: _Server, command: _Train | _Ask, name: str, expected: Any, seconds: float, chance: random.Random
) -> tuple[str, tuple[float, ...]]:
    """What was lost, and when it was killed; no moments where it ended first."""
    command.prepare(name, chance)
    delays: list[float] = []
    for turn in range(chance.choice([1, 1, 2])):
        delay = chance.uniform(0.0, seconds)
        status, _ = server.run(command.words(name, resume=turn > 0), delay)
        if status != -signal.SIGKILL:
            return ("" if _ended(status, command.name) else f"status {status}: {server.log.read_text()[-300:]}"), ()
        delays.append(round(delay, 3))
        if wrong := command.whole(name):
            return f"after the kill: {wrong}", tuple(delays)
    status, _ = server.run(command.words(name, resume=True))
    if not _ended(status, command.name):
        return f"resumed: status {status}: {server.log.read_text()[-300:]}", tuple(delays)
    if command.result(name) != expected:
        return "the result is another", tuple(delays)
    return (f"left behind: {left}" if (left := command.left(name)) else ""), tuple(delays)


def run(seed: int, count: int) -> Outcome:
    """Kill ``count`` commands, training and answering in turn.

    Args:
        seed: of the moments.
        count: tries.
    """
    chance, outcome = random.Random(seed), Outcome()
    with tempfile.TemporaryDirectory(prefix="kills") as temporary:
        folder = Path(temporary)
        server = _Server(folder)
        try:
            commands: list[_Train | _Ask] = []
            for make in (_Train, _Ask):
                (folder / make.name).mkdir()
                commands.append(make(folder / make.name))
            expected, times = {}, {}
            for command in commands[:count]:
                server.run(command.words("first", resume=False))  # features, caches of files: the next one is as fast
                status, times[command.name] = server.run(command.words("whole", resume=False))
                assert _ended(status, command.name), server.log.read_text()
                expected[command.name] = command.result("whole")
            for number in range(count):
                command = commands[number % len(commands)]
                name = f"try{number}"
                facts = expected[command.name], times[command.name]
                wrong, delays = _tried(server, command, name, *facts, chance)
                outcome.finished += not delays and not wrong
                outcome.tried += bool(delays or wrong)
                outcome.held += bool(delays) and not wrong
                if wrong:
                    outcome.failures.append(Failure(command.name, number, delays, wrong))
                elif (command.folder / name).is_dir():
                    shutil.rmtree(command.folder / name)
        finally:
            server.close()
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        _serve()
        return
    outcome = run(given.seed, given.count)
    for failure in outcome.failures:
        print(f"{failure.number} {failure.command} killed after {failure.delays}: {failure.wrong}")
    print(f"tried {outcome.tried}, held {outcome.held}, finished before their kill {outcome.finished}")
    sys.exit(bool(outcome.failures))


if __name__ == "__main__":
    main()
