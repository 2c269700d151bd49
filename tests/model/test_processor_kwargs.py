"""What transformers' processors take, GamaProcessor takes, and nothing is swallowed."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model import small

from gama.errors import PromptError
from gama.model.processing import GamaFeatureExtractor, GamaProcessor

CLIP = np.full(8_000, 0.01, np.float32)
TEXTS = ["<audio>What?", "<audio>What is it?"]


@pytest.fixture
def processor() -> GamaProcessor:
    return made()


def made(**given: Any) -> GamaProcessor:
    extractor = GamaFeatureExtractor(feature_size=small.BINS, num_frames=small.FRAMES)
    return GamaProcessor(extractor, small.tokenizer(), num_audio_tokens=small.SOFT, **given)


def call(processor: GamaProcessor, text: Any = TEXTS, **given: Any) -> Any:
    clips = [CLIP] * (len(text) if isinstance(text, list) else 1)
    return processor(text=text, audio=clips, sampling_rate=16_000, **given)


@pytest.mark.parametrize("nested", [False, True])
def test_padding(nested: bool, processor: GamaProcessor) -> None:
    def padded(**given: Any) -> Any:
        return call(processor, **({"text_kwargs": given} if nested else given))

    longest = padded()["input_ids"]
    assert longest.shape == (2, small.SOFT + 1 + len("What is it?"))
    for side, wide in (("left", slice(-longest.shape[1], None)), ("right", slice(longest.shape[1]))):
        inputs = padded(padding="max_length", max_length=40, padding_side=side)
        assert inputs["input_ids"].shape == inputs["attention_mask"].shape == (2, 40)
        assert torch.equal(inputs["input_ids"][1, wide], longest[1])
        assert inputs["attention_mask"].sum(dim=1).tolist() == [small.SOFT + 1 + 5, longest.shape[1]]
        rest = torch.ones(40, dtype=torch.bool)
        rest[wide] = False
        assert not inputs["attention_mask"][1, rest].any()
    assert padded(pad_to_multiple_of=16)["input_ids"].shape[1] == 32
    ragged = padded(padding=False, return_tensors=None)["input_ids"]
    assert [len(row) for row in ragged] == [small.SOFT + 6, small.SOFT + 12]


def test_the_tokenizers_side_is_kept_after_it_was_changed(processor: GamaProcessor) -> None:
    assert processor.tokenizer.padding_side == "left"
    processor.tokenizer.padding_side = "right"
    assert call(processor)["attention_mask"][0].tolist()[-1] == 0


@pytest.mark.parametrize("nested", [False, True])
def test_truncation(nested: bool, processor: GamaProcessor) -> None:
    def cut(**given: Any) -> Any:
        return call(processor, "<audio>What is it?", **({"text_kwargs": given} if nested else given))

    whole = cut()["input_ids"]
    assert torch.equal(cut(truncation=True, max_length=12)["input_ids"], whole[:, :12])
    assert torch.equal(cut(truncation=True)["input_ids"], whole)
    assert torch.equal(cut(max_length=12)["input_ids"], whole)
    with pytest.raises(PromptError, match=r"truncation to 5 tokens .* placeholders"):
        cut(truncation=True, max_length=5)
    processor.tokenizer.truncation_side = "left"
    with pytest.raises(PromptError, match="placeholders"):
        cut(truncation=True, max_length=12)
    text = processor(text="What is it?", truncation=True, max_length=4)["input_ids"]
    assert torch.equal(text, processor(text="What is it?")["input_ids"][:, -4:])


@pytest.mark.parametrize(("side", "begin"), [("left", "ends"), ("right", "begins")])
def test_text_and_clip_kwargs_are_apart(side: str, begin: str, processor: GamaProcessor) -> None:
    """A flat max_length is the prompt's: a clip is not cut to as many samples."""
    want = call(processor)["input_features"]
    got = call(processor, padding="max_length", max_length=300, padding_side=side)
    assert torch.equal(got["input_features"], want)


@pytest.mark.parametrize("kind", ["pt", "np", None])
def test_return_tensors(kind: str | None, processor: GamaProcessor) -> None:
    types = {"pt": torch.Tensor, "np": np.ndarray, None: list}
    inputs = call(processor, return_tensors=kind)
    assert all(isinstance(value, types[kind]) for value in inputs.values())
    messages = [{"role": "user", "content": [{"type": "audio", "audio": CLIP}, {"type": "text", "text": "a"}]}]
    given = {"tokenize": True, "return_dict": True, "return_tensors": kind, "sampling_rate": 16_000}
    inputs = processor.apply_chat_template(messages, **given)
    assert all(isinstance(value, types[kind]) for value in inputs.values())


def test_other_outputs(processor: GamaProcessor) -> None:
    wanted = ("special_tokens_mask", "offsets_mapping", "mm_token_type_ids", "length", "token_type_ids")
    inputs = call(processor, **{f"return_{name}": True for name in wanted})
    ids = inputs["input_ids"]
    assert torch.equal(inputs["mm_token_type_ids"] == 3, ids == processor.audio_token_id)
    assert inputs["special_tokens_mask"][0].tolist() == [1] * 6 + [1] * (small.SOFT + 1) + [0] * 5
    assert inputs["offset_mapping"][0, -5:].tolist() == [[7 + i, 8 + i] for i in range(5)]
    assert inputs["length"].tolist() == [small.SOFT + 6, small.SOFT + 12]
    assert not inputs["token_type_ids"].any()
    assert "attention_mask" not in call(processor, return_attention_mask=False)


@pytest.mark.parametrize(
    "given",
    [
        {"max_lenght": 40},
        {"text_kwargs": {"max_lenght": 40}},
        {"audio_kwargs": {"samplingrate": 8_000}},
        {"audios": [CLIP]},
    ],
)
def test_what_is_unknown_is_refused(given: dict[str, Any], processor: GamaProcessor) -> None:
    with pytest.raises(PromptError, match="unknown argument"):
        call(processor, "<audio>a", **given)
    with pytest.raises(PromptError, match="unknown argument"):
        processor.apply_chat_template([{"role": "user", "content": "a"}], tokenize=True, **given)


def test_a_near_name_is_suggested(processor: GamaProcessor) -> None:
    with pytest.raises(PromptError, match="did you mean 'max_length'"):
        call(processor, max_lenght=40)


@pytest.mark.parametrize(
    "given",
    [{"images": [1]}, {"videos": [1]}, {"text_pair": "b"}, {"return_overflowing_tokens": True}, {"padding": "no"}],
)
def test_what_has_no_meaning_is_refused(given: dict[str, Any], processor: GamaProcessor) -> None:
    with pytest.raises(PromptError, match=next(iter(given))):
        call(processor, "<audio>a", **given)


@pytest.mark.parametrize("text", [[], [1], [["a", "b"]]])
def test_text_is_strings(text: Any, processor: GamaProcessor) -> None:
    with pytest.raises(PromptError, match="string"):
        processor(text=text)


def test_arguments_of_the_processor_itself() -> None:
    with pytest.raises(TypeError, match="num_tokens"):
        made(num_tokens=7)
    with pytest.raises(PromptError, match="unknown template"):
        made(template="mine")


# -- the placeholder ---------------------------------------------------------------------------------------------------


def test_the_placeholder_has_an_id_of_its_own(tmp_path: Path) -> None:
    """A padding token that is added takes the next id, so that padding does not count as audio."""
    processor = made()
    assert processor.audio_token_id == 261 == processor.tokenizer.convert_tokens_to_ids("<audio>")
    processor.tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert processor.tokenizer.pad_token_id == 262
    inputs = call(processor)
    assert (inputs["input_ids"] == 261).sum(dim=1).tolist() == [small.SOFT, small.SOFT]
    processor.save_pretrained(tmp_path)
    again = GamaProcessor.from_pretrained(tmp_path)
    assert (again.audio_token_id, again.tokenizer.pad_token_id) == (261, 262)
    assert torch.equal(call(again)["input_ids"], inputs["input_ids"])


def test_an_old_folder_gets_it_when_it_is_loaded(tmp_path: Path) -> None:
    made(audio_token_id=261).save_pretrained(tmp_path)
    small.tokenizer().save_pretrained(tmp_path)  # as it was: without the placeholder
    (tmp_path / "chat_template.jinja").unlink()
    again = GamaProcessor.from_pretrained(tmp_path)
    assert again.tokenizer.convert_tokens_to_ids("<audio>") == again.audio_token_id == 261
    assert again.has_own_prompt


def test_padding_that_is_the_placeholder_is_refused() -> None:
    tokenizer = small.tokenizer()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    with pytest.raises(PromptError, match=r"'\[PAD\]' has the id 261 of the placeholder"):
        GamaProcessor(tokenizer=tokenizer, audio_token_id=261)


def test_a_prompt_survives_pickling(processor: GamaProcessor) -> None:
    messages = [{"role": "user", "content": [{"type": "audio"}, {"type": "text", "text": "</s>"}]}]
    prompt = processor.apply_chat_template(messages)
    again = pickle.loads(pickle.dumps(prompt))
    want = processor(text=prompt, audio=CLIP, sampling_rate=16_000)["input_ids"]
    assert torch.equal(processor(text=again, audio=CLIP, sampling_rate=16_000)["input_ids"], want)
