"""The recipes of docs/transformers.md, one after the other."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

PAGE = Path(__file__).resolve().parents[2] / "docs" / "transformers.md"
OPTIONAL = ("datasets", "trl", "bitsandbytes")


def recipes() -> list[tuple[str, str]]:
    """Heading and code of each."""
    found, heading = [], ""
    for part in re.split(r"^(#+ .*)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE):
        if part.startswith("#"):
            heading = part.lstrip("# ")
        found += [(heading, code) for code in re.findall(r"^```python\n(.*?)^```$", part, re.DOTALL | re.MULTILINE)]
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("clip.wav", 0.1 * np.random.default_rng(0).standard_normal(16_000), 16_000)
    names: dict[str, Any] = {}
    ran = []
    for heading, code in recipes():
        wanted = [name for name in OPTIONAL if f"import {name}" in code or f"from {name}" in code]
        if all(importlib.util.find_spec(name) for name in wanted):
            exec(compile(code, f"{PAGE.name}: {heading}", "exec"), names)
            ran.append(heading)
    assert {"With transformers", "Ask", "Pipeline", "Train with Trainer", "LoRA", "Save"} <= set(ran)
