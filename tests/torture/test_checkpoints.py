"""A few of the damaged checkpoints; ``run`` of each module tries any number with any seed."""

from __future__ import annotations

import pytest
from torture import bad_checkpoints, bad_quantized

pytestmark = pytest.mark.slow


def test_damaged_weight_files() -> None:
    assert bad_checkpoints.run_files(1, 60).failures == ()


def test_damaged_model_folders() -> None:
    assert bad_checkpoints.run_folders(1, 30).failures == ()


def test_changed_4_bit_folders() -> None:
    assert bad_quantized.run(1, 60).failures == ()
