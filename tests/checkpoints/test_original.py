"""``load_original``: every key of the released code's checkpoints is mapped, dropped with a reason, or an error."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from parity import fill
from parity.original import KEYS, PREFIX, tiny_config, tiny_state_dict
from torch import Tensor, nn

from gama.checkpoints.original import LORA_ALPHA, account, canonical, load_original, our_name
from gama.errors import CheckpointError
from gama.model.configuration import GamaConfig
from gama.model.gama import GamaForConditionalGeneration

FBANK = torch.from_numpy(fill.unit("fbank/S", 1024 * 128).reshape(1, 1024, 128))
IDS = torch.cat([torch.full((1, 96), 256), torch.tensor([[1, 17, 80, 9, 200]])], dim=1)
QUERY = "model.layers.0.self_attn.q_proj"


@torch.no_grad()
def logits(model: GamaForConditionalGeneration) -> Tensor:
    return model(input_ids=IDS, audio_values=FBANK).logits


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return tiny_state_dict()


@pytest.fixture(scope="module")
def loaded(weights: dict[str, Tensor]) -> Tensor:
    return logits(load_original(weights, tiny_config()))


def renamed(weights: dict[str, Tensor], change: Callable[[str], str]) -> dict[str, Tensor]:
    return {change(key): tensor for key, tensor in weights.items()}


@pytest.mark.parametrize(
    "change",
    [
        canonical,
        lambda key: key.replace(".default.", "."),
        lambda key: canonical(key).replace(".default.", "."),
    ],
    ids=["no PEFT prefix", "no adapter name", "neither"],
)
def test_every_spelling_of_the_keys(change: Callable[[str], str], weights: dict[str, Tensor], loaded: Tensor) -> None:
    assert torch.equal(logits(load_original(renamed(weights, change), tiny_config())), loaded)


def test_order_of_the_keys_does_not_matter(weights: dict[str, Tensor], loaded: Tensor) -> None:
    backwards = dict(reversed(weights.items()))
    assert torch.equal(logits(load_original(backwards, tiny_config())), loaded)


def test_buffers_are_allowed_and_not_needed(weights: dict[str, Tensor], loaded: Tensor) -> None:
    buffers = {
        f"{PREFIX}model.layers.0.self_attn.rotary_emb.inv_freq": torch.full((8,), 7.0),
        f"{PREFIX}model.Qformer.bert.embeddings.position_ids": torch.arange(512)[None],
    }
    assert torch.equal(logits(load_original(weights | buffers, tiny_config())), loaded)


def test_every_live_weight_arrives(weights: dict[str, Tensor]) -> None:
    model = load_original(weights, tiny_config(), lora="merge")
    state = model.state_dict()
    lora = {f"{QUERY}.weight".replace("0", str(i)).replace("q_", f"{p}_") for i in (0, 1) for p in "qv"}
    report = account(weights, tiny_config())
    assert len(report.mapped) == len(state) == len(set(report.mapped.values()))
    for key, name in report.mapped.items():
        if canonical(key) not in lora:
            assert torch.equal(state[name], weights[key]), key


def test_what_is_dropped_is_what_cannot_matter() -> None:
    report = account(KEYS, tiny_config())
    assert not report.unknown
    assert len(report.lora) == 8
    dropped = sum(math.prod(KEYS[key]) for key in report.dropped)
    # of the 132 tensors that influence nothing, the two tap norms (4 tensors) have a place in our model too
    assert len(report.dropped) == 128
    assert dropped + 4 * 768 == 14_252_544


def test_stage_1_has_no_lora(weights: dict[str, Tensor], loaded: Tensor) -> None:
    model = load_original({k: t for k, t in weights.items() if ".lora_" not in k}, tiny_config())
    assert not [name for name, _ in model.named_parameters() if "lora" in name]
    assert not torch.allclose(logits(model), loaded)


def test_lora_is_kept_as_trainable_layers(weights: dict[str, Tensor]) -> None:
    model = load_original(weights, tiny_config())
    lora = {n: p for n, p in model.named_parameters() if "lora_" in n}
    assert len(lora) == 8
    assert all(p.requires_grad for p in lora.values())
    # the released aggregator reads no taps: their norms would never get a gradient, which plain DDP refuses
    tower = {n: p.requires_grad for n, p in model.audio_tower.named_parameters()}
    assert {n for n, learns in tower.items() if not learns} == {n for n in tower if "tap_norms" in n}
    rest = [p for n, p in model.language_model.named_parameters() if "lora_" not in n]
    assert not any(p.requires_grad for p in rest)
    assert torch.equal(
        lora[f"language_model.{QUERY}.lora_B.default.weight"], weights[f"{PREFIX}{QUERY}.lora_B.default.weight"]
    )
    assert not model.training


def test_merged_equals_applied(weights: dict[str, Tensor], loaded: Tensor) -> None:
    merged = load_original(weights, tiny_config(), lora="merge")
    assert not [name for name, _ in merged.named_parameters() if "lora" in name]
    a, b = (weights[f"{PREFIX}{QUERY}.lora_{part}.default.weight"] for part in "AB")
    want = weights[f"{PREFIX}{QUERY}.weight"] + LORA_ALPHA / 8 * (b @ a)
    got = merged.get_parameter(f"language_model.{QUERY}.weight")
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(logits(merged), loaded, atol=2e-5, rtol=1e-5)  # fp32 rounding of two orders of sums


def test_weights_keep_their_dtype(weights: dict[str, Tensor]) -> None:
    half = {key: tensor.bfloat16() for key, tensor in weights.items()}
    model = load_original(half, tiny_config(), lora="merge")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


# -- what is refused ---------------------------------------------------------------------------------------------------


def refusal(weights: dict[str, Tensor], config: GamaConfig | None = None) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_original(weights, config or tiny_config())
    return str(caught.value)


@pytest.mark.parametrize(
    "key",
    [
        f"{PREFIX}model.audio_encoder.blocks_b.0.attn.qkv.weight",
        f"{PREFIX}model.audio_encoder.blocks_u.0.attn.extra",
        f"{PREFIX}model.Qformer.cls.predictions.bias",
        f"{PREFIX}model.audio_aggregator_layer_3.attention.self.query.weight",
        f"{PREFIX}lm_head.bias",
        f"{PREFIX}model.layers.0.self_attn.q_proj.lora_C.default.weight",
        f"{PREFIX}model.layers.2.mlp.up_proj.weight",
        "surprise",
    ],
)
def test_unknown_key_is_named(key: str, weights: dict[str, Tensor]) -> None:
    assert key.rpartition(".")[2] in refusal(weights | {key: torch.zeros(2)})


@pytest.mark.parametrize(
    "key", [key for key in KEYS if key.endswith(("query_tokens", "norm_a.bias", "lm_head.weight"))]
)
def test_missing_key_is_named(key: str, weights: dict[str, Tensor]) -> None:
    told = refusal({k: t for k, t in weights.items() if canonical(k) != key})
    assert str(our_name(key)) in told


def test_every_live_key_is_needed(weights: dict[str, Tensor]) -> None:
    """Without the whole tower every tensor is counted as missing."""
    told = refusal({k: t for k, t in weights.items() if "audio" not in k})
    assert "missing" in told


def test_wrong_shape_is_named(weights: dict[str, Tensor]) -> None:
    key = f"{PREFIX}model.audio_encoder.norm_a.weight"
    told = refusal(weights | {key: torch.ones(47)})
    assert key in told
    assert "(47,)" in told
    assert "(48,)" in told


def test_transposed_lora_is_refused(weights: dict[str, Tensor]) -> None:
    key = f"{PREFIX}{QUERY}.lora_A.default.weight"
    assert QUERY in refusal(weights | {key: weights[key].T.contiguous()})


@pytest.mark.parametrize("part", ["A", "B"])
def test_lone_half_of_a_lora_is_refused(part: str, weights: dict[str, Tensor]) -> None:
    told = refusal({k: t for k, t in weights.items() if k != f"{PREFIX}{QUERY}.lora_{part}.default.weight"})
    assert QUERY in told


def test_doubled_key_is_refused(weights: dict[str, Tensor]) -> None:
    key = "model.audio_encoder.norm_a.bias"
    assert "audio_tower.encoder.norm.bias" in refusal(weights | {key: torch.zeros(48)})


def test_doubled_lora_key_is_refused(weights: dict[str, Tensor]) -> None:
    key = f"{PREFIX}{QUERY}.lora_A.weight"
    assert QUERY in refusal(weights | {key: torch.zeros(8, 64)})


def test_loras_of_different_rank(weights: dict[str, Tensor], loaded: Tensor) -> None:
    """A LoRA padded with zeros to twice the rank, its scale halved with it, is the same function or refused."""
    a, b = f"{PREFIX}{QUERY}.lora_A.default.weight", f"{PREFIX}{QUERY}.lora_B.default.weight"
    wide = weights | {
        a: torch.cat([weights[a], torch.zeros(8, 64)]) * 2.0,
        b: torch.cat([weights[b], torch.zeros(64, 8)], dim=1),
    }
    try:
        model = load_original(wide, tiny_config())
    except CheckpointError:
        return
    torch.testing.assert_close(logits(model), loaded, atol=2e-5, rtol=1e-5)


def test_another_depth_is_refused(weights: dict[str, Tensor]) -> None:
    config = tiny_config()
    config.text_config.num_hidden_layers = 1
    assert "model.layers.1" in refusal(weights, config)


# -- the paper's aggregator --------------------------------------------------------------------------------------------


class PlainAggregator:
    """Equation 2, computed plainly in float64 from the original's keys: B2(B1(last; tap 4); tap 8)."""

    def __init__(self, weights: dict[str, Tensor], heads: int = 12, eps: float = 1e-12) -> None:
        self.weights = {canonical(key): tensor.double() for key, tensor in weights.items()}
        self.heads, self.eps = heads, eps

    def __call__(self, last: Tensor, tap_4: Tensor, tap_8: Tensor) -> Tensor:
        for layer, tap in ((1, tap_4), (2, tap_8)):
            name = f"model.audio_aggregator_layer_{layer}"
            last = self.attend(f"{name}.attention", last, last)
            last = self.attend(f"{name}.crossattention", last, tap)
            inner = self.linear(f"{name}.intermediate.dense", last)
            inner = inner * 0.5 * (1.0 + torch.erf(inner / math.sqrt(2.0)))
            last = self.normed(f"{name}.output.LayerNorm", self.linear(f"{name}.output.dense", inner) + last)
        return last

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def normed(self, name: str, x: Tensor) -> Tensor:
        x = x - x.mean(-1, keepdim=True)
        x = x / (x.square().mean(-1, keepdim=True) + self.eps).sqrt()
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def attend(self, name: str, x: Tensor, context: Tensor) -> Tensor:
        query, key, value = (
            self.linear(f"{name}.self.{part}", source).unflatten(-1, (self.heads, -1)).transpose(0, 1)
            for part, source in (("query", x), ("key", context), ("value", context))
        )
        scores = (query @ key.transpose(1, 2) / math.sqrt(query.shape[-1])).softmax(-1)
        merged = (scores @ value).transpose(0, 1).flatten(1)
        return self.normed(f"{name}.output.LayerNorm", self.linear(f"{name}.output.dense", merged) + x)


def test_paper_aggregator_is_equation_2(weights: dict[str, Tensor]) -> None:
    config = tiny_config(aggregator="paper")
    model = load_original(weights, config)
    assert not [key for key in account(weights, config).dropped if "crossattention" in key]
    with torch.no_grad():
        heard = model.hear(FBANK, taps=True)
        tap_4, tap_8 = (model.audio_tower.encoder.pool(tap)[0].double() for tap in heard.taps)
        want = PlainAggregator(weights)(heard.pooled[0].double(), tap_4, tap_8)
    torch.testing.assert_close(heard.aggregated[0].double(), want, atol=1e-5, rtol=0)  # fp32 against fp64
    swapped = PlainAggregator(weights)(heard.pooled[0].double(), tap_8, tap_4)
    assert not torch.allclose(heard.aggregated[0].double(), swapped, atol=1e-3)


def test_taps_are_the_fifth_and_ninth_layer(weights: dict[str, Tensor]) -> None:
    encoder = load_original(weights, tiny_config()).audio_tower.encoder
    seen: dict[int, Tensor] = {}
    for index in (4, 8):
        encoder.layers[index].register_forward_hook(lambda _, __, out, index=index: seen.update({index: out[0]}))
    with torch.no_grad():
        taps = encoder(FBANK, taps=True).taps
    for tap, index, name in zip(taps, (4, 8), "kj", strict=True):
        gain, shift = (weights[f"{PREFIX}model.audio_encoder.norm_{name}.{part}"] for part in ("weight", "bias"))
        want = nn.functional.layer_norm(seen[index], (48,), gain, shift, 1e-5)
        torch.testing.assert_close(tap, want)


def test_released_aggregator_reads_no_taps(weights: dict[str, Tensor]) -> None:
    model = load_original(weights, tiny_config())
    assert model.audio_tower.aggregator.layers[0].cross_attention is None
    assert model.hear(FBANK).taps == ()
