"""Several processes that train as one: the same losses as one process, and every file written once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from training import tiny

from gama.checkpoints.file_hashes import FILE as RECORD

ROOT = Path(__file__).resolve().parents[2]
TOGETHER = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
STEPS = 4
# rows meet other neighbours in a sum, and gradients are averaged in another order
TOLERANCE = 2e-5

SAME: dict[str, Any] = {
    "lora": {"r": 2, "alpha": 4, "dropout": 0.0},
    "data": {"questions": 2, "augmentation": 0.5},
    "per_device_train_batch_size": 2,
    "max_steps": STEPS,
    "learning_rate": 1.0e-3,
}


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without dropout, whose chance would differ from process to process."""
    folder = tiny.write_parent(tmp_path_factory.mktemp("parent") / "base")
    config = json.loads((folder / "config.json").read_text())
    config["qformer_config"]["aggregator_dropout"] = 0.0
    (folder / "config.json").write_text(json.dumps(config))
    (folder / RECORD).unlink()  # the change is meant
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_clips(tmp_path_factory.mktemp("clips") / "scenes")


def run(
    folder: Path, name: str, parent: Path, clips: Path, *more: str, launcher: list[str], **changes: Any
) -> subprocess.CompletedProcess[str]:
    stage = tiny.write_stage(folder / name / "stage1.yaml", **SAME | changes)
    words = ["-m", "gama_cli.main", "train", "--recipe", str(stage), "--stage", "1", "--from", str(parent)]
    words += ["--data", str(clips), "--output", str(folder / name / "run"), *more]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *launcher, *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, parent: Path, clips: Path) -> Path:
    """One process at the same batch: the two processes' rows one after the other."""
    folder = tmp_path_factory.mktemp("alone")
    done = run(folder, "one", parent, clips, launcher=[], gradient_accumulation_steps=2)
    assert done.returncode == 0, done.stderr
    return folder / "one" / "run"


def require_alike(output: Path, alone: Path) -> None:
    for key in ("loss", "grad_norm", "learning_rate"):
        found = [line[key] for line in tiny.metrics(output)]
        assert found == pytest.approx([line[key] for line in tiny.metrics(alone)], rel=TOLERANCE), key
    one, two = (load_file(folder / "model.safetensors") for folder in (alone, output))
    assert one.keys() == two.keys()
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-4


def test_two_processes_train_as_one(tmp_path: Path, parent: Path, clips: Path, alone: Path) -> None:
    done = run(tmp_path, "two", parent, clips, launcher=TOGETHER)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    output = tmp_path / "two" / "run"
    assert [line["step"] for line in tiny.metrics(output)] == list(range(1, STEPS + 1))
    require_alike(output, alone)
    said = done.stderr.splitlines()
    assert sum(line.startswith("two/stage1: done") for line in said) == 1
    assert sum("parameters learn" in line for line in said) == 1
    shards = list((tmp_path / "two" / "features").rglob("*.safetensors"))
    assert shards and not list(tmp_path.rglob("*.tmp"))
    again = run(tmp_path, "two", parent, clips, launcher=TOGETHER)
    assert again.returncode != 0 and "already holds a run" in again.stderr


# without accelerators the weights cannot be sent around before they are cut: each process reads them
FSDP: dict[str, Any] = {
    "fsdp": "full_shard",
    "fsdp_config": {
        "version": 1,
        "use_orig_params": True,
        "sync_module_states": False,
        "cpu_ram_efficient_loading": False,
    },
}


@pytest.mark.slow
def test_weights_shared_among_processes(tmp_path: Path, parent: Path, clips: Path, alone: Path) -> None:
    """Trained as one, stopped after half of the steps, and gone on with to the same end."""
    done = run(tmp_path, "shared", parent, clips, launcher=TOGETHER, save_steps=STEPS // 2, save_total_limit=9, **FSDP)
    assert done.returncode == 0, done.stderr
    output = tmp_path / "shared" / "run"
    require_alike(output, alone)
    before = tiny.metrics(output)
    leave_as_killed_at(output, STEPS // 2)
    again = run(tmp_path, "shared", parent, clips, "--resume", launcher=TOGETHER, save_steps=STEPS // 2, **FSDP)
    assert again.returncode == 0, again.stderr
    assert [line["loss"] for line in tiny.metrics(output)] == [line["loss"] for line in before]
    require_alike(output, alone)


def leave_as_killed_at(output: Path, step: int) -> None:
    """Take away all that a run wrote after a checkpoint."""
    for path in output.glob("checkpoint-*"):
        if path.name != f"checkpoint-{step}":
            shutil.rmtree(path)
    for name in ("model.safetensors", "config.json"):
        (output / name).unlink()
    lines = (output / "metrics.jsonl").read_text().splitlines(keepends=True)
    (output / "metrics.jsonl").write_text("".join(lines[: step + 1]))


@pytest.mark.slow
def test_deepspeed(tmp_path: Path, parent: Path, clips: Path, alone: Path) -> None:
    if find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed")
    config = {"deepspeed": {"zero_optimization": {"stage": 2}, "train_micro_batch_size_per_gpu": "auto"}}
    done = run(tmp_path, "deep", parent, clips, launcher=TOGETHER, **config)
    assert done.returncode == 0, done.stderr
    require_alike(tmp_path / "deep" / "run", alone)
