"""A few inputs of every battery; ``make torture`` tries all of them, with other seeds."""

from __future__ import annotations

import os

import pytest
from torture.battery import BATTERIES, Battery, run

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="reads Linux's /proc")]


@pytest.mark.parametrize("battery", BATTERIES.values(), ids=BATTERIES)
def test_a_part_of_every_battery(battery: Battery) -> None:
    found = run(battery, seed=0, count=max(4, battery.count // 25), seconds=60.0)
    assert found.failures == ()
    assert found.tried == found.held > 0


def test_the_shares_are_the_whole_time() -> None:
    assert sum(battery.share for battery in BATTERIES.values()) == pytest.approx(1.0)
