"""Signals at seeded moments; ``GAMA_TORTURE_SEED`` and ``GAMA_TORTURE_COUNT`` choose others, and more of them."""

from __future__ import annotations

import os

import pytest
from torture import interrupts

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="processes are counted by Linux's /proc")


@pytest.mark.slow
def test_every_command_at_any_moment() -> None:
    seed, count = (
        int(os.environ.get(f"GAMA_TORTURE_{name}", value)) for name, value in (("SEED", "0"), ("COUNT", "200"))
    )
    outcome = interrupts.run(seed, count)
    assert outcome.failures == []
    assert (outcome.tried, outcome.held) == (count, count)
