"""The tokenizer: nothing is lost, every transcript word is one token, transformers loads it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from gama.data.scenes.transcript import VOCABULARY
from gama.data.tokenizer import SPECIAL_TOKENS, corpus, train_tokenizer

STRANGE = [
    "héllo wörld 😀👩\u200d🚀",
    "\x00\x01\x1f\x7f",
    "  two  spaces \t\n\n",
    "中文 עברית ไทย",
    "A dog is barking.",
    "don't  !?",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(corpus(0, 3000), out=out)
    return out


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def test_every_transcript_word_is_one_token(tokenizer: Tokenizer) -> None:
    for word in VOCABULARY:
        ids = tokenizer.encode(f" {word}", add_special_tokens=False).ids
        assert len(ids) == 1 and tokenizer.decode(ids) == f" {word}"
    ids = tokenizer.encode("".join(f" {w}" for w in VOCABULARY), add_special_tokens=False).ids
    assert len(ids) == len(VOCABULARY) == len(set(ids))


def test_special_tokens_have_their_ids(tokenizer: Tokenizer) -> None:
    assert [tokenizer.token_to_id(t) for t in SPECIAL_TOKENS] == [0, 1, 2, 3]
    assert tokenizer.get_vocab_size() <= 2048
    assert tokenizer.encode("a dog").ids[0] == 1


@pytest.mark.parametrize("text", STRANGE)
def test_any_text_comes_back_unchanged(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_questions_and_answers_stay_short(tokenizer: Tokenizer) -> None:
    texts = [t.split("\n") for t in corpus(9, 800)]
    questions = sorted(len(tokenizer.encode(t[1], add_special_tokens=False).ids) for t in texts)
    answers = sorted(len(tokenizer.encode(t[-1], add_special_tokens=False).ids) for t in texts)
    assert questions[760] <= 15 and answers[760] <= 30


def test_the_same_texts_give_the_same_files(folder: Path, tmp_path: Path) -> None:
    train_tokenizer(corpus(0, 3000), out=tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]


def test_too_small_a_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="raise vocab_size"):
        train_tokenizer(corpus(0, 50), vocab_size=280, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_corpus_depends_on_its_seed_alone() -> None:
    assert list(corpus(4, 100)) == list(corpus(4, 100))
    assert list(corpus(4, 100)) != list(corpus(5, 100))
    assert len(list(corpus(4, 101))) == 101
    assert next(corpus(4, 1)).startswith("### Instruction:\n")


def test_transformers_loads_it(folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    loaded = transformers.AutoTokenizer.from_pretrained(folder)
    assert (loaded.pad_token_id, loaded.bos_token_id, loaded.eos_token_id) == (0, 1, 2)
    assert loaded.convert_tokens_to_ids("<audio>") == 3 and "<audio>" in loaded.all_special_tokens
    assert loaded.padding_side == "left"
    assert json.loads((folder / "tokenizer_config.json").read_text())["clean_up_tokenization_spaces"] is False
    for text in STRANGE:
        assert loaded.decode(loaded(text).input_ids, skip_special_tokens=True) == text
    batch = loaded(["a dog", "a dog is barking"], padding=True)
    assert batch.input_ids[0][0] == 0 and len(batch.input_ids[0]) == len(batch.input_ids[1])
