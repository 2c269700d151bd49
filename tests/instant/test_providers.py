"""onnxruntime's provider: the one that was asked for, or a word about it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from gama.checkpoints.bundled import model_folder
from gama.errors import CheckpointError, DeviceError
from gama.instant import providers
from gama.instant.engine import FRONT_END
from gama.instant.providers import CPU, choose

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
GPU_BUILD = (TENSORRT, CUDA, CPU)
CPU_BUILD = ("AzureExecutionProvider", CPU)


@pytest.mark.parametrize(
    ("wanted", "offered", "chosen"),
    [
        ("auto", GPU_BUILD, (CUDA, CPU)),
        ("auto", CPU_BUILD, (CPU,)),
        ("cpu", GPU_BUILD, (CPU,)),
        ("cuda", GPU_BUILD, (CUDA, CPU)),
        ("CUDA", GPU_BUILD, (CUDA, CPU)),
        ("tensorrt", GPU_BUILD, (TENSORRT, CPU)),
        (TENSORRT, GPU_BUILD, (TENSORRT, CPU)),
        ("coreml", ("CoreMLExecutionProvider", CPU), ("CoreMLExecutionProvider", CPU)),
        ("XnnpackExecutionProvider", ("XnnpackExecutionProvider", CPU), ("XnnpackExecutionProvider", CPU)),
    ],
)
def test_choice(wanted: str, offered: tuple[str, ...], chosen: tuple[str, ...]) -> None:
    assert choose(wanted, offered) == chosen


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            "cuda",
            f"has no {CUDA}; it offers AzureExecutionProvider, {CPU}.*pip uninstall -y onnxruntime onnxruntime-gpu",
        ),
        ("tensorrt", f"has no {TENSORRT}"),
        ("openvino", "has no OpenVINOExecutionProvider.*--provider cpu"),
        ("toaster", "no onnxruntime provider is called 'toaster'.*auto, cpu, cuda"),
    ],
)
def test_a_provider_that_is_not_there_is_told(wanted: str, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        choose(wanted, CPU_BUILD)


class FakeSession:
    """A GPU build on a machine without a driver: asked for CUDA, it runs on the CPU."""

    def __init__(self, path: str, options: Any, providers: list[str]) -> None:
        self.asked = providers

    def get_providers(self) -> list[str]:
        return [CPU]


@pytest.fixture
def driverless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(GPU_BUILD))
    monkeypatch.setattr(onnxruntime, "InferenceSession", FakeSession)


@pytest.mark.usefixtures("driverless")
def test_the_cpu_never_takes_over_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    path = model_folder() / FRONT_END
    for wanted in ("cuda", "tensorrt"):
        with pytest.raises(DeviceError, match="does not start on this machine, CPUExecutionProvider would run instead"):
            providers.session(path, wanted)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        providers.session(path, "auto")
    assert "CUDAExecutionProvider does not start on this machine, CPUExecutionProvider runs instead" in caplog.text
    caplog.clear()
    providers.session(path, "cpu")
    assert not caplog.records


def test_what_is_no_graph(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no file .*nothing.onnx"):
        providers.session(tmp_path / "nothing.onnx")
    (tmp_path / "noise.onnx").write_bytes(b"noise" * 100)
    with pytest.raises(CheckpointError, match="noise.onnx: onnxruntime cannot run it"):
        providers.session(tmp_path / "noise.onnx")
