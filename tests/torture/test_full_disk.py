"""A full disk for some commands, and some pairs of commands on one target."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from torture import concurrency, full_disk

pytestmark = pytest.mark.skipif(os.name != "posix", reason="file systems and limits as POSIX has them")


@pytest.mark.parametrize("name", ["config", "recipes", "combine", "device", "table"])
def test_a_full_disk(tmp_path: Path, name: str) -> None:
    full_disk.write_inputs(tmp_path)
    (case,) = (case for case in full_disk.CASES if case.name == name)
    assert full_disk.attempt(case, 0, tmp_path) == ""


@pytest.mark.parametrize("name", ["settings", "answers"])
def test_a_pair(tmp_path: Path, name: str) -> None:
    concurrency.write_inputs(tmp_path)
    (pair,) = (pair for pair in concurrency.PAIRS if pair.name == name)
    assert concurrency.attempt(pair, 0.0, tmp_path) == ""
