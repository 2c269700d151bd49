"""Keys and values that are kept change what is computed, never what is said."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gama
from gama import audio
from gama.audio import Waveform
from gama.checkpoints.bundled import model_folder
from gama.errors import PromptError
from gama.inference.asking import Asker
from gama.inference.caches import InstantCache, TorchCache
from gama.inference.engine import Gama
from gama.inference.memory import Memory
from gama.inference.turns import Said, Spoken
from gama.instant.engine import has_instant_graphs
from gama.prompt import SILENCE_NOTE

SHORT = {"max_new_tokens": 8}
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "dog_then_bells.flac"


@pytest.fixture(scope="module")
def torch_mini() -> Gama:
    return gama.load(runtime="torch")


@pytest.fixture(scope="module", params=["torch", "onnx"])
def mini(request: pytest.FixtureRequest) -> Asker:
    """gama-mini on each runtime."""
    if request.param == "torch":
        asker: Asker = request.getfixturevalue("torch_mini")
        return asker
    if not has_instant_graphs(model_folder()):
        pytest.skip("the packaged model has no instant graphs")
    return gama.load(runtime="onnx")


def waveform(seconds: float, seed: int = 0, loudness: float = 0.1) -> Waveform:
    samples = loudness * np.random.default_rng(seed).standard_normal(round(16_000 * seconds))
    return Waveform(samples.astype(np.float32), f"clip{seed}.wav", 16_000, 1)


def question(text: str, *windows: Waveform) -> Spoken:
    return Spoken("user", text, windows)


def answered(speech: Generator[str, None, Said]) -> Said:
    pieces: list[str] = []
    while True:
        try:
            pieces.append(next(speech))
        except StopIteration as end:
            assert "".join(pieces) == end.value.text
            return end.value


def said(memory: Memory, *turns: Spoken, **options: Any) -> Said:
    return answered(memory.say(turns, **(SHORT | options)))


def fresh(mini: Asker, *turns: Spoken, **options: Any) -> Said:
    """The same without anything kept."""
    return said(Memory(mini, reuse=False), *turns, **options)


def test_one_question_is_answered_as_gama_ask_answers_it(mini: Asker) -> None:
    clip = waveform(3.0)
    for text in ("what happened?", "is there a dog?"):
        one = said(Memory(mini), question(text, clip), max_new_tokens=20)
        asked = mini.ask(clip, text, max_new_tokens=20)
        heard = asked.heard[0]
        assert one.text == asked
        assert (one.finish, one.prompt_tokens, one.audio_tokens, one.new_tokens, one.reused_tokens) == (
            heard.finish, heard.prompt_tokens, heard.audio_tokens, heard.new_tokens, 0,
        )  # fmt: skip


def test_a_second_question_computes_its_own_words_only(mini: Asker) -> None:
    memory, clip = Memory(mini), waveform(2.0)
    said(memory, question("what happened?", clip))
    second = said(memory, question("is there a dog?", clip))
    whole = fresh(mini, question("is there a dog?", clip))
    assert whole.reused_tokens == 0
    # the clip, the beginning of the sequence and the words before the question
    assert second.reused_tokens > second.audio_tokens == mini.num_audio_tokens
    assert second.text == whole.text and second.prompt_tokens == whole.prompt_tokens


def test_a_conversation_is_continued_where_it_ended(mini: Asker) -> None:
    memory, clip = Memory(mini), waveform(2.0)
    told: list[Spoken] = [question("what happened?", clip)]
    for text in ("is there a dog?", "when does it bark?", "describe the audio"):
        answer = said(memory, *told)
        before = memory.kept
        told += [Spoken("assistant", answer.text), question(text)]
        continued, whole = said(memory, *told), fresh(mini, *told)
        assert continued.text == whole.text
        assert 0 <= before - continued.reused_tokens <= 2  # the last token said may join what follows it
        assert memory.kept > before


def test_what_differs_is_computed_again(mini: Asker) -> None:
    memory, clip, other = Memory(mini), audio.load(EXAMPLE), waveform(2.0, 1)
    prompts: Sequence[tuple[Spoken, ...]] = [
        (question("what happened?", clip),),
        (question("what happened?", other),),  # the same words about another sound
        (question("what happened?", clip, other),),
        (question("what happened?", other, clip),),
        (question("what happened?"),),
        (Spoken("system", "Answer in one word."), question("what happened?", clip)),
        (question("what happened?", clip), Spoken("assistant", "A dog."), question("when?", other)),
        (question("what happened?", clip),),
    ]
    texts = []
    for turns in prompts:
        texts.append(said(memory, *turns, max_new_tokens=20).text)
        assert texts[-1] == fresh(mini, *turns, max_new_tokens=20).text
    assert texts[0] != texts[1]  # or nothing would be shown by their being right
    assert said(memory, *prompts[-1]).reused_tokens == said(memory, *prompts[-1]).prompt_tokens - 1


def test_a_clip_in_the_middle_of_what_is_left(mini: Asker) -> None:
    memory, clip, other = Memory(mini), waveform(2.0), waveform(2.0, 1)
    said(memory, question("what happened?", clip))
    both = said(memory, question("what happened?", clip, other))
    assert both.reused_tokens == mini.num_audio_tokens
    assert both.text == fresh(mini, question("what happened?", clip, other)).text


def test_no_more_is_kept_than_one_context(mini: Asker) -> None:
    memory = Memory(mini)
    for seed in range(12):
        said(memory, question("what happened?", waveform(0.5, seed)), max_new_tokens=2)
        assert memory.kept <= memory.context
    assert said(memory, question("what happened?", waveform(0.5, 11))).reused_tokens > 0
    assert said(memory, question("what happened?", waveform(0.5, 0))).reused_tokens == 0
    memory.forget()
    assert memory.kept == 0


def test_stopped_between_two_tokens(mini: Asker) -> None:
    memory, clip = Memory(mini), waveform(2.0)
    whole = fresh(mini, question("describe the audio", clip))
    assert whole.new_tokens >= 4
    asked = iter([False, False, True])
    stopped = answered(memory.say([question("describe the audio", clip)], stopped=lambda: next(asked), **SHORT))
    assert stopped.finish == "interrupted" and stopped.new_tokens == 2
    assert whole.text.startswith(stopped.text)
    assert said(memory, question("describe the audio", clip)).text == whole.text
    before_all = answered(memory.say([question("what?", clip)], stopped=lambda: True, **SHORT))
    assert (before_all.finish, before_all.text, before_all.new_tokens) == ("interrupted", "", 0)
    assert said(memory, question("what?", clip)).text == fresh(mini, question("what?", clip)).text


def test_what_broke_off_is_not_kept(mini: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, clip = Memory(mini), waveform(2.0)
    expected = said(memory, question("what happened?", clip)).text
    kind = TorchCache if mini.runtime.name == "torch" else InstantCache
    whole = kind.tokens

    def broken(*given: Any) -> Any:
        yield next(whole(*given))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(kind, "tokens", broken)
        with pytest.raises(KeyboardInterrupt):
            said(memory, question("is there a dog?", clip))
    assert memory.kept == 0
    assert said(memory, question("what happened?", clip)).text == expected


def test_a_chat_template_renders_the_conversation(torch_mini: Gama, monkeypatch: pytest.MonkeyPatch) -> None:
    template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    turns = [question("one <audio> </s>", waveform(1.0)), Spoken("assistant", "two"), question("three")]
    monkeypatch.setattr(torch_mini.processor, "chat_template", template)
    prompt = Memory(torch_mini).prompt(turns)
    text = torch_mini.processor.tokenizer.decode([i for i in prompt.ids if i != torch_mini.processor.audio_token_id])
    assert [k for k in prompt.keys if isinstance(k, tuple)] == [
        (turns[0].windows[0].sha256, place) for place in range(torch_mini.num_audio_tokens)
    ]
    assert torch_mini.processor.tokenizer.eos_token_id not in prompt.ids  # what a user types is never a control token
    for part in ("user: ", "one", "assistant: two", "user: three", "assistant:"):
        assert part in text
    assert "### Response" in torch_mini.processor.tokenizer.decode(Memory(torch_mini).prompt(turns, "gama").ids[96:])


def test_silence_is_told(mini: Asker) -> None:
    ids = Memory(mini).prompt([question("what?", waveform(1.0, loudness=0.0))]).ids
    assert SILENCE_NOTE in mini.tokenizer.decode(ids[96:])


def test_a_prompt_beyond_the_context(mini: Asker) -> None:
    windows = [waveform(0.1, seed) for seed in range(11)]
    with pytest.raises(PromptError, match=r"11 clip window\(s\).*context holds 1024"):
        said(Memory(mini), question("what?", *windows))
    assert Memory(mini).measure([question("what?", *windows)]) > mini.context
