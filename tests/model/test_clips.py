"""Every form in which a clip may be given becomes the same waveform, and one clip is one clip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from model import small
from numpy.typing import NDArray

from gama import audio
from gama.errors import AudioError, PromptError
from gama.model import clips
from gama.model.processing import GamaFeatureExtractor, GamaProcessor


def noise(count: int = 8_000, seed: int = 0) -> NDArray[np.float32]:
    return (0.1 * np.random.default_rng(seed).standard_normal(count)).astype(np.float32)


@pytest.fixture
def processor() -> GamaProcessor:
    return GamaProcessor(
        GamaFeatureExtractor(feature_size=small.BINS, num_frames=small.FRAMES),
        small.tokenizer(),
        num_audio_tokens=small.SOFT,
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "clip.wav"
    soundfile.write(path, noise(22_050), 44_100, subtype="FLOAT")
    return path


def chat(processor: GamaProcessor, part: dict[str, Any], **given: Any) -> Any:
    messages = [{"role": "user", "content": [{"type": "audio", **part}, {"type": "text", "text": "a"}]}]
    return processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True, **given)


@dataclass
class Samples:
    data: torch.Tensor
    sample_rate: int


class Decoder:
    """As torchcodec's AudioDecoder, which datasets gives for a row."""

    def get_all_samples(self) -> Samples:
        return Samples(torch.from_numpy(np.stack([noise(22_050), noise(22_050)])), 44_100)


@pytest.mark.parametrize("key", ["audio", "path", "url", "audio_url"])
@pytest.mark.parametrize("form", ["path", "string", "array dict", "bytes dict", "path dict", "decoder"])
def test_parts_of_a_message(key: str, form: str, processor: GamaProcessor, file: Path) -> None:
    given: dict[str, Any] = {
        "path": file,
        "string": str(file),
        "array dict": {"array": noise(22_050), "sampling_rate": 44_100, "path": None},
        "bytes dict": {"bytes": file.read_bytes(), "path": "gone.wav"},
        "path dict": {"bytes": None, "path": str(file)},
        "decoder": Decoder(),
    }
    got = chat(processor, {key: given[form]})
    want = processor(text="<audio>a", audio=noise(22_050), sampling_rate=44_100)
    torch.testing.assert_close(got["input_features"], want["input_features"])
    again = processor(text="<audio>a", audio=given[form])
    torch.testing.assert_close(again["input_features"], want["input_features"])


def test_an_address_in_a_dict_is_a_path(processor: GamaProcessor, file: Path) -> None:
    """As the chat completions of other servers write it."""
    part = {"type": "audio_url", "audio_url": {"url": str(file)}}
    messages = [{"role": "user", "content": [part, {"type": "text", "text": "a"}]}]
    got = processor.apply_chat_template(messages, tokenize=True, return_dict=True)
    torch.testing.assert_close(got["input_features"], processor(audio=file)["input_features"])


def test_a_part_tells_its_rate(processor: GamaProcessor, file: Path) -> None:
    got = chat(processor, {"audio": noise(22_050), "sampling_rate": 44_100})
    torch.testing.assert_close(got["input_features"], processor(audio=file)["input_features"])


@pytest.mark.parametrize("turned", [False, True], ids=["(C, N)", "(N, C)"])
@pytest.mark.parametrize("kind", ["numpy", "torch", "list"])
def test_channels_are_averaged(kind: str, turned: bool, processor: GamaProcessor) -> None:
    both = np.stack([noise(seed=1), noise(seed=2)])
    want = processor(audio=both.mean(axis=0), sampling_rate=16_000)["input_features"]
    array = np.ascontiguousarray(both.T if turned else both)
    given: Any = {"numpy": array, "torch": torch.from_numpy(array), "list": array.tolist()}[kind]
    messages = chat(processor, {"audio": given}, sampling_rate=16_000)
    single = processor(text="<audio>a", audio=[np.asarray(given)], sampling_rate=16_000)
    alone = processor(text="a", audio=np.asarray(given), sampling_rate=16_000)
    for got in (messages, single, alone):
        assert int((got["input_ids"] == processor.audio_token_id).sum()) == small.SOFT
        torch.testing.assert_close(got["input_features"], want, atol=2e-4, rtol=1e-4)


def test_rows_of_an_array_are_a_batch_where_so_many_are_expected(processor: GamaProcessor) -> None:
    both = np.stack([noise(seed=1), noise(seed=2)])
    want = processor(audio=list(both), sampling_rate=16_000)["input_features"]
    for got in (
        processor(text="<audio><audio>a", audio=both, sampling_rate=16_000),
        processor(text=["<audio>a", "<audio>b"], audio=both, sampling_rate=16_000),
        processor(text=["a", "b"], audio=both, sampling_rate=16_000),
        processor.feature_extractor(both, sampling_rate=16_000),
    ):
        torch.testing.assert_close(got["input_features"], want)


def test_many_rows_are_not_channels(processor: GamaProcessor) -> None:
    with pytest.raises(PromptError, match=r"1 <audio> .*20 clip"):
        processor(text="<audio>a", audio=np.zeros((20, 8_000), np.float32), sampling_rate=16_000)


def test_channels_in_time_are_no_batch(processor: GamaProcessor) -> None:
    got = processor.feature_extractor(np.zeros((16_000, 2), np.float32), sampling_rate=16_000)
    assert len(got["input_features"]) == 1


@pytest.mark.parametrize("kind", ["int16", "int32", "uint8", "torch int16", "list of integers"])
def test_integers_are_scaled(kind: str, processor: GamaProcessor) -> None:
    wanted = np.round(noise() * 127).astype(np.float32) / 127
    forms: dict[str, Any] = {
        "int16": (wanted * 32_768).round().astype(np.int16),
        "int32": (wanted.astype(np.float64) * 2**31).round().astype(np.int32),
        "uint8": (wanted * 128 + 128).round().astype(np.uint8),
        "torch int16": torch.from_numpy((wanted * 32_768).round().astype(np.int16)),
        "list of integers": (wanted * 32_768).round().astype(int).tolist(),
    }
    got = clips.waveform(forms[kind], 16_000).samples
    np.testing.assert_allclose(got, wanted, atol=1 / 100)
    assert np.abs(got).max() > 0.1


def test_half_precision(processor: GamaProcessor) -> None:
    got = clips.waveform(torch.from_numpy(noise()).bfloat16(), 16_000).samples
    np.testing.assert_allclose(got, noise(), atol=2e-3)


@pytest.mark.parametrize("where", ["call", "audio_kwargs", "chat", "processor_kwargs", "chat audio_kwargs"])
def test_a_rate_is_a_rate(where: str, processor: GamaProcessor, file: Path) -> None:
    """``audio_kwargs={"sampling_rate": 44100}`` gave features of the wrong pitch."""
    samples, rate = noise(22_050), {"sampling_rate": 44_100}
    got = {
        "call": lambda: processor(text="<audio>a", audio=samples, **rate),
        "audio_kwargs": lambda: processor(text="<audio>a", audio=samples, audio_kwargs=rate),
        "chat": lambda: chat(processor, {"audio": samples}, **rate),
        "processor_kwargs": lambda: chat(processor, {"audio": samples}, processor_kwargs=rate),
        "chat audio_kwargs": lambda: chat(processor, {"audio": samples}, processor_kwargs={"audio_kwargs": rate}),
    }[where]()
    torch.testing.assert_close(got["input_features"], processor(audio=file)["input_features"])


@pytest.mark.parametrize("way", ["call", "features", "chat"])
def test_a_missing_rate_warns(way: str, processor: GamaProcessor, monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    said: list[str] = []
    monkeypatch.setattr(clips.logger, "warning_once", said.append)
    calls = {
        "call": lambda clip, **rate: processor(text="<audio>a", audio=clip, **rate),
        "features": lambda clip, **rate: processor.feature_extractor(clip, **rate),
        "chat": lambda clip, **rate: chat(processor, {"audio": clip}, **rate),
    }
    calls[way](noise(), sampling_rate=16_000)
    for known in (file, audio.load(file), {"array": noise(), "sampling_rate": 16_000}):
        calls[way](known)
    assert not said
    calls[way](noise())
    assert len(said) == 1 and "sampling_rate" in said[0]


@pytest.mark.parametrize("given", [{}, {"sampling_rate": 16_000}, {"array": None, "bytes": None, "path": None}])
def test_a_dict_without_sound(given: dict[str, Any], processor: GamaProcessor) -> None:
    with pytest.raises(AudioError, match="'array' and 'sampling_rate'"):
        processor(text="<audio>a", audio=given)


def test_errors_are_value_errors(processor: GamaProcessor, tmp_path: Path) -> None:
    """Code written for transformers catches ValueError."""
    with pytest.raises(ValueError, match="missing.wav"):
        processor(text="<audio>a", audio=tmp_path / "missing.wav")
    with pytest.raises(ValueError, match="placeholder"):
        processor(text="<audio>a")


# -- the feature extractor ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [{"padding": "max_length"}, {"padding": True}, {"truncation": True}])
def test_what_always_happens_may_be_asked_for(given: dict[str, Any], processor: GamaProcessor) -> None:
    want = processor.feature_extractor(noise(), sampling_rate=16_000)
    got = processor.feature_extractor(noise(), sampling_rate=16_000, **given)
    assert torch.equal(got["input_features"], want["input_features"])
    nested = processor(audio=noise(), audio_kwargs={"sampling_rate": 16_000, **given})
    assert torch.equal(nested["input_features"], want["input_features"])


@pytest.mark.parametrize(
    "given", [{"truncation": False}, {"max_length": 400}, {"return_attention_mask": True}, {"samplingrate": 8_000}]
)
def test_what_cannot_be_done_is_refused(given: dict[str, Any], processor: GamaProcessor) -> None:
    with pytest.raises(AudioError, match=next(iter(given))):
        processor.feature_extractor(noise(), sampling_rate=16_000, **given)
    with pytest.raises(ValueError, match=next(iter(given))):
        processor(text="<audio>a", audio=noise(), audio_kwargs=given)


def test_other_names_and_forms_of_the_features(processor: GamaProcessor) -> None:
    extractor = processor.feature_extractor
    want = extractor(noise(), sampling_rate=16_000)["input_features"]
    assert torch.equal(extractor(raw_speech=noise(), sampling_rate=16_000)["input_features"], want)
    assert torch.equal(extractor(noise(), sampling_rate=16_000, device="cpu")["input_features"], want)
    listed = extractor(noise(), sampling_rate=16_000, return_tensors=None)["input_features"]
    assert isinstance(listed, list) and np.array_equal(listed[0], want[0].numpy())
    assert isinstance(extractor(noise(), sampling_rate=16_000, return_tensors="np")["input_features"], np.ndarray)
    with pytest.raises(AudioError, match="no clip"):
        extractor([])


def test_the_former_name_of_the_features(processor: GamaProcessor) -> None:
    inputs = processor(text="<audio>a", audio=noise(), sampling_rate=16_000)
    assert inputs["audio_values"] is inputs["input_features"] is inputs.audio_values
    assert set(inputs) == {"input_ids", "attention_mask", "input_features"}
    with pytest.raises(KeyError):
        processor(text="a")["audio_values"]
