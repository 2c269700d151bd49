"""Attention in bfloat16 that learns: values and gradients are those of attention in float32, up to rounding."""

from __future__ import annotations

import pytest
import torch
from model import small
from torch import Tensor
from torch.nn import functional as F

from gama.model.attending import learn_to_attend, learns_slowly


def given(dtype: torch.dtype) -> list[Tensor]:
    chance = torch.Generator().manual_seed(0)
    qkv = torch.randn(2, 9, 3, 4, 8, generator=chance).bfloat16()  # lying together as one product leaves them
    return [part.to(dtype).detach().requires_grad_() for part in qkv.permute(2, 0, 3, 1, 4)]


def test_values_and_gradients() -> None:
    exact, rounded = given(torch.float32), given(torch.bfloat16)
    expected = F.scaled_dot_product_attention(*exact).transpose(1, 2).flatten(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = learn_to_attend(*rounded)
    assert got.dtype == torch.bfloat16 and got.shape == (2, 9, 32)
    torch.testing.assert_close(got.float(), expected, rtol=0, atol=2e-2)
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    (expected * weight).sum().backward()
    (got * weight).sum().backward()
    for one, other in zip(exact, rounded, strict=True):
        assert one.grad is not None and other.grad is not None
        torch.testing.assert_close(other.grad.float(), one.grad, rtol=0, atol=4e-2)


def test_only_what_learns_in_bfloat16_goes_this_way() -> None:
    query = given(torch.bfloat16)[0]
    assert learns_slowly(query)
    assert not learns_slowly(query.detach()) and not learns_slowly(query.float())


def test_the_encoder_learns_this_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient of a step in bfloat16 points where that of one in float32 does."""
    encoder = small.model().audio_tower.encoder
    fbank = small.fbanks(2)
    wanted = torch.randn(encoder(fbank).last.shape, generator=torch.Generator().manual_seed(2))

    def gradient(bf16: bool) -> Tensor:
        encoder.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss = (encoder(fbank).last.float() * wanted).mean()
        loss.backward()
        return torch.cat([p.grad.flatten() for p in encoder.layers.parameters() if p.grad is not None])

    calls: list[int] = []

    def counted(*parts: Tensor) -> Tensor:
        calls.append(1)
        return learn_to_attend(*parts)

    monkeypatch.setattr("gama.model.attention.learn_to_attend", counted)
    exact = gradient(False)
    assert not calls
    rounded = gradient(True)
    assert len(calls) == len(encoder.layers)
    assert float(F.cosine_similarity(exact, rounded, dim=0)) > 0.99
