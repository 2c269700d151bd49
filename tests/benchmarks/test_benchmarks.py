"""The benchmarks run, at sizes of no interest, and compare what is the same."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SIZES = {"width": 128, "inner": 64, "vocabulary": 64, "encoder": 64, "encoder-layers": 3, "frames": 64, "text": 8}
TINY = [word for name, size in SIZES.items() for word in (f"--{name}", str(size))]
TINY += ["--repeats", "1", "--threads", "1", "--clock", "cpu"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a benchmark in this process; returns what it printed."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    threads = torch.get_num_threads()

    def main(name: str, *words: str) -> str:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
        importlib.import_module(name).main()
        return capsys.readouterr().out

    yield main
    torch.set_num_threads(threads)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("collator")


@pytest.mark.parametrize(("stage", "questions"), [("1", "1"), ("2", "1"), ("2", "2")])
def test_steps_are_compared_and_timed(run: Any, stage: str, questions: str) -> None:
    words = ["--stage", stage, "--questions", questions, *TINY, "--json", "--optimizer"]
    found = json.loads(run("train_step", *words))
    ways = ("original fp32", "ours fp32", "original bf16", "ours bf16")
    assert set(found) == {*ways, "optimizer"}
    assert all(found[way]["seconds"] > 0 for way in ways)
    assert found["ours fp32"]["loss"] == pytest.approx(found["original fp32"]["loss"], rel=1e-4)


def test_a_difference_of_the_two_steps_is_told(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    model = importlib.import_module("plain_model")
    right = model.EncoderBlock.forward
    monkeypatch.setattr(model.EncoderBlock, "forward", lambda self, x: 2.0 * right(self, x) + x.roll(1, 1))
    with pytest.raises(SystemExit, match="the losses differ"):
        run("train_step", "--stage", "2", *TINY)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_peak_memory_of_one_way(run: Any) -> None:
    found = json.loads(run("train_step", "--stage", "1", *TINY, "--measure", "ours bf16"))
    assert found["peak_mib"] > 10


def test_tables(run: Any) -> None:
    printed = run("train_step", "--stage", "1", *TINY, "--markdown").splitlines()
    assert printed[0].startswith("| stage 1 | step, s |") and len(printed) == 6
    assert printed[2].startswith("| original fp32 |") and printed[2].endswith("| 1.00 | 1.00 |")


@pytest.mark.parametrize("kind", ["flac16", "wav44"])
def test_collators_are_timed(run: Any, kind: str) -> None:
    words = ["--kind", kind, "--clips", "4", "--seconds", "1", "--repeats", "1", "--workers", "1", "--threads", "1"]
    found = json.loads(run("collator", *words, "--clock", "cpu", "--json"))
    assert list(found) == ["ours, from the cache", "ours, decode and fbank", "original"]
    assert all(rate > 0 for rate in found.values())


def test_the_plain_features_are_ours(plain: ModuleType, tmp_path: Path) -> None:
    import soundfile

    from gama.data.shards import fbank_of

    samples = 0.1 * torch.randn(44_100, generator=torch.Generator().manual_seed(0))
    soundfile.write(tmp_path / "clip.wav", samples.numpy(), 44_100, subtype="FLOAT")
    ours = torch.from_numpy(fbank_of(tmp_path / "clip.wav", "clip"))
    theirs = plain.plain_features(str(tmp_path / "clip.wav"))
    torch.testing.assert_close(theirs[: len(ours)], ours, rtol=0, atol=2e-3)
    assert theirs.shape == (1024, 128) and float(theirs[-1, 0]) == pytest.approx(5.081 / 4.4849)
