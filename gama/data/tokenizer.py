"""gama-mini's tokenizer: a small byte-level BPE in which every word of a transcript is one token."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from gama.atomic import make_folder, write_text
from gama.data.scenes.questions import ask
from gama.data.scenes.symbolic import random_scene
from gama.data.scenes.transcript import VOCABULARY

SPECIAL_TOKENS: tuple[str, ...] = ("<pad>", "<s>", "</s>", "<audio>")
"""Padding, beginning, end, and the placeholder that an audio soft token replaces; ids 0 to 3."""

PROMPT = "### Instruction:\n{instruction}\n\n### Response:\n{output}"

_WORD_REPEATS = 20_000
"""How often each transcript word is added to the corpus: more than any pair of bytes that may compete with it."""


def corpus(seed: int, count: int) -> Iterator[str]:
    """Prompts with answers about random symbolic scenes: ``count`` texts, the same for the same seed."""
    rng = np.random.default_rng(seed)
    made = 0
    while made < count:
        for qa in ask(random_scene(rng), rng, min(8, count - made)):
            yield PROMPT.format(instruction=qa.instruction, output=qa.output)
            made += 1


def _trained(texts: Iterable[str], words: Sequence[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        show_progress=False,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    repeated = (f" {word}" * _WORD_REPEATS for word in words)
    tokenizer.train_from_iterator(chain(texts, repeated), trainer=trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", SPECIAL_TOKENS.index("<s>"))]
    )
    return tokenizer


def _config() -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "additional_special_tokens": ["<audio>"],
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1024,
    }


def train_tokenizer(
    texts: Iterable[str], *, words: Sequence[str] = VOCABULARY, vocab_size: int = 2048, out: Path
) -> Tokenizer:
    """Train a byte-level BPE and write ``tokenizer.json`` and ``tokenizer_config.json`` into ``out``.

    Every text can be encoded and comes back unchanged; encoding with special tokens puts ``<s>`` first. The same
    texts give the same files.

    Args:
        texts: what to train on, for instance :func:`corpus`.
        words: words that must be one token each, with a leading space.
        vocab_size: the most tokens it may have, the four special ones included.
        out: the folder, made if it is missing.

    Raises:
        ValueError: where a word did not become one token, because ``vocab_size`` is too small.
    """
    tokenizer = _trained(texts, words, vocab_size)
    broken = [word for word in words if len(tokenizer.encode(f" {word}", add_special_tokens=False).ids) != 1]
    if broken:
        raise ValueError(f"words of more than one token with vocab_size {vocab_size}: {broken}; raise vocab_size")
    make_folder(out)
    write_text(out / "tokenizer.json", tokenizer.to_str(pretty=True))
    write_text(out / "tokenizer_config.json", json.dumps(_config(), indent=2) + "\n")
    return tokenizer
