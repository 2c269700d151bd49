"""``gama doctor``: findings, their mends, and no exception whatever is broken."""

from __future__ import annotations

import json
import socket
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from click.testing import CliRunner
from hub.serving import Site, serve

from gama_cli import doctor
from gama_cli.main import cli

VERSIONS = {"torch": "2.13.0", "bitsandbytes": "0.50.2", "onnxruntime": "1.32.0", "numpy": "2.4.6"}
KERNELS = {"version": "0.50.2", "native": True, "fused": True, "hub": False, "gama": "AVX512", "why": ""}
TORCH = {"version": "2.13", "built": None, "cuda": 0, "bf16": False, "threads": 2, "capability": "AVX512"}


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, dict[str, Any]]:
    """A machine of our making: nothing is imported, nobody is asked."""
    facts = {
        "torch_facts": dict(TORCH),
        "bitsandbytes_facts": dict(KERNELS),
        "onnx_providers": {"version": "1.32.0", "providers": ["CPUExecutionProvider"]},
    }
    monkeypatch.setattr(doctor, "_aside", facts.__getitem__)
    monkeypatch.setattr(doctor, "installed", VERSIONS.get)
    monkeypatch.setattr(doctor, "_nvidia", list)
    monkeypatch.setenv("GAMA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return facts


def found(check: str) -> doctor.Finding:
    rows = [row for row in doctor.findings() if row.check == check]
    assert rows, check
    return rows[0]


def test_every_finding_has_a_line_and_every_problem_a_mend(runner: CliRunner) -> None:
    result = runner.invoke(cli, ["doctor", "--json"])
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert {"gama", "torch", "onnxruntime", "PyTorch", "CPU", "4-bit and 8-bit weights", "hub", "hub cache"} <= {
        row["check"] for row in rows
    }
    assert all(set(row) == {"check", "status", "value", "mend"} for row in rows)
    assert all(row["mend"] for row in rows if row["status"] == "problem")
    text = runner.invoke(cli, ["doctor"]).stdout
    assert "ok      torch: 2.13.0\n" in text
    assert "note    transformers: not installed\n          pip install 'gama-audio[torch]'\n" in text


def test_two_onnxruntimes(monkeypatch: pytest.MonkeyPatch, runner: CliRunner) -> None:
    monkeypatch.setattr(doctor, "installed", {**VERSIONS, "onnxruntime-gpu": "1.31.0"}.get)
    row = found("onnxruntime")
    assert row.status == "problem"
    assert row.mend == "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
    assert runner.invoke(cli, ["doctor"]).exit_code == 1


def test_a_gpu_that_is_not_used(monkeypatch: pytest.MonkeyPatch, machine: dict[str, Any]) -> None:
    monkeypatch.setattr(doctor, "_nvidia", lambda: ["NVIDIA H100, 81559 MiB, 570.1"])
    assert found("GPU 0").value.startswith("NVIDIA H100")
    assert "is built for the CPU" in found("PyTorch").value
    assert found("onnxruntime on GPU").mend == "pip uninstall -y onnxruntime && pip install onnxruntime-gpu"
    machine["torch_facts"] |= {"built": "12.8", "cuda": 1, "bf16": True}
    assert found("PyTorch") == doctor.Finding("PyTorch", "ok", "CUDA 12.8, 1 device(s), bfloat16")


def test_without_torch(monkeypatch: pytest.MonkeyPatch, runner: CliRunner) -> None:
    monkeypatch.setattr(doctor, "installed", {"numpy": "2.4.6"}.get)
    monkeypatch.setitem(sys.modules, "torch", None)
    result = runner.invoke(cli, ["doctor"])
    assert result.exit_code == 0, result.output
    assert "torch: not installed" in result.stdout


def test_broken_libraries_are_findings(machine: dict[str, Any]) -> None:
    for name in machine:
        machine[name] = {"error": "cannot be imported: libcudart.so.13: no such file"}
    for check in ("onnxruntime", "PyTorch", "4-bit and 8-bit weights"):
        row = found(check)
        assert row.status == "problem" and "libcudart" in row.value and row.mend


@pytest.mark.parametrize(
    ("facts", "status", "words"),
    [
        ({}, "ok", "gama's kernel for AVX512"),
        ({"gama": None, "why": "there is no C compiler"}, "note", "bitsandbytes' AVX512-BF16 kernel"),
        ({"gama": None, "why": "GAMA_KERNELS=0", "fused": False}, "note", "unpacked before"),
        ({"gama": None, "why": "GAMA_KERNELS=0", "hub": True}, "note", "a kernel from a hub"),
    ],
)
def test_which_kernel_multiplies(machine: dict[str, Any], facts: dict[str, Any], status: str, words: str) -> None:
    machine["bitsandbytes_facts"] |= facts
    row = found("4-bit and 8-bit weights")
    assert row.status == status and words in row.value
    assert (row.mend is not None) == ("compiler" in facts.get("why", ""))


def test_instruction_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(doctor, "cpu_flags", lambda: {"avx2", "avx512f"})
    assert "has avx2, avx512f; not avx512_vnni, avx512_bf16, amx_bf16, amx_int8" in doctor.processor().value
    monkeypatch.setattr(doctor, "cpu_flags", lambda: None)
    assert doctor.processor().status == "note"


def test_versions_that_gama_does_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: ["torch<2.14,>=2.8", 'numpy>=2.0; extra == "x"'])
    monkeypatch.setattr(doctor, "installed", {"torch": "2.4.0", "numpy": "2.4.6"}.get)
    row = found("torch")
    assert row.status == "problem" and "2.4.0, gama asks for <2.14,>=2.8" in row.value
    assert found("numpy").status == "ok"
    monkeypatch.setattr(doctor.metadata, "requires", _absent)
    assert found("torch").status == "ok"


def _absent(name: str) -> list[str]:
    raise metadata.PackageNotFoundError(name)


def test_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with serve(Site(files={"/api/models": b"[]"}, repos={})) as site:
        monkeypatch.setenv("HF_ENDPOINT", site.url)
        assert "status 401" in found("hub").value
    row = found("hub")  # the server is gone now
    assert row.status == "note" and "does not answer" in row.value and "HF_ENDPOINT" in str(row.mend)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in found("hub").value


def test_a_hub_that_is_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        row = doctor._reach(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert "does not answer: timed out" in row.value


def test_token_is_told_and_not_shown(monkeypatch: pytest.MonkeyPatch, runner: CliRunner) -> None:
    assert found("hub token").mend == "hf auth login"
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    text = runner.invoke(cli, ["doctor"]).stdout
    assert "there is one" in text and "verysecret" not in text


def test_little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gama.hub.disk.free_space", lambda folder: 10**9)
    row = found("hub cache")
    assert row.status == "note" and "1 GB free; a 7B model wants 20 GB" in row.value


def test_aside_tells_what_another_process_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert "cannot be imported" in doctor._aside("no_such_function")["error"]
