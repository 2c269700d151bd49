"""Text as it grows: whole characters, the same text as decoding everything at once, and no more work for it."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import AutoTokenizer

from gama.checkpoints.bundled import model_folder
from gama.inference.streaming import TextStream

TEXTS = [
    "a dog barks, then bells ring.",
    "naïve café: 日本語 🐕‍🦺🐕 «ok»",
    "two lines\nand\ttabs  with  spaces ",
    " leading and   inner",
    "\u00e9\u0301\u200b\U0001f600",
]
WORDS = ["▁a", "▁dog", "▁bark", "s", ",", "▁", "▁▁", "n", "▁caf", "."]


class Pieces:
    """As LLaMA's SentencePiece tokenizer decodes: ▁ is a space, the first one is left out, bytes make characters."""

    def __init__(self) -> None:
        special = ["<unk>", "<s>", "</s>"]
        vocabulary = [*special, *(f"<0x{b:02X}>" for b in range(256)), *WORDS]
        self.ids = {word: i for i, word in enumerate(vocabulary)}
        self.tokenizer = Tokenizer(models.BPE(self.ids, [], unk_token="<unk>", byte_fallback=True))
        self.tokenizer.add_special_tokens(special)
        self.tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        self.decoded: list[int] = []

    def decode(self, ids: list[int], *, skip_special_tokens: bool, **_: Any) -> str:
        self.decoded.append(len(ids))
        return str(self.tokenizer.decode(ids, skip_special_tokens=skip_special_tokens))

    def written(self, *parts: str) -> list[int]:
        """Words of the vocabulary by their ids, everything else byte by byte."""
        return [i for p in parts for i in ([self.ids[p]] if p in self.ids else [3 + b for b in p.encode()])]


@pytest.fixture(scope="module")
def bytewise() -> Any:
    return AutoTokenizer.from_pretrained(model_folder())


def streamed(tokenizer: Any, ids: list[int]) -> list[str]:
    stream = TextStream(tokenizer)
    pieces = [stream.push(token) for token in ids] + [stream.finish()]
    assert "".join(pieces) == stream.text
    return pieces


@pytest.mark.parametrize("text", TEXTS)
def test_bytes_make_the_whole_text(text: str, bytewise: Any) -> None:
    pieces = streamed(bytewise, bytewise(text, add_special_tokens=False)["input_ids"])
    assert "".join(pieces) == text and "\ufffd" not in text


@pytest.mark.parametrize(
    "parts",
    [
        ("▁a", "▁dog", "▁bark", "s", "."),
        ("▁dog", "▁", "▁", "▁a"),
        ("▁", "▁a", "▁▁", "▁dog"),
        ("▁▁", "▁", "n"),
        ("▁caf", "é", "▁a", "日本", "🐕🐕", ".", "🐕", "▁dog"),
        ("</s>", "▁a", "</s>", "<s>", "▁dog", "</s>"),
        ("▁a", "\ufffd", "▁dog"),
    ],
)
def test_sentence_pieces_make_the_whole_text(parts: tuple[str, ...]) -> None:
    tokenizer = Pieces()
    ids = tokenizer.written(*parts)
    pieces = streamed(tokenizer, ids)
    assert "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=True)
    whole = [piece for piece in pieces if piece]
    assert len(whole) > 1 and all("\ufffd" not in piece or "\ufffd" in parts for piece in whole)


def test_bytes_that_break_off_are_told_at_the_end() -> None:
    tokenizer = Pieces()
    dog = tokenizer.written("🐕")
    assert streamed(tokenizer, tokenizer.written("▁a") + dog + dog[:2])[-1] == "\ufffd\ufffd"
    assert "".join(streamed(tokenizer, [*dog, *dog[:2], *tokenizer.written("▁dog")])) == "🐕\ufffd\ufffd dog"


def test_the_work_for_an_id_does_not_grow() -> None:
    tokenizer = Pieces()
    streamed(tokenizer, tokenizer.written("▁a", "▁dog", "日", ",") * 200)
    assert max(tokenizer.decoded) <= 8
