"""Runs of a stage that die: started by :mod:`test_killed` in a process of their own, forked from one that is ready.

python killing.py JOBS.json     # a list of jobs; prints how each ended, one a line
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def arm(kind: str, seed: int, output: Path) -> Any:
    """Let this process die, or its disk be full, at a place that the seed tells; returns what watches the steps."""
    chance = random.Random(f"{kind} {seed}")
    step, size, event = chance.randrange(1, 9), chance.randrange(1, 80_000), chance.randrange(1, 220)
    if kind == "file":
        events = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod"}

        def count(name: str, arguments: tuple[Any, ...]) -> None:
            nonlocal event
            if name in events and str(output) in str(arguments[0]):
                event -= 1
                if event == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
    later = chance.uniform(0.0, 0.05)  # seconds after a step
    if kind == "byte":
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # dies at that byte of a file

    def watch(now: int, total: int, numbers: Mapping[str, float]) -> None:
        if kind == "time" and now == step:
            threading.Thread(target=lambda: (time.sleep(later), kill()), daemon=True).start()
        if kind in ("byte", "full") and now == step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    return watch


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run(job: dict[str, Any]) -> None:
    """One run; its end is the exit status, its error the last line of ``error.txt`` beside the output."""
    from gama.errors import GamaError
    from gama.training import trainer
    from gama.training.recipe import load_recipe

    output, parent = Path(job["output"]), Path(job["parent"])
    recipe = load_recipe(Path(job["recipe"]), [f"data.manifests=[{job['manifest']}]"])
    watch = arm(job["kind"], job["seed"], output) if job["kind"] else None
    parents = {"audio_tower": parent, "language_model": parent}
    try:
        trainer.run(recipe, output, parents, Path(job["features"]), resume=True, watch=watch)
    except GamaError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        output.with_suffix(".error").write_text(str(error))
        sys.exit(1)


def main() -> None:
    import torch

    import gama.training.trainer  # noqa: F401 - so that no job waits for it

    torch.set_num_threads(1)
    for job in json.loads(Path(sys.argv[1]).read_text()):
        child = os.fork()
        if child == 0:
            status = 3
            try:
                run(job)
                status = 0
            except SystemExit as end:
                status = int(end.code or 0)
            finally:
                sys.stderr.flush()
                os._exit(status)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
