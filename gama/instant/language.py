"""The exported language model: prefill and decode step are one graph with a key-value cache. No torch."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gama.errors import AudioError, CheckpointError
from gama.instant.weights import WEIGHTS, weight_without_number

if TYPE_CHECKING:
    import onnxruntime

    from gama.inference.sampling import Sampling

Float = NDArray[np.float32]


@dataclass
class Past:
    """Keys and values of what was read and said, to go on from.

    Attributes:
        values: (layers, 2, 1, heads, S, width).
    """

    values: Float

    @property
    def length(self) -> int:
        """Positions held."""
        return int(self.values.shape[4])

    def cut(self, length: int) -> None:
        """Keep the first positions alone."""
        self.values = self.values[..., :length, :]

    def copy(self) -> Past:
        """The same to go on from in another way; nothing is copied, for nothing is written to."""
        return Past(self.values)


class InstantLanguageModel:
    """Ids and soft tokens in, ids out.

    Args:
        opened: a graph from ``input_ids`` (1, T), ``prefix`` (R, D) and ``past`` (layers, 2, 1, heads, S, width) to
            ``logits`` (1, V) of the last position and ``present`` of length S + T.
        audio_token_id: the placeholder; never an answer.
        path: its file, for messages.

    Raises:
        CheckpointError: for a graph of another kind.
    """

    def __init__(self, opened: onnxruntime.InferenceSession, audio_token_id: int, path: Path) -> None:
        self._opened = opened
        self._audio_token_id = audio_token_id
        self._path = path
        shapes = {value.name: value.shape for value in opened.get_inputs()}
        if list(shapes) != ["input_ids", "prefix", "past"]:
            raise CheckpointError(
                f"{path} goes from {', '.join(shapes)}; a language model goes from input_ids, prefix, past",
                f"gama export instant --model {path.parent}",
            )
        past = shapes["past"]
        if len(past) != 6 or not all(isinstance(past[side], int) for side in (0, 3, 5)):
            raise CheckpointError(f"{path}: its cache has the shape {past}; a language model's has 6 sides")
        layers, _, _, heads, _, width = past
        self._empty = np.zeros((layers, 2, 1, heads, 0, width), dtype=np.float32)
        self._no_prefix = np.zeros((1, shapes["prefix"][1]), dtype=np.float32)

    def begin(self) -> Past:
        """Nothing read yet."""
        return Past(self._empty)

    def read(self, ids: Sequence[int], prefix: Float | None, past: Past) -> Float:
        """Read on: the scores (V,) of what may follow.

        Args:
            ids: what comes after ``past``, placeholders included.
            prefix: (R, D) soft tokens for those placeholders in reading order; None without any.
            past: grows by the ids.
        """
        feeds = {
            "input_ids": np.array([ids], dtype=np.int64),
            "prefix": self._no_prefix if prefix is None else prefix,
            "past": past.values,
        }
        logits, past.values = self._opened.run(["logits", "present"], feeds)
        scores: Float = logits[0]
        return scores

    def generate(
        self,
        ids: Sequence[int],
        prefix: Float | None,
        sampling: Sampling,
        stop_ids: Sequence[int],
        past: Past | None = None,
    ) -> Generator[int, None, None]:
        """The ids of the answer one by one, the stopping one included.

        Args:
            ids: the prompt, placeholders included.
            prefix: (R, D) soft tokens in reading order for the placeholders that ``past`` does not hold; None
                without any.
            sampling: how to choose.
            stop_ids: ids that end the answer.
            past: the first positions of the prompt, not all of them; grows with every id that is read.
        """
        past = past or self.begin()
        # importing numpy.random takes longer than a greedy answer's ids
        chance = np.random.default_rng(sampling.seed) if sampling.temperature > 0 else None
        known = [i for i in ids if i != self._audio_token_id]
        scores = self.read(ids[past.length :], prefix, past)
        self._check_scores(scores, prefix)
        for made in range(1, sampling.max_new_tokens + 1):
            token = self._chosen(scores, sampling, chance, known)
            yield token
            if token in stop_ids or made == sampling.max_new_tokens:
                return
            known.append(token)
            scores = self.read([token], None, past)

    def _check_scores(self, scores: Float, prefix: Float | None) -> None:
        """Refuse scores (V,) that choose nothing: NaN or infinite ones would be an empty answer, all the same ones too.

        Raises:
            AudioError: where what was made of the clip is not finite and the weights are.
            CheckpointError: naming the weight that is no number, or the model.
        """
        if scores.min() < scores.max() < np.inf:  # NaN is less than nothing
            return
        again = "download the model again; gama inspect --verify compares its files"
        folder = self._path.parent
        if (name := weight_without_number(folder / WEIGHTS)) is not None:
            raise CheckpointError(f"{folder}: {name} holds NaN or infinity, so there is no answer", again)
        if prefix is not None and not np.isfinite(prefix).all():
            raise AudioError(
                "what the audio encoder makes of a clip is not finite, so there is no answer",
                "are its samples beyond full scale?",
            )
        if scores.min() == scores.max():
            raise CheckpointError(f"{folder}: every token is as likely as any other: its weights are empty", again)
        raise CheckpointError(f"{folder}: the scores of an answer are not numbers", again)

    def _chosen(
        self, scores: Float, sampling: Sampling, chance: np.random.Generator | None, known: Sequence[int]
    ) -> int:
        if self._audio_token_id < len(scores):
            scores[self._audio_token_id] = -np.inf  # it stands for sound
        if sampling.repetition_penalty != 1:
            scores = penalised(scores, known, sampling.repetition_penalty)
        if chance is None:
            return int(scores.argmax())
        return int(chance.choice(len(scores), p=probabilities(scores, sampling)))


def penalised(scores: Float, known: Sequence[int], penalty: float) -> Float:
    """Scores (V,) with those of ``known`` ids divided by a penalty, or multiplied by it where they lie below 0."""
    changed, ids = scores.copy(), np.unique(np.asarray(known, dtype=np.int64))
    changed[ids] = np.where(scores[ids] < 0, scores[ids] * np.float32(penalty), scores[ids] / np.float32(penalty))
    return changed


def probabilities(scores: Float, sampling: Sampling) -> NDArray[np.float64]:
    """Scores (V,) -> probabilities (V,) at a temperature, of the ``top_k`` likeliest tokens and, of those, of the
    likeliest that together hold ``top_p``."""
    with np.errstate(over="ignore"):  # a tiny temperature gives -inf: probability 0
        chances = np.exp((scores.astype(np.float64) - scores.max()) / sampling.temperature)
    if 0 < sampling.top_k < len(chances):
        chances[chances < np.partition(chances, -sampling.top_k)[-sampling.top_k]] = 0.0
    chances /= chances.sum()
    if sampling.top_p < 1:
        order = np.argsort(-chances, kind="stable")
        before = np.cumsum(chances[order]) - chances[order]
        chances[order[before >= sampling.top_p]] = 0.0
        chances /= chances.sum()
    return chances
