"""Products straight by oneDNN against float64, and that they stand aside where something differentiates or traces."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gama import products
from gama.products import LayerNorm, Linear, attend, direct, linear_gelu


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def distance(found: Tensor, wanted: Tensor) -> float:
    found, wanted = found.detach().double(), wanted.detach().double()
    return float((found - wanted).norm() / wanted.norm())


@pytest.fixture
def linear() -> Linear:
    layer = Linear(96, 64)
    with torch.no_grad():
        layer.weight.copy_(random(64, 96) / 96**0.5)
        layer.bias.copy_(random(64, seed=1))
    return layer


needs_onednn = pytest.mark.skipif(
    torch.float32 not in products._kinds(), reason="on this processor PyTorch's own products stay"
)

# float32 rounding over 96 terms; bfloat16 keeps 8 bits, once at the input and once at the output
LIMITS = {torch.float32: 1e-6, torch.bfloat16: 6e-3}


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("gelu", [False, True])
def test_linear_is_the_linear_layer(linear: Linear, dtype: torch.dtype, gelu: bool) -> None:
    x = random(2, 7, 96, seed=2)
    wanted = F.linear(x.double(), linear.weight.double(), linear.bias.double())
    wanted = F.gelu(wanted) if gelu else wanted
    linear = linear.to(dtype)
    with torch.inference_mode():
        found = linear_gelu(linear, x) if gelu else linear(x)
    assert found.dtype == dtype
    assert distance(found, wanted) < LIMITS[dtype]


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize(("queries", "keys"), [(8, 8), (160, 160), (160, 40), (8, 200)])
def test_attention(dtype: torch.dtype, queries: int, keys: int) -> None:
    """Few queries take PyTorch's way and many are taken apart; neither changes what is heard."""
    parts = [random(2, 3, count, 16, seed=s) for s, count in enumerate((queries, keys, keys))]
    query, key, value = (part.double() for part in parts)
    chances = (query @ key.transpose(2, 3) / 4.0).softmax(-1)
    wanted = (chances @ value).transpose(1, 2).flatten(2)
    with torch.inference_mode():
        found = attend(*(part.to(dtype) for part in parts))
    assert found.shape == (2, queries, 48)
    assert distance(found, wanted) < 4 * LIMITS[dtype]


def test_attention_of_parts_of_one_product() -> None:
    """Queries, keys and values as they come: strides of another tensor."""
    qkv = random(2, 150, 3, 4, 16)
    with torch.inference_mode():
        found = attend(*qkv.permute(2, 0, 3, 1, 4))
    assert distance(found, attend(*(t.clone() for t in qkv.permute(2, 0, 3, 1, 4)))) < 1e-6


@needs_onednn
def test_without_gradients_it_goes_straight(linear: Linear, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    through = products._product
    monkeypatch.setattr(products, "_product", lambda *args: (calls.append(args), through(*args))[1])
    with torch.no_grad():
        linear(random(4, 96))
        linear_gelu(linear, random(4, 96))
    assert len(calls) == 2
    linear.requires_grad_(False)
    linear(random(4, 96))
    assert len(calls) == 3  # frozen weights need none


@needs_onednn
def test_gradients_come_straight_too(linear: Linear, monkeypatch: pytest.MonkeyPatch) -> None:
    """One product forward, and one for each gradient that is wanted; bfloat16 is left to PyTorch."""
    calls = []
    through = products._product
    monkeypatch.setattr(products, "_product", lambda *args: (calls.append(args), through(*args))[1])
    wanted = {(True, True): 3, (False, True): 2, (True, False): 2}
    for (of_x, of_weight), count in wanted.items():
        linear.requires_grad_(of_weight)
        linear(random(4, 96).requires_grad_(of_x)).sum().backward()
        assert len(calls) == count
        calls.clear()
    with torch.autocast("cpu", torch.bfloat16):
        linear(random(4, 96).requires_grad_()).sum().backward()
    linear.bfloat16()(random(4, 96).requires_grad_()).sum().backward()
    assert not calls


def test_it_stands_aside(linear: Linear) -> None:
    x = random(4, 96)
    assert not direct(x, linear.weight)  # gradients
    with torch.no_grad():
        assert not direct(x.double(), linear.weight.double())
        assert not direct(x, linear.weight.bfloat16())
        assert not direct(x[:0], linear.weight)
        with torch.autocast("cpu", torch.bfloat16):
            assert not direct(x, linear.weight)
        with torch.device("meta"):
            assert not direct(torch.empty(4, 96), linear.weight)


@pytest.mark.parametrize("shape", [(96,), (1, 96), (4, 96), (2, 7, 96), (2, 3, 5, 96)])
@pytest.mark.parametrize("learns", ["all", "bias", "weight", "nothing"])
def test_gradients_are_those_of_the_plain_layer(linear: Linear, shape: tuple[int, ...], learns: str) -> None:
    """Against float64: float32 rounding over 96 terms at most. A sum's gradient has no strides."""
    plain = nn.Linear(96, 64).double()
    plain.load_state_dict(linear.state_dict())
    found = []
    for layer, x in ((linear, random(*shape)), (plain, random(*shape).double())):
        for name, parameter in layer.named_parameters():
            parameter.requires_grad_(learns in ("all", name))
        x.requires_grad_(learns != "weight")
        out = layer(x)
        (out.square().sum() if learns == "all" else out.sum()).backward()
        found.append([out, x.grad, layer.weight.grad, layer.bias.grad])
    for ours, wanted in zip(*found, strict=True):
        assert (ours is None) == (wanted is None)
        assert ours is None or distance(ours, wanted) < 1e-6


def test_another_librarys_layers_are_quickened(linear: Linear) -> None:
    class Other(nn.Linear):
        pass

    model = nn.ModuleDict({"plain": nn.Linear(96, 64), "other": Other(96, 64), "ours": linear})
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    products.quicken(model)
    assert [type(model[name]) for name in ("plain", "other", "ours")] == [Linear, Other, Linear]
    assert all(torch.equal(tensor, kept[name]) for name, tensor in model.state_dict().items())


def test_a_traced_graph_holds_plain_operators(linear: Linear) -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = linear

        def forward(self, x: Tensor) -> Tensor:
            x = linear_gelu(self.linear, x)
            return attend(*x.view(1, 1, -1, 64).expand(3, -1, -1, -1).unsqueeze(1))

    with torch.no_grad():
        graph = torch.export.export(Both().eval(), (random(160, 96),)).graph
    called = " ".join(str(node.target) for node in graph.nodes)
    assert "mkldnn" not in called
    assert "linear" in called and "scaled_dot_product_attention" in called


def test_a_wrapped_layer_keeps_its_wrapper(linear: Linear) -> None:
    """What an adapter adds to a layer comes before GELU."""

    class Adapter(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return linear(x) + 1.0

    with torch.no_grad():
        found, wanted = linear_gelu(Adapter(), random(4, 96)), F.gelu(linear(random(4, 96)) + 1.0)
    assert torch.equal(found, wanted)


def test_norm_keeps_float32() -> None:
    norm = LayerNorm(96).bfloat16()
    x = 3.0 * random(4, 96) + 5.0
    assert norm(x).dtype == torch.float32
    assert torch.equal(norm(x), F.layer_norm(x, (96,), norm.weight.float(), norm.bias.float()))
    assert norm(x.bfloat16()).dtype == torch.bfloat16
