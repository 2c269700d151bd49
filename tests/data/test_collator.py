"""Batches: labels in their places, packed rows worth what single rows are, chance from the items alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from training import tiny

from gama.data.collator import IGNORED, AnswerCollator, NamingCollator, TaggingCollator, TranscriptIds, frame_labels
from gama.data.dataset import Item, Question
from gama.data.packing import Example, pack
from gama.data.scenes.classes import CLASSES
from gama.data.scenes.scene import Event, Scene
from gama.data.scenes.transcript import transcript
from gama.errors import RecipeError

DOG = [c.label for c in CLASSES].index("dog")
SCENE = Scene(10.0, (Event("dog", 1.6, 3.2, 2, -20.0, 900.0),))


def item(chance: int = 0, *, frames: int = 1024, scene: Scene | None = SCENE, questions: int = 2) -> Item:
    asked = tuple(Question(f"What is sound {n}?", "A dog barks." if n % 2 else "Yes.") for n in range(questions))
    fbank = torch.randn(1024, 128, generator=torch.Generator().manual_seed(chance))
    return Item(fbank, frames, scene, asked, chance)


@pytest.fixture(scope="module")
def made() -> tuple[Any, Any]:
    """A tiny model and its processor."""
    from gama.training import stages

    with pytest.MonkeyPatch.context() as patch:
        tiny.quick_tokenizer(patch)
        model, processor = stages.from_nothing(tiny.MODEL, 3)
    return model.eval(), processor


def test_frame_labels() -> None:
    labels = frame_labels(SCENE, 64)
    assert labels.shape == (64, len(CLASSES))
    assert labels[:, DOG].nonzero().flatten().tolist() == list(range(10, 20))
    assert labels.sum() == 10
    late = frame_labels(Scene(12.0, (Event("dog", 10.2, 11.0, 1, -20.0, 900.0),)), 64)
    assert late[:, DOG].nonzero().flatten().tolist() in ([], [63])


def test_tagging_depends_on_the_items_alone() -> None:
    collate = TaggingCollator(seed=1)
    items = [item(n) for n in (1, 2, 3)]
    first = collate(items)
    collate([item(9)])  # another batch between, as when a loader reads ahead
    second = collate(items)
    assert first["first_patch"] == second["first_patch"]
    assert torch.equal(first["fbank"], second["fbank"]) and torch.equal(first["labels"], second["labels"])
    assert first["fbank"].shape == (3, 512, 128) and first["labels"].shape == (3, 32, len(CLASSES))
    other = collate([replace(i, chance=i.chance + 10) for i in items])
    assert not torch.equal(first["fbank"], other["fbank"])
    assert not torch.equal(first["fbank"], TaggingCollator(seed=2)(items)["fbank"])
    untouched = item(1).fbank
    assert untouched is not None and items[0].fbank is not None and torch.equal(items[0].fbank, untouched)


def test_a_crop_keeps_sound_and_labels_together() -> None:
    collate = TaggingCollator(seed=1, mixing=0.0, augmentation=0.0)
    for chance in range(5):
        one = item(chance)
        batch = collate([one])
        assert one.fbank is not None
        starts = [s for s in range(0, 513, 16) if torch.equal(one.fbank[s : s + 512], batch["fbank"][0])]
        assert len(starts) == 1
        assert torch.equal(batch["labels"][0], frame_labels(SCENE, 64)[starts[0] // 16 :][:32])


def test_short_clips_stay_finite() -> None:
    batch = TaggingCollator(seed=1, mixing=1.0, augmentation=1.0)([item(1, frames=1), item(2, frames=30)])
    assert torch.isfinite(batch["fbank"]).all()


def test_naming(made: tuple[Any, Any]) -> None:
    _, processor = made
    batch = NamingCollator(processor.tokenizer)([item(1), item(2)])
    assert batch["input_features"].shape == (2, 1024, 128)
    words = [processor.tokenizer.decode(i).strip() for i in batch["words"][1].tolist()]
    assert words == list(transcript(SCENE))


def test_a_tokenizer_that_splits_the_words_is_refused() -> None:
    with pytest.raises(RecipeError, match="is 2 tokens, the naming of soft tokens needs"):
        TranscriptIds(lambda text, **_: {"input_ids": [1, 2]})


def test_packed_rows_equal_single_rows(made: tuple[Any, Any]) -> None:
    """The loss of a packed batch is the mean over the answers' tokens of the rows alone."""
    from gama.training.objectives import Answering

    model, processor = made
    objective = Answering(model, 0.0, torch.tensor([])).eval()
    collate = AnswerCollator(processor, key_weight=3.0)
    items = [item(1, questions=3), item(2, questions=1)]
    singles = [replace(i, questions=(q,)) for i in items for q in i.questions]
    with torch.no_grad():
        packed = objective(**collate(items))["loss"]
        losses, weights = [], []
        for single in singles:
            batch = collate([single])
            losses.append(objective(**batch)["loss"])
            weights.append(batch["weights"][batch["labels"] != IGNORED].sum())
    mean = sum(n * w for n, w in zip(losses, weights, strict=True)) / sum(weights)
    torch.testing.assert_close(packed, mean, rtol=1e-5, atol=1e-5)


def test_an_answer_batch_has_the_clip_then_the_question(made: tuple[Any, Any]) -> None:
    _, processor = made
    batch = AnswerCollator(processor)([item(1, questions=1)])
    ids, labels = batch["input_ids"][0], batch["labels"][0]
    assert (ids[:96] == processor.audio_token_id).all() and ids[96] == 1
    text = processor.tokenizer.decode(ids[97:][ids[97:] != 0])
    assert text == "### Instruction:\nWhat is sound 0?\n\n### Response:\nYes.</s>"
    assert processor.tokenizer.decode(labels[labels != IGNORED]) == "Yes.</s>"
    assert batch["input_features"].shape == (1, 1024, 128) and "words" not in batch
    whole = AnswerCollator(processor, train_on_inputs=True)([item(1, questions=1)])["labels"][0]
    assert processor.tokenizer.decode(whole[whole != IGNORED]) == text


def test_transcripts_stand_for_the_sound(made: tuple[Any, Any]) -> None:
    _, processor = made
    batch = AnswerCollator(processor, transcripts=True)([Item(None, 0, SCENE, item().questions)])
    assert "input_features" not in batch
    words = [processor.tokenizer.decode(i).strip() for i in batch["input_ids"][0, :96].tolist()]
    assert words == list(transcript(SCENE))


def test_clips_without_truth_have_no_words(made: tuple[Any, Any]) -> None:
    _, processor = made
    words = AnswerCollator(processor, naming=True)([item(1), item(2, scene=None)])["words"]
    assert words.shape == (2, 96)
    assert (words[0] > 0).all() and (words[1] == IGNORED).all()


def test_key_words_weigh_more_and_long_answers_are_cut(made: tuple[Any, Any]) -> None:
    _, processor = made
    collate = AnswerCollator(processor, key_weight=3.0, max_answer=30)
    example = collate.example("Is there a dog?", "Yes, there is one.")
    weight_of = dict(
        zip((processor.tokenizer.decode(i).strip().lower() for i in example.answer), example.weights, strict=True)
    )
    assert weight_of["yes"] == 3.0 and weight_of["</s>"] == 1.0
    long = collate.example("What?", "A dog barks. " * 40)
    assert len(long.prompt) + len(long.answer) == 30 and len(long.weights) == len(long.answer)
    question = collate.example("Is there a dog? " * 20, "Yes, there is one.")
    assert len(question.prompt) > 30 and len(question.answer) == len(question.weights) == 1


def test_packed_questions_do_not_see_each_other() -> None:
    batch = pack([[7, 8]], [[Example([1], [2], [1.0]), Example([3], [4, 5], [1.0, 2.0])]], pad_id=0)
    assert batch.input_ids.tolist() == [[7, 8, 1, 2, 3, 4, 5, 0]]
    assert batch.position_ids[0, :7].tolist() == [0, 1, 2, 3, 2, 3, 4]
    assert batch.labels.tolist() == [[-100, -100, -100, 2, -100, 4, 5, -100]]
    mask = batch.attention_mask[0, 0].int().tolist()
    assert mask[3] == [1, 1, 1, 1, 0, 0, 0, 0]
    assert mask[6] == [1, 1, 0, 0, 1, 1, 1, 0]
    assert mask[7] == [0, 0, 0, 0, 0, 0, 0, 1]
    assert batch.attention_mask.shape == (1, 1, 8, 8)
