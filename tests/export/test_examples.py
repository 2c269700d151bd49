"""The examples of the exported front end print what gama itself hears."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from gama import audio
from gama.checkpoints.bundled import model_folder
from gama.instant.engine import FRONT_END
from gama.instant.frontend import open_front_end

EXAMPLES = Path(__file__).parents[2] / "examples"
GRAPH = model_folder() / FRONT_END


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.wav"
    soundfile.write(path, audio.load(EXAMPLES / "dog_then_bells.flac").samples, 16_000, subtype="PCM_16")
    return path


@pytest.fixture(scope="module")
def expected(clip: Path) -> tuple[list[int], float]:
    prefix = open_front_end(GRAPH).prefix([audio.load(clip).samples])
    return list(prefix.shape), float(np.linalg.norm(prefix))


def printed(*command: str) -> tuple[list[int], float]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    *shape, norm = done.stdout.split()
    return list(map(int, shape)), float(norm)


def test_python(clip: Path, expected: tuple[list[int], float]) -> None:
    shape, norm = printed(sys.executable, str(EXAMPLES / "front_end.py"), str(GRAPH), str(clip))
    assert shape == expected[0] and norm == pytest.approx(expected[1], rel=1e-4)


def test_python_takes_ten_lines() -> None:
    lines = (EXAMPLES / "front_end.py").read_text().splitlines()
    code = [line for line in lines if line and not line.startswith(('"""', "import"))]
    assert len(code) <= 10


def test_javascript(clip: Path, expected: tuple[list[int], float]) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on this machine")
    found = subprocess.run([node, "-e", "require('onnxruntime-node')"], cwd=EXAMPLES, capture_output=True, check=False)
    if found.returncode:
        pytest.skip("onnxruntime-node is not installed: npm install onnxruntime-node, and NODE_PATH=…/node_modules")
    shape, norm = printed(node, str(EXAMPLES / "front_end.js"), str(GRAPH), str(clip))
    assert shape == expected[0] and norm == pytest.approx(expected[1], rel=1e-4)
