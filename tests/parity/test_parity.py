"""Every golden number of the original code, through ``load_original`` and the original's names."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from parity import fill
from parity.original import (
    GRADIENT_TOLERANCE,
    KEYS,
    LOOSE,
    LOSS_TOLERANCE,
    SLICES,
    STRICT,
    distance,
    state_dict,
    text_config,
    within,
)
from torch import Tensor, nn

from gama import audio
from gama.checkpoints.original import load_original, our_name
from gama.fbank import KaldiFbank
from gama.inference.decoding import decode
from gama.inference.sampling import Sampling
from gama.model import encoder
from gama.model.aggregator import GamaAggregator
from gama.model.configuration import GamaConfig
from gama.model.gama import GamaForConditionalGeneration

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
AUDIO = np.load(GOLDEN / "golden_audio.npz")
LM = np.load(GOLDEN / "golden_lm.npz")
INPUTS = ("S", "A", "B", "C")
STAGES = tuple(SLICES)[1:]
PROMPT = torch.from_numpy(LM["prompt_ids"])
PLACEHOLDER = 256
PREFIX_TOKENS = 96


@dataclass(frozen=True)
class Heard:
    """All stages of the tower for one input, without the clip dimension, by the goldens' names."""

    stages: dict[str, Tensor]

    @property
    def prefix(self) -> Tensor:
        return self.stages["prefix"].unsqueeze(0)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, 2))
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> GamaForConditionalGeneration:
    return load_original(state_dict(), GamaConfig(text_config=text_config()))


@pytest.fixture(scope="module")
def fbanks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    folder = tmp_path_factory.mktemp("waves")
    features = {"S": torch.from_numpy(fill.unit("fbank/S", 1024 * 128).reshape(1, 1024, 128))}
    for name in fill.WAVES:
        pcm, rate = fill.waveform(name)
        soundfile.write(folder / f"{name}.wav", pcm, rate, subtype="PCM_16")
        samples = audio.load(folder / f"{name}.wav", channel=0).samples
        features[name] = KaldiFbank()(torch.from_numpy(samples).unsqueeze(0))
    return features


def hear(model: GamaForConditionalGeneration, fbank: Tensor) -> Heard:
    with torch.no_grad():
        out = model.hear(fbank, taps=True)
        pool = model.audio_tower.encoder.pool
        first = model.audio_tower.aggregator.layers[0](out.pooled)
    low, high = out.taps
    stages = {
        "cavmae_a": out.encoded,
        "cavmae_k_block4_norm_k": low,
        "cavmae_j_block8_norm_j": high,
        "pooled_a": out.pooled,
        "pooled_k": pool(low),
        "pooled_j": pool(high),
        "qformer": out.queries,
        "agg1": first,
        "agg2": out.aggregated,
        "prefix": out.prefix,
    }
    return Heard({name: stage[0] for name, stage in stages.items()})


@pytest.fixture(scope="module")
def heard(model: GamaForConditionalGeneration, fbanks: dict[str, Tensor]) -> dict[str, Heard]:
    return {name: hear(model, fbank) for name, fbank in fbanks.items()}


def with_clip(ids: Tensor) -> Tensor:
    return torch.cat([torch.full((len(ids), PREFIX_TOKENS), PLACEHOLDER), ids], dim=1)


@torch.no_grad()
def logits_after(model: GamaForConditionalGeneration, prefix: Tensor) -> NDArray[np.float32]:
    """Logits of the golden prompt's ids behind a prefix: (25, 256)."""
    return model(input_ids=with_clip(PROMPT), audio_features=prefix).logits[0, PREFIX_TOKENS:].numpy()


# -- front end and tower -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", fill.WAVES)
def test_waveform_is_bit_exact(name: str) -> None:
    assert zlib.crc32(fill.waveform(name)[0].tobytes()) == int(AUDIO[f"{name}/pcm_crc32"])


@pytest.mark.parametrize("name", fill.WAVES)
def test_fbank(name: str, fbanks: dict[str, Tensor]) -> None:
    got = fbanks[name][0].numpy()
    assert got.shape == tuple(AUDIO[f"{name}/fbank/shape"])
    assert within(got[SLICES["fbank"]], AUDIO[f"{name}/fbank"], LOOSE["fbank"])
    assert np.abs(got - AUDIO[f"{name}/fbank_f16"].astype(np.float32)).max() < 6e-3  # every element, stored in fp16
    assert_statistics(got, f"{name}/fbank", LOOSE["fbank"])


def assert_statistics(got: NDArray[np.float32], tag: str, tolerance: tuple[float, float]) -> None:
    """Mean, deviation, norm and projection over all elements; the projection notices any single one."""
    mean, deviation, norm, projection = AUDIO[f"{tag}/stats"]
    values = got.astype(np.float64)
    slack = 5 * tolerance[1] * norm + 1e-6 * (tolerance is not STRICT)
    assert abs(fill.checksum(got, tag) - projection) <= slack
    assert abs(np.linalg.norm(values) - norm) <= tolerance[1] * norm
    assert abs(values.mean() - mean) <= tolerance[0]
    assert abs(values.std() - deviation) <= tolerance[0]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", INPUTS)
def test_tower(name: str, stage: str, heard: dict[str, Heard]) -> None:
    tolerance = (STRICT if name == "S" else LOOSE)[stage]
    got = heard[name].stages[stage].numpy()
    assert got.shape == tuple(AUDIO[f"{name}/{stage}/shape"])
    assert within(got[SLICES[stage]], AUDIO[f"{name}/{stage}"], tolerance)
    assert_statistics(got, f"{name}/{stage}", tolerance)


# -- language model ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", INPUTS)
def test_logits_with_audio(name: str, model: GamaForConditionalGeneration, heard: dict[str, Heard]) -> None:
    got = logits_after(model, heard[name].prefix)
    assert within(got, LM[f"logits_audio_{name}"], (STRICT if name == "S" else LOOSE)["logits"])


def test_logits_without_audio(model: GamaForConditionalGeneration) -> None:
    with torch.no_grad():
        got = model(input_ids=PROMPT).logits[0].numpy()
    assert within(got, LM["logits_text"], LOOSE["logits"])


@dataclass(frozen=True)
class Step:
    """One forward and backward pass over the golden training batch."""

    loss: float
    logits: NDArray[np.float32]
    gradients: dict[str, Tensor]


def training_inputs() -> dict[str, Tensor]:
    """[clip][padding][text]: mask and positions as the original's collator gives them."""
    ids = with_clip(torch.from_numpy(LM["train/input_ids"]))
    labels = torch.from_numpy(LM["train/labels"])
    return {
        "input_ids": ids,
        "attention_mask": torch.from_numpy(LM["train/attention_mask"]),
        "position_ids": torch.arange(ids.shape[1]).expand(len(ids), -1),
        "labels": torch.cat([torch.full((len(ids), PREFIX_TOKENS), -100), labels], dim=1),
    }


@pytest.fixture(scope="module")
def step(model: GamaForConditionalGeneration, fbanks: dict[str, Tensor]) -> Iterator[Step]:
    output = model(**training_inputs(), audio_values=torch.cat([fbanks["A"], fbanks["C"]]))
    output.loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    yield Step(output.loss.item(), output.logits.detach().numpy()[:, PREFIX_TOKENS:], gradients)
    model.zero_grad()


def test_training_logits(step: Step) -> None:
    live = LM["train/attention_mask"][:, PREFIX_TOKENS:] > 0  # at padding the original's are garbage by construction
    assert within(step.logits[live], LM["train/logits"][live], LOOSE["logits"])


def test_training_loss(step: Step) -> None:
    assert step.loss == pytest.approx(float(LM["train/loss"]), abs=LOSS_TOLERANCE)


def test_every_gradient_norm(step: Step) -> None:
    norms = dict(zip(LM["train/grad_names"].tolist(), LM["train/grad_norms"].tolist(), strict=True))
    # a key's bias shifts all scores of a query alike: its gradient is rounding noise.
    # 0 and -1 (no gradient at all): dead in the original
    live = {key: norm for key, norm in norms.items() if norm > 0 and ".key.bias" not in key}
    assert len(live) == 435
    wrong = {}
    for key, norm in live.items():
        got = step.gradients[our_name(key) or key].norm().item()
        if abs(got - norm) > GRADIENT_TOLERANCE * norm:
            wrong[key] = (got, norm)
    assert not wrong


@pytest.mark.parametrize(
    "key", [name.removeprefix("train/grad/") for name in LM.files if name.startswith("train/grad/")]
)
def test_gradient_elements(key: str, step: Step) -> None:
    want = LM[f"train/grad/{key}"]
    gradient = step.gradients[our_name(key) or key].flatten()
    got = gradient[:: max(1, gradient.numel() // 512)][:512].numpy()
    assert distance(got, want)[1] <= GRADIENT_TOLERANCE


def test_dead_gradients_are_absent(step: Step) -> None:
    norms = zip(LM["train/grad_names"].tolist(), LM["train/grad_norms"].tolist(), strict=True)
    dead = [our_name(key) for key, norm in norms if norm <= 0]
    assert not [name for name in dead if name in step.gradients]


# -- generation --------------------------------------------------------------------------------------------------------


def generate(model: GamaForConditionalGeneration, ids: Tensor, prefix: Tensor | None, count: int, **given: Any) -> Any:
    if prefix is not None:
        ids, given = with_clip(ids), given | {"audio_features": prefix}
    mask = torch.ones_like(ids)
    out = model.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=count, do_sample=False, eos_token_id=None, **given
    )
    return out if given.get("return_dict_in_generate") else out[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize(("golden", "name"), [("audio_A", "A"), ("audio_B", "B"), ("text", None)])
def test_greedy_ids(
    golden: str, name: str | None, model: GamaForConditionalGeneration, heard: dict[str, Heard]
) -> None:
    prefix = None if name is None else heard[name].prefix
    assert generate(model, PROMPT, prefix, 16) == LM[f"gen/{golden}_ids"][0].tolist()


def test_greedy_ids_from_audio_values(model: GamaForConditionalGeneration, fbanks: dict[str, Tensor]) -> None:
    ids = with_clip(PROMPT)
    out = model.generate(input_ids=ids, audio_values=fbanks["A"], max_new_tokens=4, do_sample=False, eos_token_id=None)
    assert out[0, ids.shape[1] :].tolist() == LM["gen/audio_A_ids"][0, :4].tolist()


def test_repetition_penalty(model: GamaForConditionalGeneration, heard: dict[str, Heard]) -> None:
    got = generate(model, PROMPT, heard["A"].prefix, 16, repetition_penalty=1.1)
    assert got == LM["gen/audio_A_ids_rp1.1"][0].tolist()
    assert got != LM["gen/audio_A_ids"][0].tolist()


def test_the_decode_loop_penalises_as_the_original(
    model: GamaForConditionalGeneration, heard: dict[str, Heard]
) -> None:
    ids = with_clip(PROMPT)
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "audio_features": heard["A"].prefix}
    said = [int(t) for t in decode(model, given, Sampling(16, repetition_penalty=1.1), [])]
    assert said == LM["gen/audio_A_ids_rp1.1"][0].tolist()


def test_step_logits(model: GamaForConditionalGeneration, heard: dict[str, Heard]) -> None:
    out = generate(model, PROMPT, heard["A"].prefix, 16, return_dict_in_generate=True, output_logits=True)
    assert within(torch.cat(out.logits).numpy(), LM["gen/audio_A_step_logits"], LOOSE["logits"])


def test_positions_and_mask_lengths(model: GamaForConditionalGeneration, heard: dict[str, Heard]) -> None:
    seen: list[dict[str, Tensor]] = []
    hook = model.language_model.register_forward_pre_hook(lambda _, __, given: seen.append(given), with_kwargs=True)
    try:
        generate(model, PROMPT, heard["A"].prefix, 16)
    finally:
        hook.remove()
    assert seen[0]["position_ids"].tolist() == LM["gen/step0_position_ids"].tolist()
    assert seen[1]["position_ids"].tolist() == LM["gen/step1_position_ids"].tolist()
    # a mask of ones may be left out by generate: then the last position tells how much is attended to
    assert [int(given["position_ids"][0, -1]) + 1 for given in seen] == LM["gen/attn_mask_lens"].tolist()
    masks = [given["attention_mask"] for given in seen if given["attention_mask"] is not None]
    assert all(bool(mask.all()) for mask in masks)


def test_short_row_alone_and_in_a_batch(model: GamaForConditionalGeneration, heard: dict[str, Heard]) -> None:
    """The original's batched row differs from the row alone (its mask is on the wrong side); ours must not."""
    short = PROMPT[:, :15]
    want = LM["gen/short_alone_ids"][0].tolist()
    prefix = heard["A"].prefix
    assert generate(model, short, prefix, 8) == want
    gap = PROMPT.shape[1] - short.shape[1]
    rows = torch.cat([with_clip(PROMPT), nn.functional.pad(with_clip(short), (gap, 0))])
    mask = torch.ones_like(rows)
    mask[1, :gap] = 0
    out = model.generate(
        input_ids=rows,
        attention_mask=mask,
        audio_features=prefix.expand(2, -1, -1),
        max_new_tokens=8,
        do_sample=False,
        eos_token_id=None,
    )[:, rows.shape[1] :].tolist()
    assert out == [LM["gen/audio_A_ids"][0, :8].tolist(), want]
    assert out[1] != LM["gen/batch_left_padded_ids"][1].tolist()


# -- small mistakes that these tests must notice -----------------------------------------------------------------------


@contextmanager
def changed(modules: list[nn.Module], name: str, value: object) -> Iterator[None]:
    before = [getattr(module, name) for module in modules]
    for module in modules:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, old in zip(modules, before, strict=True):
            setattr(module, name, old)


def norms(module: nn.Module) -> list[nn.Module]:
    return [m for m in module.modules() if isinstance(m, nn.LayerNorm)]


def failing(model: GamaForConditionalGeneration, found: Heard) -> set[str]:
    """The stages of S, logits included, that miss their goldens."""
    missed = {s for s, got in found.stages.items() if not within(got[SLICES[s]], AUDIO[f"S/{s}"], STRICT[s])}
    logits = logits_after(model, found.prefix)
    return missed | ({"logits"} if not within(logits, LM["logits_audio_S"], STRICT["logits"]) else set())


def after_pooling(model: GamaForConditionalGeneration, right: Heard) -> Heard:
    """The tower from the pooled features on."""
    tower = model.audio_tower
    with torch.no_grad():
        pooled = right.stages["pooled_a"].unsqueeze(0)
        queries = tower.qformer(pooled)
        first = tower.aggregator.layers[0](pooled)
        second = tower.aggregator(pooled, [right.stages[s].unsqueeze(0) for s in ("pooled_k", "pooled_j")])
        prefix = torch.cat([tower.qformer_projector(queries), tower.aggregator_projector(second)], dim=1)
    late = {"qformer": queries, "agg1": first, "agg2": second, "prefix": prefix}
    return Heard({s: late[s][0] if s in late else right.stages[s] for s in right.stages})


def test_without_a_mistake_nothing_fails(model: GamaForConditionalGeneration, heard: dict[str, Heard]) -> None:
    assert failing(model, after_pooling(model, heard["S"])) == set()


def test_encoder_epsilon(model: GamaForConditionalGeneration, fbanks: dict[str, Tensor]) -> None:
    with changed(norms(model.audio_tower.encoder), "eps", 1e-6):
        assert "cavmae_a" in failing(model, hear(model, fbanks["S"]))


def test_encoder_tanh_gelu(
    model: GamaForConditionalGeneration, fbanks: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def tanh_gelu(linear: nn.Module, x: Tensor) -> Tensor:
        return nn.functional.gelu(linear(x), approximate="tanh")

    monkeypatch.setattr(encoder, "linear_gelu", tanh_gelu)
    with torch.no_grad():
        got = model.audio_tower.encoder(fbanks["S"]).last[0]
    assert not within(got[SLICES["cavmae_a"]], AUDIO["S/cavmae_a"], STRICT["cavmae_a"])


def test_bert_epsilon(model: GamaForConditionalGeneration, heard: dict[str, Heard]) -> None:
    tower = model.audio_tower
    bert = [n for n in norms(tower.qformer) if n is not tower.qformer.feature_norm] + norms(tower.aggregator)
    with changed(bert, "eps", 1e-5):
        assert {"qformer", "agg2", "prefix", "logits"} <= failing(model, after_pooling(model, heard["S"]))


def test_projector_epsilon(model: GamaForConditionalGeneration, heard: dict[str, Heard]) -> None:
    tower = model.audio_tower
    with changed([tower.qformer_projector, tower.aggregator_projector], "eps", 1e-6):
        assert "prefix" in failing(model, after_pooling(model, heard["S"]))


def test_feature_norm_epsilon(model: GamaForConditionalGeneration, heard: dict[str, Heard]) -> None:
    with changed([model.audio_tower.qformer.feature_norm], "eps", 1e-6):
        assert {"qformer", "prefix", "logits"} <= failing(model, after_pooling(model, heard["S"]))


def test_rms_norm_epsilon(model: GamaForConditionalGeneration, heard: dict[str, Heard]) -> None:
    rms = [m for m in model.language_model.modules() if hasattr(m, "variance_epsilon")]
    assert len(rms) == 5
    with changed(rms, "variance_epsilon", 1e-6):
        assert failing(model, heard["S"]) == {"logits"}


def test_wired_cross_attention(model: GamaForConditionalGeneration, heard: dict[str, Heard]) -> None:
    wired = GamaAggregator(GamaConfig(text_config=text_config(), aggregator="paper")).eval()
    weights = model.audio_tower.aggregator.state_dict()
    dead = {key: shape for key, shape in KEYS.items() if re.search(r"aggregator_layer_\d\.crossattention", key)}
    for key, tensor in state_dict(dead, prefix="").items():
        weights[str(our_name(key)).removeprefix("audio_tower.aggregator.")] = tensor
    wired.load_state_dict(weights)
    pooled, low, high = (heard["S"].stages[s].unsqueeze(0) for s in ("pooled_a", "pooled_k", "pooled_j"))
    with torch.no_grad():
        got = wired(pooled, [low, high])[0]
    assert distance(got[SLICES["agg2"]], AUDIO["S/agg2"])[1] > 0.1


@pytest.mark.parametrize("mistake", ["branches swapped", "lora scale 1", "clip behind the text"])
def test_wrong_order_or_scale(mistake: str, model: GamaForConditionalGeneration, heard: dict[str, Heard]) -> None:
    right = heard["S"]
    if mistake == "branches swapped":
        swapped = torch.cat([right.stages["prefix"][32:], right.stages["prefix"][:32]])
        assert {"prefix", "logits"} <= failing(model, replace(right, stages=right.stages | {"prefix": swapped}))
        return
    if mistake == "lora scale 1":
        lora = [m.scaling for m in model.modules() if hasattr(m, "scaling") and isinstance(m.scaling, dict)]
        assert len(lora) == 4
        for scaling in lora:
            scaling["default"] = 1.0
        try:
            assert failing(model, right) == {"logits"}
        finally:
            for scaling in lora:
                scaling["default"] = 2.0
        return
    ids = torch.cat([PROMPT, torch.full((1, PREFIX_TOKENS), PLACEHOLDER)], dim=1)
    with torch.no_grad():
        got = model(input_ids=ids, audio_features=right.prefix).logits[0, : PROMPT.shape[1]].numpy()
    assert not within(got, LM["logits_audio_S"], STRICT["logits"])


@pytest.mark.parametrize("mistake", ["mask ignored", "positions from the mask"])
def test_wrong_mask_or_positions(mistake: str, model: GamaForConditionalGeneration, heard: dict[str, Heard]) -> None:
    inputs = training_inputs()
    if mistake == "mask ignored":
        inputs["attention_mask"] = torch.ones_like(inputs["attention_mask"])
    else:
        inputs["position_ids"] = (inputs["attention_mask"].long().cumsum(-1) - 1).clamp(min=0)
    prefixes = torch.cat([heard["A"].prefix, heard["C"].prefix])
    with torch.no_grad():
        out = model(**inputs, audio_features=prefixes)
    assert abs(out.loss.item() - float(LM["train/loss"])) > LOSS_TOLERANCE
