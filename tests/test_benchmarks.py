"""The scripts in benchmarks/ still run: each in its smallest size, with JSON that holds what the tables need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="benchmarks/ is in a checkout, not in a source package")


def run(script: str, *words: str) -> str:
    command = [sys.executable, str(FOLDER / script), "--smoke", "--repeats", "1", "--threads", "1", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(script: str, *words: str) -> list[dict[str, Any]]:
    found = json.loads(run(script, "--json", *words))
    assert found["machine"]["cpu"] and found["machine"]["packages"]["numpy"]
    return list(found["rows"])


def test_tower() -> None:
    pytest.importorskip("torch")
    found = {row["way"]: row for row in rows("tower.py")}
    assert len(found) == 5
    # the original's way written out there computes the same prefix
    assert found["gama, float32"]["difference"] < 1e-5
    assert found["gama, bfloat16"]["difference"] < 2e-2
    assert all(row["ms_median"] > 0 and row["of_float32_peak"] > 0 for row in found.values())


def test_tower_breakdown() -> None:
    pytest.importorskip("torch")
    found = [row for row in rows("tower.py", "--breakdown") if row["dtype"] == "float32"]
    everything = next(row["ms"] for row in found if row["part"] == "all")
    assert sum(row["ms"] for row in found if row["part"] != "all") == pytest.approx(everything)
    assert {"attention of the encoder", "LayerNorm", "patches"} <= {row["part"] for row in found}


def test_fbank() -> None:
    pytest.importorskip("torch")
    found = rows("fbank.py")
    assert len(found) == 3
    # what is compared is the same filterbank: float32 rounding seen through the logarithm
    assert all(row["difference"] < 2e-2 for row in found)


def test_ask() -> None:
    found = {row["what"]: row["ms_median"] for row in rows("ask.py", "--runtime", "onnx")}
    assert found["second question, in Python"] < found["gama ask, in a process"]


def test_markdown() -> None:
    pytest.importorskip("torch")
    lines = run("fbank.py", "--markdown").splitlines()
    assert lines[3] == "|---|---|---|---|---|---|---|---|"
    assert len([line for line in lines if line.startswith("| ")]) == 4


def test_every_script_is_in_the_index() -> None:
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    scripts = {path.name for path in FOLDER.glob("*.py")} - {"printing.py"}
    assert [name for name in sorted(scripts) if f"`{name}`" not in index] == []
