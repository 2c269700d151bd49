"""Full disks and pairs of commands; ``GAMA_TORTURE_SEED`` and ``GAMA_TORTURE_COUNT`` choose others, and more."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="file systems and limits as POSIX has them")


def _number(name: str, default: int) -> int:
    return int(os.environ.get(f"GAMA_TORTURE_{name}", default))


@pytest.mark.slow
def test_a_full_disk_at_any_moment() -> None:
    from torture import full_disk

    outcome = full_disk.run(_number("SEED", 0), _number("COUNT", 40))
    assert outcome.failures == ()
    assert outcome.held == outcome.tried


@pytest.mark.slow
def test_two_commands_on_one_target() -> None:
    from torture import concurrency

    outcome = concurrency.run(_number("SEED", 0), _number("COUNT", 12))
    assert outcome.failures == ()
    assert outcome.held == outcome.tried


@pytest.mark.parametrize("name", ["config", "recipes", "combine", "device", "table"])
def test_a_full_disk(tmp_path: Path, name: str) -> None:
    from torture import full_disk

    full_disk.write_inputs(tmp_path)
    (case,) = (case for case in full_disk.CASES if case.name == name)
    assert full_disk.attempt(case, 0, tmp_path) == ""


@pytest.mark.parametrize("name", ["settings", "answers"])
def test_a_pair(tmp_path: Path, name: str) -> None:
    from torture import concurrency

    concurrency.write_inputs(tmp_path)
    (pair,) = (pair for pair in concurrency.PAIRS if pair.name == name)
    assert concurrency.attempt(pair, 0.0, tmp_path) == ""
