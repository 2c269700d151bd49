"""Runs that die at any moment, in the midst of a save too, and go on to the losses of an undisturbed one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from training import tiny

from gama.training.checkpoints import last_checkpoint

STEPS = 9
SEEDS = int(os.environ.get("GAMA_TEST_SEEDS", "2"))  # of each kind of death; more of them take longer and find more
KILLED, TOO_LONG = -signal.SIGKILL, -signal.SIGXFSZ

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")
Runs = Callable[..., list[int]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A parent, clips, a recipe with three saves, and a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("killed")
    tiny.write_parent(folder / "base")
    tiny.write_clips(folder / "scenes", 6)
    tiny.write_stage(
        folder / "stage.yaml", max_steps=STEPS, save_steps=3, logging_steps=4, warmup_steps=3, save="adapter"
    )
    assert runs(folder, [("whole", "", 0)]) == [0]
    return folder


def runs(folder: Path, jobs: list[tuple[str, str, int]]) -> list[int]:
    """How each of some (output, kind of death, seed) ended: 0, 1 for a clear error, minus a signal."""
    shared = {"parent": "base", "recipe": "stage.yaml", "manifest": "scenes/manifest.json", "features": "features"}
    paths = {key: str(folder / name) for key, name in shared.items()}
    listed = [{**paths, "output": str(folder / name), "kind": kind, "seed": seed} for name, kind, seed in jobs]
    file = folder / "jobs.json"
    file.write_text(json.dumps(listed))
    root = Path(__file__).resolve().parents[2]
    path = os.pathsep.join(filter(None, [str(root), str(root / "tests"), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    script = Path(__file__).with_name("killing.py")
    done = subprocess.run([sys.executable, script, file], env=environment, capture_output=True, text=True, check=False)
    ends = [int(line) for line in done.stdout.split()]
    assert len(ends) == len(jobs) and 3 not in ends, done.stderr
    return ends


def own(output: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k != "rows_per_s"} for line in tiny.metrics(output)]


def same(folder: Path, name: str) -> None:
    """A run that went on is the run that was not disturbed."""
    assert own(folder / name) == own(folder / "whole"), name
    for file in ("audio_tower.safetensors", "adapter_model.safetensors"):
        expected, got = load_file(folder / "whole" / file), load_file(folder / name / file)
        assert got.keys() == expected.keys()
        assert [k for k in expected if not expected[k].equal(got[k])] == [], name
    assert [p.name for p in (folder / name).glob("checkpoint-*")] == [f"checkpoint-{STEPS}"]
    assert not list((folder / name).glob("*.tmp")) and not list((folder / name).glob(".*"))


@pytest.mark.parametrize("kind", ["file", "byte", "time"])
def test_a_killed_run_ends_as_an_undisturbed_one(folder: Path, kind: str) -> None:
    names = [f"{kind}{seed}" for seed in range(SEEDS)]
    jobs = [(name, how, seed) for seed, name in enumerate(names) for how in (kind, "")]
    ends = runs(folder, jobs)
    died = {"file": KILLED, "byte": TOO_LONG, "time": KILLED}[kind]
    assert died in ends[::2]
    assert set(ends[::2]) <= {died, 0} and set(ends[1::2]) == {0}
    for name in names:
        same(folder, name)


def test_a_full_disk_ends_clearly_and_loses_nothing(folder: Path) -> None:
    names = [f"full{seed}" for seed in range(SEEDS)]
    assert set(runs(folder, [(name, "full", seed) for seed, name in enumerate(names)])) == {1}
    for name in names:
        said = (folder / f"{name}.error").read_text()
        assert "make room on the disk and continue with --resume" in said
        last = last_checkpoint(folder / name)
        assert last is None or f"{last.name} is whole" in said or "what was written before is kept" in said
    assert set(runs(folder, [(name, "", 0) for name in names])) == {0}
    for name in names:
        same(folder, name)
