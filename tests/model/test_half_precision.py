"""The audio tower in bfloat16: products in half precision, what they are added to in float32."""

from __future__ import annotations

import pytest
import torch

from gama.model.configuration import GamaConfig
from gama.model.tower import GamaAudioTower, TowerOutput

SIZES = {"hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 256}
CONFIG = GamaConfig(
    encoder_config={**SIZES, "num_hidden_layers": 12},
    qformer_config={**SIZES, "num_hidden_layers": 12},
    text_config={"model_type": "llama", "hidden_size": 128, "vocab_size": 64, "num_attention_heads": 4},
)

# measured: 0.005 to 0.006; with a residual stream in bfloat16 the queries alone are off by 0.012
LIMIT = 0.01


@pytest.fixture(scope="module")
def towers() -> tuple[TowerOutput, TowerOutput]:
    torch.manual_seed(0)
    tower = GamaAudioTower(CONFIG).eval()
    fbank = 0.5 * torch.randn(1, 1024, 128)
    with torch.inference_mode():
        exact = tower(fbank)
        return exact, tower.bfloat16()(fbank)


@pytest.mark.parametrize("stage", ["encoded", "queries", "aggregated", "prefix"])
def test_a_hundredth_at_most(towers: tuple[TowerOutput, TowerOutput], stage: str) -> None:
    exact, half = (getattr(output, stage).float() for output in towers)
    assert float((half - exact).norm() / exact.norm()) < LIMIT


def test_what_leaves_the_tower_has_the_weights_precision(towers: tuple[TowerOutput, TowerOutput]) -> None:
    assert [output.prefix.dtype for output in towers] == [torch.float32, torch.bfloat16]
