"""What every test shares: no network, no user settings, and a runner for the command line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

# set before anything imports huggingface_hub, which reads it once
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # a test file may import onnxruntime before gama
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def pytest_configure(config: pytest.Config) -> None:
    """Without ``-m gpu`` the tests are the same on every machine: no CUDA device is seen."""
    if "not gpu" in config.option.markexpr:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of whoever runs the tests do not reach them."""
    for name in ("GAMA_DEBUG", "GAMA_MODEL", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def runner() -> CliRunner:
    """Runs ``gama_cli.main.cli`` in this process; stdout and stderr come apart."""
    return CliRunner()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder ``shared`` beside the checkout: real clips and reference numbers. Skips where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "audio" / "clips.jsonl").is_file():
        pytest.skip("no folder 'shared' beside this checkout")
    return folder
