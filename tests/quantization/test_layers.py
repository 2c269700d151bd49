"""One token through a layer with 4-bit weights in one call: what transformers computes, and where it is left to it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from model import small
from torch import Tensor, nn
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM
from transformers.cache_utils import Cache
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from gama.bitsandbytes_import import import_bitsandbytes
from gama.inference.decoding import decode
from gama.inference.sampling import Sampling
from gama.inference.steps import new_cache
from gama.model.key_values import CACHE, CACHE_NAMES, RoomyLayer
from gama.quantization import kernels, layers, linear
from gama.quantization.kernels import Kernel, Missing, kernel
from gama.quantization.layers import CpuLlamaLayer
from gama.quantization.linear import settle

bitsandbytes = import_bitsandbytes()

SHAPES: dict[str, dict[str, Any]] = {
    "plain": {"hidden_size": 128, "intermediate_size": 320, "num_attention_heads": 4},
    "shared keys": {"hidden_size": 128, "intermediate_size": 192, "num_attention_heads": 4, "num_key_value_heads": 2},
    "odd widths": {"hidden_size": 192, "intermediate_size": 64, "num_attention_heads": 32, "head_dim": 6},
    "scaled positions": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 2,
        "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0},
    },
}


@pytest.fixture(scope="module", autouse=True)
def compiled() -> Kernel:
    found = kernel()
    if isinstance(found, Missing):
        pytest.skip(f"no kernel here: {found.reason}")
    return found


def language_model(shape: str = "plain", **changes: Any) -> LlamaForCausalLM:
    """Small, its layers in 4 bits."""
    torch.manual_seed(len(shape))
    config = LlamaConfig(**(SHAPES[shape] | {"vocab_size": 300, "num_hidden_layers": 2} | changes))
    model = LlamaForCausalLM(config)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            module.weight.data.normal_(0, 2 / module.weight.shape[-1] ** 0.5)
        elif type(module).__name__ == "LlamaRMSNorm":
            module.weight.data.uniform_(0.5, 1.5)
    return in_4_bits(model, model.model)


def in_4_bits(model: Any, body: nn.Module) -> Any:
    """The model, after the linear layers of its body are in 4 bits."""
    for name, module in list(body.named_modules()):
        if isinstance(module, nn.Linear):
            sides = (module.in_features, module.out_features)
            layer = bitsandbytes.nn.Linear4bit(*sides, bias=module.bias is not None, quant_type="nf4")
            layer.load_state_dict(module.state_dict())
            body.set_submodule(name, layer)
    model = model.to("cpu").eval()
    settle(model, torch.float32)
    return model


def roomy() -> Cache:
    return Cache(layer_class_to_replicate=RoomyLayer)


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Positions at which a layer was computed by the kernel."""
    seen: list[int] = []
    whole = Kernel.llama_layer

    def noted(self: Kernel, layer: Any, x: Tensor, turns: Any, room: Any, at: int) -> Tensor:
        seen.append(at)
        return whole(self, layer, x, turns, room, at)

    monkeypatch.setattr(Kernel, "llama_layer", noted)
    return seen


def answered(model: Any, cache: Any, rows: int = 1, prompt: int = 5, steps: int = 4, **given: Any) -> Tensor:
    """Logits of the prompt's last token and of the tokens after it, (rows, steps + 1, V)."""
    ids = torch.arange(rows * prompt).view(rows, prompt) + 3
    with torch.inference_mode():
        logits = [model(input_ids=ids, **{CACHE: cache}, logits_to_keep=1).logits]
        for token in range(steps):
            following = torch.full((rows, 1), 7 + token)
            logits.append(model(input_ids=following, **{CACHE: cache}, **given).logits)
    return torch.cat(logits, dim=1)


def left_to_transformers(model: Any) -> Any:
    other = copy.deepcopy(model)
    for layer in other.model.layers:
        layer.__class__ = LlamaDecoderLayer
    return other


def error(made: Tensor, want: Tensor) -> float:
    return float((made - want).norm() / want.norm())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("prompt", [1, 5, 254])
def test_a_token_is_computed_as_by_transformers(shape: str, prompt: int, passed: list[int], compiled: Kernel) -> None:
    model = language_model(shape)
    cache, other = roomy(), roomy()
    ours = answered(model, cache, prompt=prompt)
    assert passed == [at for at in range(prompt, prompt + 4) for _ in range(2)]  # beyond the room of 256, too
    want = answered(left_to_transformers(model), other, prompt=prompt)
    assert len(passed) == 8
    # the products are the same; where the last bit of x makes it another bfloat16, a product moves by some 0.002
    tolerance = 0.006 if compiled.name == "AVX512-BF16" else 1e-5
    assert error(ours, want) < tolerance
    for one, two in zip(cache.layers, other.layers, strict=True):
        assert error(one.keys, two.keys) < tolerance and error(one.values, two.values) < tolerance


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_in_float_it_is_the_same(
    shape: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setattr(kernels, "_FLAGS", ("-O2", "-march=haswell", "-fPIC", "-shared", "-fopenmp"))
    monkeypatch.setenv("GAMA_HOME", str(tmp_path_factory.mktemp("home")))
    found = kernel.__wrapped__()
    assert isinstance(found, Kernel) and found.name == "AVX2"
    monkeypatch.setattr(layers, "kernel", lambda: found)
    monkeypatch.setattr(linear, "kernel", lambda: found)
    model = language_model(shape)
    assert error(answered(model, roomy()), answered(left_to_transformers(model), roomy())) < 1e-5


def test_an_answer_passes_by_the_kernel(passed: list[int]) -> None:
    model = small.model(text_width=64)
    in_4_bits(model, model.language_model.model)
    ids = torch.tensor([[1, 50, 51, 52, 53]])
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), CACHE: new_cache(model)}
    answer = [int(token) for token in decode(model, given, Sampling(max_new_tokens=4, temperature=0.0), stop_ids=())]
    assert len(answer) == 4 and passed == [5, 5, 6, 6, 7, 7]


def test_several_threads_compute_the_same() -> None:
    model = language_model("shared keys")
    one = answered(model, roomy())
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        torch.testing.assert_close(answered(model, roomy()), one)
    finally:
        torch.set_num_threads(threads)


def test_what_came_in_is_not_written_over() -> None:
    model, cache = language_model(), roomy()
    answered(model, cache, steps=0)
    x = torch.randn(1, 1, 128)
    before = x.clone()
    with torch.inference_mode():
        turns = model.model.rotary_emb(x, torch.tensor([[5]]))
        model.model.layers[0](x, position_embeddings=turns, **{CACHE: cache})
    assert torch.equal(x, before)


def test_a_cache_that_was_cut_back_goes_on(passed: list[int]) -> None:
    model, cache = language_model(), roomy()
    want = answered(model, cache)
    cache.crop(-4)
    with torch.inference_mode():
        again = model(input_ids=torch.tensor([[7]]), **{CACHE: cache}).logits
    assert passed[-2:] == [5, 5]
    torch.testing.assert_close(again[:, 0], want[:, 1])


def test_everything_else_takes_transformers_way(passed: list[int]) -> None:
    model = language_model()
    answered(model, DynamicCache())
    answered(model, roomy(), rows=2)
    answered(model, roomy(), output_attentions=True)
    padded = torch.tensor([[0, 1, 1, 1, 1, 1]])
    answered(model, roomy(), steps=1, attention_mask=padded)
    ids = torch.tensor([[3, 4]])
    cache = roomy()
    model(input_ids=ids, **{CACHE: cache})  # gradients might be wanted
    model(input_ids=ids[:, :1], **{CACHE: cache})
    assert passed == []


@pytest.mark.parametrize("changes", [{"attention_bias": True}, {"mlp_bias": True}, {"hidden_act": "gelu"}])
def test_layers_of_another_kind_take_transformers_way(changes: dict[str, Any], passed: list[int]) -> None:
    answered(language_model(**changes), roomy())
    assert passed == []


def test_hooks_see_what_they_hang_on(passed: list[int]) -> None:
    model, seen = language_model(), []
    hook = model.model.layers[0].mlp.register_forward_hook(lambda *_: seen.append(1))
    answered(model, roomy(), steps=1)
    assert len(seen) == 2 and passed == [5]  # the other layer
    hook.remove()
    answered(model, roomy(), steps=1)
    assert passed == [5, 5, 5]


def test_a_copy_has_weights_of_its_own() -> None:
    model = language_model()
    want = answered(model, roomy())
    other = copy.deepcopy(model)
    for layer in model.model.layers:
        assert type(layer) is CpuLlamaLayer
        layer.post_attention_layernorm.weight.data.zero_()
    assert torch.equal(answered(other, roomy()), want)
    assert not torch.allclose(answered(model, roomy()), want)


@pytest.mark.parametrize("name", CACHE_NAMES)
def test_the_kernel_is_taken_whatever_the_cache_is_called(name: str, passed: list[int]) -> None:
    model, cache = language_model(), roomy()
    answered(model, cache, steps=0)
    with torch.inference_mode():
        x = torch.randn(1, 1, 128)
        model.model.layers[0](x, position_embeddings=model.model.rotary_emb(x, torch.tensor([[5]])), **{name: cache})
    assert passed == [5]
