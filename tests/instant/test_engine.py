"""The instant engine says what torch says, id by id, on the packaged model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from transformers.generation.logits_process import TemperatureLogitsWarper, TopPLogitsWarper

import gama
from gama import audio
from gama.audio import Waveform
from gama.checkpoints.bundled import model_folder
from gama.checkpoints.file_hashes import FILE as RECORD
from gama.errors import CheckpointError, GamaError, PromptError
from gama.export.clips import generated_clips
from gama.export.metadata import model_hash
from gama.inference.asking import Asking, Sampling
from gama.inference.engine import Gama
from gama.instant.engine import FRONT_END, LANGUAGE_MODEL, Instant
from gama.instant.language import probabilities
from gama.prompt import Mark, Text, Turn, render

EXAMPLE = Path(__file__).parents[2] / "examples" / "dog_then_bells.flac"
QUESTIONS = ("what happened?", "is there a dog?", "describe the audio")


@pytest.fixture(scope="module")
def instant() -> Instant:
    return gama.load(runtime="onnx")


@pytest.fixture(scope="module")
def ours() -> Gama:
    return gama.load(runtime="torch")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A copy of the packaged model that a test may spoil."""
    yield shutil.copytree(model_folder(), tmp_path / "model", ignore=shutil.ignore_patterns(RECORD))


def noise(seconds: float, seed: int = 0) -> Waveform:
    samples = (0.1 * np.random.default_rng(seed).standard_normal(round(16_000 * seconds))).astype(np.float32)
    return Waveform(samples, f"noise {seed}", 16_000, 1)


def ids(model: Any, clip: Waveform | None, question: str) -> list[int]:
    group = [] if clip is None else audio.windows(clip)[:1]
    prompt = model._prompt(group, question, Asking())
    return list(model._tokens(model._read_in(prompt, group), Sampling(max_new_tokens=40)))


def test_greedy_ids_are_those_of_torch(instant: Instant, ours: Gama) -> None:
    clips = [audio.load(EXAMPLE), *generated_clips(5), noise(3.0), noise(0.025)]
    for index, clip in enumerate(clips):
        question = QUESTIONS[index % len(QUESTIONS)]
        assert ids(instant, clip, question) == ids(ours, clip, question), clip.source
    assert ids(instant, None, "what is a dog?") == ids(ours, None, "what is a dog?")


def test_greedy_ids_on_real_recordings(instant: Instant, ours: Gama, shared: Path) -> None:
    rows = [json.loads(line) for line in (shared / "audio" / "clips.jsonl").read_text().splitlines()]
    chosen = [shared / "audio" / row["file"] for row in rows[::80]]
    assert len(chosen) >= 8
    for file in chosen:
        clip = audio.load(file)
        assert ids(instant, clip, QUESTIONS[0]) == ids(ours, clip, QUESTIONS[0]), file.name


def test_answers_are_those_of_torch_by_every_road(instant: Instant, ours: Gama) -> None:
    long, short = noise(25.0), noise(2.0, 1)
    short_answers: dict[str, Any] = {"max_new_tokens": 8}
    for clips in (long, [short, long], short):
        one, other = (m.ask(clips, QUESTIONS[0], **short_answers) for m in (instant, ours))
        assert one == other
        facts = [[(h.start, h.end, h.finish, h.prompt_tokens, h.new_tokens) for h in a.heard] for a in (one, other)]
        assert facts[0] == facts[1]
    assert "".join(instant.stream(long, QUESTIONS[0], **short_answers)) == ours.ask(long, QUESTIONS[0], **short_answers)
    questions = [QUESTIONS[0], QUESTIONS[1]]
    assert instant.batch([short, long], questions, **short_answers) == ours.batch(
        [short, long], questions, **short_answers
    )
    assert instant.ask(short, "hm?", template="plain", **short_answers) == ours.ask(
        short, "hm?", template="plain", **short_answers
    )


@pytest.mark.parametrize(
    "text", ["what happened?", "<audio> </s> <s>", " æ 日本 \U0001f415\n\n", "a\tb  c", "### Response:\n"]
)
def test_prompts_are_those_of_torch(instant: Instant, ours: Gama, text: str) -> None:
    segments = [*render([Turn("user", text, clips=2), Turn("assistant", text), Turn("user", text)]), Mark("eos")]
    found = instant.encode(segments)
    assert found == ours.encode(segments)
    assert instant.encode([Text("</s>", special=True)]) == ours.encode([Text("</s>", special=True)])
    assert instant.tokenizer.decode(found) == ours.tokenizer.decode(
        found, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )


def test_the_facts_are_those_of_torch(instant: Instant, ours: Gama) -> None:
    assert (instant.context, instant.template, instant.num_audio_tokens) == (
        ours.context,
        ours.template,
        ours.num_audio_tokens,
    )
    assert sorted(instant.stop_ids) == sorted(ours.stop_ids)
    runtime = instant.runtime
    assert (runtime.name, runtime.device, runtime.providers[0]) == ("onnxruntime", "cpu", "CPUExecutionProvider")


def test_a_prompt_beyond_the_context(instant: Instant) -> None:
    with pytest.raises(PromptError, match="the model's context holds 1024"):
        instant.ask(None, "why? " * 2_000)


def test_a_clip_is_heard_once(instant: Instant, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = noise(1.0, 7)
    first = instant.hear([clip])
    monkeypatch.setattr(type(instant.frontend), "prefix", None)
    np.testing.assert_array_equal(instant.hear([clip, clip])[1], first[0])


# --- sampling


def test_a_seed_repeats_its_samples(instant: Instant) -> None:
    def drawn(seed: int) -> str:
        return str(instant.ask(noise(1.0), "hm?", temperature=5.0, top_p=0.99, seed=seed, max_new_tokens=6))

    assert drawn(1) == drawn(1) and len({drawn(seed) for seed in range(4)}) > 1


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.3, 0.9), (3.0, 0.5), (1e-30, 0.5), (1.0, 1e-6)])
def test_probabilities_are_those_of_transformers(temperature: float, top_p: float) -> None:
    scores: NDArray[np.float32] = np.random.default_rng(3).standard_normal(50).astype(np.float32)
    logits = torch.from_numpy(scores - scores.max()).unsqueeze(0)
    warped = TemperatureLogitsWarper(temperature)(None, logits)
    if top_p < 1:
        warped = TopPLogitsWarper(top_p)(None, warped)
    expected = warped.softmax(-1)[0].numpy()
    made = probabilities(scores, Sampling(temperature=temperature, top_p=top_p))
    np.testing.assert_allclose(made, expected, atol=1e-6)
    assert made.sum() == pytest.approx(1.0)


# --- the files


def test_the_graphs_store_no_weight_twice_and_belong_to_the_weights() -> None:
    packaged = model_folder()
    assert (packaged / FRONT_END).stat().st_size < 2.5 * 2**20
    assert (packaged / LANGUAGE_MODEL).stat().st_size < 2**18
    for name in (FRONT_END, LANGUAGE_MODEL):
        facts = onnxruntime.InferenceSession(str(packaged / name)).get_modelmeta().custom_metadata_map
        assert facts["gama.model_sha256"] == model_hash(packaged), "run: gama export instant"
        assert facts["gama.license"] == "apache-2.0" and json.loads(facts["gama.lineage"])


def test_other_weights_are_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + b"\0")
    with pytest.raises(
        CheckpointError, match="exported from other weights than model.safetensors.*gama export instant"
    ):
        gama.load(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.safetensors", None, "cannot run it|weights of the instant graphs are missing"),
        ("tokenizer.json", None, "tokenizer is missing"),
        (LANGUAGE_MODEL, b"noise", "cannot run it"),
        (FRONT_END, b"noise", "cannot run it"),
    ],
)
def test_a_broken_folder(folder: Path, name: str, content: bytes | None, message: str) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        gama.load(folder)


def test_a_graph_of_another_kind_is_refused(folder: Path) -> None:
    shutil.copy(folder / FRONT_END, folder / LANGUAGE_MODEL)
    with pytest.raises(CheckpointError, match="language_model.onnx goes from waveform, lengths"):
        gama.load(folder)


# --- which runtime


def test_auto_is_onnx_where_nothing_asks_for_torch(folder: Path) -> None:
    assert isinstance(gama.load(), Instant) and isinstance(gama.load(device="cpu", dtype="float32"), Instant)
    assert isinstance(gama.load(dtype="bfloat16"), Gama)
    (folder / FRONT_END).unlink()
    assert isinstance(gama.load(folder), Gama)
    with pytest.raises(CheckpointError, match="no instant graphs.*--runtime torch"):
        gama.load(folder, runtime="onnx")


@pytest.mark.parametrize("options", [{"quant": "8bit"}, {"device": "cuda"}, {"dtype": "float16"}])
def test_what_onnx_does_not_do_here(options: dict[str, Any]) -> None:
    with pytest.raises(GamaError, match="was asked for, which onnxruntime does not do here"):
        gama.load(runtime="onnx", **options)
