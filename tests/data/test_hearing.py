"""What each time patch of a scene is said to hold."""

from __future__ import annotations

import math

import torch

from gama.data.hearing import heard, stacked
from gama.data.packing import IGNORED
from gama.data.scenes.classes import CLASSES
from gama.data.scenes.scene import Event, Scene

DOG = Event("dog", 1.6, 3.2, 3, -25.0, 1000.0, onsets=(1.6, 2.1, 2.9))
RAIN = Event("rain", 2.88, 4.8, 1, -15.0, 2000.0)
UNCOUNTED = Event("cat", 6.4, 8.0, 0, -35.0, 500.0)
WIND = Event("wind", 0.0, 10.0, 1, -50.0, 300.0, role="background")
SCENE = Scene(10.0, (DOG, RAIN, UNCOUNTED, WIND))


def index(label: str) -> int:
    return [c.label for c in CLASSES].index(label)


def test_classes_and_order_of_events() -> None:
    truth = heard(SCENE)
    assert truth.classes[:63, index("wind")].all() and not truth.classes[63].any()  # 10 s end within patch 62
    assert truth.classes[:, index("dog")].nonzero().flatten().tolist() == list(range(10, 20))
    assert truth.ordinal[:, 0].nonzero().flatten().tolist() == list(range(10, 20))
    assert truth.ordinal[:, 1].nonzero().flatten().tolist() == list(range(18, 30))
    assert truth.ordinal[:, 2].nonzero().flatten().tolist() == list(range(40, 50))


def test_single_sounds_are_numbered_where_one_event_is_alone() -> None:
    truth = heard(SCENE)
    assert truth.onset[:38].nonzero().flatten().tolist() == [10, 13, 18]
    assert truth.onset[40:50].isnan().all()  # nobody counted the cat
    assert truth.onset[55] == 0
    assert truth.number[10:18].tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    assert set(truth.number[18:].tolist()) == {IGNORED}  # under the rain, and where nothing is counted


def test_levels_where_one_event_is_alone() -> None:
    truth = heard(SCENE)
    torch.testing.assert_close(truth.level[12], torch.tensor([0.0, 0.0]))
    torch.testing.assert_close(truth.level[25], torch.tensor([1.0, math.log(2.0)]))
    assert truth.level[18:20].isnan().all()
    assert truth.level[55].isnan().all()


def test_a_batch() -> None:
    batch = stacked([SCENE, Scene(3.0, ())])
    assert batch["ordinal"].shape == (2, 64, 3)
    assert batch["number"].dtype == torch.long
    assert not batch["classes"][1].any() and batch["level"][1].isnan().all()
