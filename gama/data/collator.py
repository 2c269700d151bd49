"""Items -> batches, one function for each training objective."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gama.data import augment
from gama.data.dataset import Item
from gama.data.hearing import frame_labels, stacked
from gama.data.packing import IGNORED, Example, PackedBatch, pack
from gama.data.scenes.scene import Scene
from gama.data.scenes.transcript import VOCABULARY, transcript
from gama.errors import RecipeError
from gama.prompt import TEMPLATES


class TaggingCollator:
    """Random crops with frame labels, some of them mixed: for the encoder's pre-training.

    Args:
        frames: length of a crop.
        mixing: share of crops that another clip of the batch is added to.
        augmentation: share of crops that are equalised, masked and made louder or softer.
        seed: source of chance.
    """

    def __init__(self, *, frames: int = 512, mixing: float = 0.4, augmentation: float = 0.8, seed: int = 0) -> None:
        self.frames = frames
        self.mixing = mixing
        self.augmentation = augmentation
        self.seed = seed

    def __call__(self, items: Sequence[Item]) -> dict[str, Any]:
        """Items -> ``fbank`` (B, frames, 128), ``labels`` (B, frames / 16, C), ``first_patch`` of the crop."""
        # from the items alone: a resumed run, or one that reads ahead, makes the same batch of them
        rng = np.random.default_rng([self.seed, *(item.chance for item in items)])
        crops = [self._crop(item, rng) for item in items]
        order = rng.permutation(len(crops))
        fbanks, labels = [], []
        for (fbank, truth, frames), other in zip(crops, order, strict=True):
            if rng.random() < self.mixing:
                fbank = augment.mix(fbank, crops[other][0], min(frames, crops[other][2]), rng.uniform(-12, 12))
                truth = torch.maximum(truth, crops[other][1])
            fbanks.append(fbank)
            labels.append(truth)
        first = int(rng.integers(0, (1024 - self.frames) // 16 + 1))
        return {"fbank": torch.stack(fbanks), "labels": torch.stack(labels), "first_patch": first}

    def _crop(self, item: Item, rng: np.random.Generator) -> tuple[Tensor, Tensor, int]:
        assert item.fbank is not None and item.scene is not None
        room = max(0, min(1024, item.frames) - self.frames)
        start = int(rng.integers(0, room // 16 + 1)) * 16
        fbank = item.fbank[start : start + self.frames].clone()
        frames = max(1, min(self.frames, item.frames - start))
        truth = frame_labels(item.scene, 64)[start // 16 : (start + self.frames) // 16]
        if rng.random() < self.augmentation:
            fbank = augment.gain(fbank, frames, rng.uniform(-10, 10))
            fbank = augment.equalise(fbank, frames, rng)
            fbank = augment.mask_bands(fbank, frames, rng)
        return fbank, truth, frames


class TranscriptIds:
    """The 96 words of a scene as ids of the language model's tokenizer.

    Raises:
        RecipeError: for a tokenizer that splits one of the words.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.ids: dict[str, int] = {}
        for word in VOCABULARY:
            ids = tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
            if len(ids) != 1:
                raise RecipeError(
                    f"{word!r} is {len(ids)} tokens, the naming of soft tokens needs a tokenizer that holds it as one",
                    "with this language model use objective answer and loss.naming=0",
                )
            self.ids[word] = ids[0]

    def __call__(self, scene: Scene) -> list[int]:
        return [self.ids[word] for word in transcript(scene)]


class NamingCollator:
    """Clips with the word that each soft token should name: for aligning the tower with the language model.

    Args:
        tokenizer: the language model's.
        hearing: also give the truth about each time patch.
    """

    def __init__(self, tokenizer: Any, *, hearing: bool = False) -> None:
        self.transcript = TranscriptIds(tokenizer)
        self.hearing = hearing

    def __call__(self, items: Sequence[Item]) -> dict[str, Any]:
        """Items -> ``input_features`` (B, 1024, 128), ``words`` (B, 96) and, with ``hearing``, ``heard``."""
        scenes = [item.scene for item in items if item.scene is not None]
        words = torch.tensor([self.transcript(scene) for scene in scenes])
        batch: dict[str, Any] = {"input_features": _stack(items), "words": words}
        return batch | {"heard": stacked(scenes)} if self.hearing else batch


class AnswerCollator:
    """Packed questions behind each clip's placeholders, or behind its transcript where there is no sound.

    Args:
        processor: the model's.
        train_on_inputs: whether questions are targets too.
        key_weight: how much more the words count that decide whether an answer is right.
        transcripts: put the scene's words where the prefix would be (text pre-training).
        naming: also give the words that each soft token should name.
        max_answer: tokens of question and answer together, to which the answer is cut; a longer question stays whole,
            with one token of its answer.
    """

    def __init__(
        self,
        processor: Any,
        *,
        train_on_inputs: bool = False,
        key_weight: float = 1.0,
        transcripts: bool = False,
        naming: bool = False,
        max_answer: int = 108,
    ) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.train_on_inputs = train_on_inputs
        self.key_weight = key_weight
        self.transcripts = transcripts
        self.naming = naming
        self.max_answer = max_answer
        self.template = TEMPLATES[processor.template].question
        self.transcript = TranscriptIds(self.tokenizer) if transcripts or naming else None
        self.decisive = self._decisive_ids() if key_weight != 1.0 else frozenset()
        self.ids = lru_cache(maxsize=50_000)(self._ids)
        self.bos = self.tokenizer("", add_special_tokens=True)["input_ids"][:1]

    def __call__(self, items: Sequence[Item]) -> dict[str, Any]:
        """Items -> a :class:`PackedBatch` as a dict, with ``input_features`` and ``words`` where they apply.

        ``words`` are -100 for a clip without truth.
        """
        words = [self._words(item) for item in items]
        if self.transcripts:
            prefixes = [w + self.bos for w in words]
        else:
            clip = [self.processor.audio_token_id] * self.processor.num_audio_tokens
            prefixes = [clip + self.bos for _ in items]
        examples = [[self.example(q.instruction, q.output) for q in item.questions] for item in items]
        batch: PackedBatch = pack(
            prefixes, examples, pad_id=self.tokenizer.pad_token_id or 0, train_on_inputs=self.train_on_inputs
        )
        data: dict[str, Any] = dict(vars(batch))
        if not self.transcripts:
            data["input_features"] = _stack(items)
        if self.naming:
            data["words"] = torch.tensor(words)
        return data

    def example(self, instruction: str, output: str) -> Example:
        """A question and answer as ids, the answer cut so that both have ``max_answer``, but never to nothing.

        A question is not cut; the original cuts both to ``cutoff_len`` from the end.
        """
        prompt = list(self.ids(self.template.replace("{instruction}", instruction)))
        answer = [*self.ids(output), self.tokenizer.eos_token_id][: max(1, self.max_answer - len(prompt))]
        weights = [self.key_weight if i in self.decisive else 1.0 for i in answer]
        return Example(prompt, answer, weights)

    def _words(self, item: Item) -> list[int]:
        """What each soft token of a clip should name; nothing where its truth is not known."""
        if self.transcript is None or item.scene is None:
            return [IGNORED] * self.processor.num_audio_tokens
        return self.transcript(item.scene)

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def _decisive_ids(self) -> frozenset[int]:
        words = {*VOCABULARY, "yes", "no"}
        vocabulary = self.tokenizer.get_vocab()
        return frozenset(i for t, i in vocabulary.items() if t.lstrip("Ġ").lower() in words)


def _stack(items: Sequence[Item]) -> Tensor:
    return torch.stack([item.fbank for item in items if item.fbank is not None])
