"""Processes that torchrun has started answer a manifest as one process does, and one of them speaks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from gama.inference.fleet import Done
from gama.inference.journal import Journal
from gama.inference.launched import _Follower, _on_own_device
from gama_cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
TOGETHER = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "gama_cli.main"]
ALONE = ["-m", "gama_cli.main"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips with two questions each, and one clip that is missing."""
    folder = tmp_path_factory.mktemp("rows")
    random = np.random.default_rng(0)
    rows = [{"audio_id": "none.wav", "instruction": "what happened?"}]
    for name in ("a.wav", "b.wav", "c.wav"):
        soundfile.write(folder / name, 0.1 * random.standard_normal(8_000), 16_000)
        rows += [{"audio_id": name, "instruction": q} for q in ("what happened?", "is there a dog?")]
    (folder / "rows.json").write_text(json.dumps(rows))
    return folder


def ask(folder: Path, out: str, *words: str, launcher: list[str]) -> subprocess.CompletedProcess[str]:
    given = ["ask", "--manifest", "rows.json", "--out", out, "--max-new-tokens", "4", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *launcher, *given]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What the processes said, without what the launcher says when a command ends with 1."""
    ours = ("error:", "internal error:", "warning:")
    return [line for line in done.stderr.splitlines() if line.startswith(ours) or " answer" in line]


def test_two_processes_answer_as_one_and_go_on(folder: Path) -> None:
    alone = ask(folder, "alone.jsonl", launcher=ALONE)
    together = ask(folder, "out/together.jsonl", "--json", launcher=TOGETHER)
    assert alone.returncode == 1 and together.returncode == 1  # a clip is missing
    expected, out = (folder / "alone.jsonl").read_bytes(), folder / "out" / "together.jsonl"
    assert out.read_bytes() == expected and [file.name for file in out.parent.iterdir()] == [out.name]
    (facts,) = map(json.loads, together.stdout.splitlines())
    assert (facts["answered"], facts["failed"], facts["clips"]) == (6, 1, 3)
    missing, throughput, failed = said(together)
    assert missing.endswith("none.wav: no such file") and throughput.startswith("6 answer(s) about 3 clip(s)")
    assert failed == "error: 1 row(s) have no answer"

    lines = expected.splitlines(keepends=True)
    out.unlink()
    Journal(out).part(1).write_bytes(lines[1] + lines[2][:-9])  # broken off in the middle of a line
    Journal(out).part(3).write_bytes(lines[6])  # and by more processes than there are now
    refused = ask(folder, str(out), launcher=TOGETHER)
    (line,) = said(refused)
    assert refused.returncode != 0 and "together.jsonl.partial1 is left of a run that broke off" in line
    resumed = ask(folder, str(out), "--resume", launcher=TOGETHER)
    assert said(resumed)[0] == "2 of 7 answers are there already" and said(resumed)[2].startswith("4 answer(s)")
    assert out.read_bytes() == expected and [file.name for file in out.parent.iterdir()] == [out.name]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--devices", "cpu,cpu", "--out", "x.jsonl"], "2 processes were started, and --devices starts others"),
        ([], "2 processes were started, which need --out FILE"),
    ],
)
def test_what_several_processes_cannot_do(
    runner: CliRunner, folder: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = runner.invoke(cli, ["ask", "--manifest", str(folder / "rows.json"), *words])
    assert done.exit_code == 2 and message in done.stderr


def test_lines_of_another_process_are_read_once_and_whole(tmp_path: Path) -> None:
    part = tmp_path / "answers.jsonl.partial2"
    follower = _Follower(part, begin=len(b'{"old": 1}\n'), left=2)
    assert list(follower.news()) == []
    first = b'{"audio_id": "a.wav", "answer": "rain", "duration_s": 2.5}\n'
    part.write_bytes(b'{"old": 1}\n' + first + b'{"audio_id": "b.w')
    assert list(follower.news()) == [Done("a.wav", 2.5)] and list(follower.news()) == []
    with part.open("ab") as file:
        file.write(b'av", "error": "no such file"}\n')
    assert list(follower.news()) == [Done("b.wav", error="no such file")] and follower.left == 0


@pytest.mark.parametrize(
    ("loading", "device"),
    [
        ({"device": "auto"}, "cuda:1"),
        ({"device": "cuda"}, "cuda:1"),
        ({"device": "cpu"}, "cpu"),
        ({"device": "cuda:0"}, "cuda:0"),
        ({"device": "auto", "runtime": "onnx"}, "auto"),
    ],
)
def test_every_process_takes_its_device_where_none_is_named(loading: dict[str, Any], device: str) -> None:
    state = SimpleNamespace(device=torch.device("cuda", 1))
    assert _on_own_device(loading, state)["device"] == device
