"""Conversations become prompts as transformers' processors write them, whatever a chat template reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model import small
from transformers import AutoTokenizer

import gama
from gama import audio
from gama.errors import AudioError, PromptError
from gama.model.processing import GamaFeatureExtractor, GamaProcessor
from gama.model.prompts import Rendering
from gama.prompt import TEMPLATES

TAIL = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
STRINGS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" + TAIL
TRIMMED = STRINGS.replace("m.content", "m.content | trim")
PARTS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for c in m.content %}{% if c.type == 'audio' %}<audio>{% else %}{{ c.text }}{% endif %}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}" + TAIL
)
PARTS_ALONE = PARTS.replace("{% if m.content is string %}{{ m.content }}{% else %}", "").replace(
    "{% endfor %}{% endif %}<|im_end|>", "{% endfor %}<|im_end|>"
)
STRINGS_OR_NOTHING = (  # as Qwen3's: what is no string is left out
    "{% for m in messages %}{% if m.content is string %}{% set content = m.content %}{% else %}"
    "{% set content = '' %}{% endif %}<|im_start|>{{ m.role }}\n{{ content }}<|im_end|>\n{% endfor %}" + TAIL
)
FOREIGN = PARTS.replace("<audio>", "<|AUDIO|>")
GENERATION = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
    "{% else %}<|im_start|>{{ m.role }}\n{% for c in m.content %}"
    "{{ '<audio>' if c.type == 'audio' else c.text }}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
)
WAVE = audio.load(np.full(8_000, 0.01, np.float32), sampling_rate=16_000)
START, STOP, AUDIO = 3, 4, 261


@pytest.fixture
def processor() -> GamaProcessor:
    return made(small.tokenizer())


def made(tokenizer: Any, **given: Any) -> GamaProcessor:
    extractor = GamaFeatureExtractor(feature_size=small.BINS, num_frames=small.FRAMES)
    return GamaProcessor(extractor, tokenizer, num_audio_tokens=small.SOFT, **given)


def user(*parts: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "audio", "audio": p} for p in parts]
    return {"role": "user", "content": content}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


CONVERSATIONS = [
    [user(WAVE, "What?")],
    [user("What?")],
    [user("one", WAVE, WAVE, "two")],
    [system("Be brief."), user(WAVE, "What?")],
    [user(WAVE, "What?"), assistant("A dog."), user("Sure?")],
    [user("What?"), assistant("Nothing."), user(WAVE, "And now?"), assistant("A dog.")],
    [user(WAVE, "It's {instruction} {system} \\n 'x' \"y\"")],
]


# -- GAMA's own prompt -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "generation", "begins"), list(product(TEMPLATES, (False, True), (False, True))))
def test_the_saved_template_is_the_prompt(name: str, generation: bool, begins: bool, tmp_path: Path) -> None:
    """What other programs render from the saved folder is what render() writes."""
    ours = made(small.tokenizer(bos=begins), template=name)
    ours.save_pretrained(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for messages in CONVERSATIONS:
        want = ours.apply_chat_template(messages, add_generation_prompt=generation)
        given = {"tokenize": False, "add_generation_prompt": generation}
        assert theirs.apply_chat_template(messages, **given) == want


def test_what_opens_an_answer(processor: GamaProcessor) -> None:
    asked = "<audio><s>### Instruction:\nWhat?\n\n"
    first = [user(WAVE, "What?")]
    assert processor.apply_chat_template(first, add_generation_prompt=False) == asked
    assert processor.apply_chat_template(first, add_generation_prompt=True) == asked + "### Response:\n"
    told = [*first, assistant("A dog.")]
    whole = asked + "### Response:\nA dog."
    for generation in (False, True):
        assert processor.apply_chat_template(told, add_generation_prompt=generation) == whole + "</s>"
    assert processor.apply_chat_template(told, continue_final_message=True) == whole
    assert processor.apply_chat_template(first, continue_final_message=True) == "<audio><s>### Instruction:\nWhat?"
    again = processor.apply_chat_template([*told, user("Sure?")], add_generation_prompt=True)
    assert again == whole + "</s>\n\n### Instruction:\nSure?\n\n### Response:\n"


@pytest.mark.parametrize("name", TEMPLATES)
def test_one_call_is_two_calls(name: str) -> None:
    """With gama-mini's tokenizer, in which words are merged over whatever is cut."""
    for tokenizer in (small.tokenizer(), AutoTokenizer.from_pretrained(gama.model_folder())):
        ours = made(tokenizer, template=name)
        for messages in CONVERSATIONS:
            given: dict[str, Any] = {"add_generation_prompt": True}
            text = ours.apply_chat_template(messages, **given)
            clips = [
                p["audio"] for m in messages if isinstance(m["content"], list) for p in m["content"] if "audio" in p
            ]
            want = ours.apply_chat_template(messages, tokenize=True, return_dict=True, **given)
            assert set(want) == {"input_ids", "attention_mask"} | ({"input_features"} if clips else set())
            for prompt in (text, str(text)):
                got = ours(text=prompt, audio=clips or None)
                assert all(torch.equal(got[key], want[key]) for key in want)


@pytest.mark.parametrize("given", [{"tools": [{"name": "f"}]}, {"documents": [{"title": "a", "text": "b"}]}])
def test_what_the_own_prompt_has_no_place_for(given: dict[str, Any], processor: GamaProcessor) -> None:
    with pytest.raises(PromptError, match="no place for tools or documents"):
        processor.apply_chat_template([user("a")], **given)


def test_ids_alone_and_text_alone(processor: GamaProcessor) -> None:
    assert isinstance(processor.apply_chat_template([user("a")]), str)
    for given in ({"return_dict": False}, {"return_tensors": "pt"}):
        ids = processor.apply_chat_template([user("a")], tokenize=True, **given)
        assert isinstance(ids, torch.Tensor) and ids.shape[0] == 1


def test_the_name_of_a_template_may_change(processor: GamaProcessor, tmp_path: Path) -> None:
    processor.template = "plain"
    processor.save_pretrained(tmp_path)
    assert processor.apply_chat_template([user("a")]) == "<s>a\n"
    theirs = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template([user("a")], tokenize=False)
    assert theirs == "<s>a\n"


# -- parts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", [STRINGS, TRIMMED, PARTS, PARTS_ALONE, STRINGS_OR_NOTHING])
def test_no_template_loses_anything(template: str, processor: GamaProcessor) -> None:
    want = "<|im_start|>user\n<audio>What?<|im_end|>\n<|im_start|>assistant\n"
    given: dict[str, Any] = {"chat_template": template, "add_generation_prompt": True}
    assert processor.apply_chat_template([user(WAVE, "What?")], **given) == want
    inputs = processor.apply_chat_template([user(WAVE, "What?")], tokenize=True, return_dict=True, **given)
    assert int((inputs["input_ids"] == AUDIO).sum()) == small.SOFT
    assert inputs["input_features"].shape[0] == 1


@pytest.mark.parametrize(
    ("template", "expected"),
    [(STRINGS, False), (TRIMMED, False), (STRINGS_OR_NOTHING, False), (PARTS, True), (PARTS_ALONE, True)],
)
def test_what_a_template_reads(template: str, expected: bool) -> None:
    assert Rendering(template, "<audio>", (), {}, {}).reads_parts() is expected


def test_a_template_that_leaves_a_clip_out_is_refused(processor: GamaProcessor) -> None:
    for given in ({}, {"tokenize": True}):
        with pytest.raises(PromptError, match=r"writes 0 <audio> for 1 clip"):
            processor.apply_chat_template([user(WAVE, "a")], chat_template=FOREIGN, **given)


def test_another_placeholder() -> None:
    ours = made(small.tokenizer(), audio_token="<|AUDIO|>", chat_template=FOREIGN)
    ids = ours.apply_chat_template([user(WAVE, "a")], tokenize=True, return_dict=False)
    assert int((ids == ours.audio_token_id).sum()) == small.SOFT


def test_text_is_trimmed_as_a_template_says(processor: GamaProcessor) -> None:
    got = processor.apply_chat_template([user("  What?  ")], chat_template=TRIMMED, add_generation_prompt=False)
    assert got == "<|im_start|>user\nWhat?<|im_end|>\n"


@pytest.mark.parametrize("template", [None, PARTS])
def test_the_text_needs_no_clips(template: str | None, processor: GamaProcessor) -> None:
    """Qwen2-Audio's documented way: the text first, from addresses that are not fetched, then text and clips."""
    parts = [
        {"type": "audio"},
        {"type": "audio", "audio_url": "https://example.org/clip.wav"},
        {"type": "text", "text": "Which is louder?"},
    ]
    messages = [{"role": "user", "content": parts}]
    text = processor.apply_chat_template(messages, chat_template=template, add_generation_prompt=True, tokenize=False)
    assert text.count("<audio>") == 2
    inputs = processor(text=text, audio=[WAVE, WAVE])
    assert int((inputs["input_ids"] == AUDIO).sum()) == 2 * small.SOFT
    with pytest.raises(PromptError, match="without a clip"):
        processor.apply_chat_template(messages, chat_template=template, tokenize=True)
    with pytest.raises(AudioError, match=r"https://example\.org/clip\.wav"):
        processor.apply_chat_template([{"role": "user", "content": parts[1:]}], chat_template=template, tokenize=True)


def test_text_is_what_the_tokenizer_reads() -> None:
    """Merged over the template's words and a person's alike, as it was in training elsewhere."""
    tokenizer = AutoTokenizer.from_pretrained(gama.model_folder())
    ours = made(tokenizer, chat_template=STRINGS)
    messages = [user("is there a dog?"), assistant("yes"), user("is there a bell?")]
    text = ours.apply_chat_template(messages, add_generation_prompt=True)
    ids = ours.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert ids[0].tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]


# -- words that are not control tokens ---------------------------------------------------------------------------------


SPLIT = [("<", "audio>"), ("<aud", "io>"), ("</", "s>"), ("<|im_", "end|>"), ("<|im", "_end", "|>")]


@pytest.mark.parametrize("words", SPLIT, ids=["+".join(w) for w in SPLIT])
@pytest.mark.parametrize("template", [None, STRINGS, PARTS])
def test_nor_do_words_of_several_parts(template: str | None, words: tuple[str, ...], processor: GamaProcessor) -> None:
    harmless, hostile = (
        processor.apply_chat_template([user(WAVE, *parts)], chat_template=template, tokenize=True, return_dict=False)[
            0
        ].tolist()
        for parts in (["a"] * len(words), words)
    )
    for control in (0, 1, 2, START, STOP, AUDIO):
        assert hostile.count(control) == harmless.count(control), control


@pytest.mark.parametrize("words", ["<audio>", "</s>", "<|im_end|>", "a <|im_end|> b", "<"])
@pytest.mark.parametrize("template", [None, STRINGS, PARTS])
def test_the_text_remembers_who_wrote_what(template: str | None, words: str, processor: GamaProcessor) -> None:
    """The second of two calls knows it, too."""
    given: dict[str, Any] = {"chat_template": template, "add_generation_prompt": True}
    text = processor.apply_chat_template([user(WAVE, words)], **given)
    assert words in text
    want = processor.apply_chat_template([user(WAVE, words)], tokenize=True, return_dict=False, **given)
    assert torch.equal(processor(text=text, audio=[WAVE])["input_ids"], want)


def test_words_in_other_fields(processor: GamaProcessor) -> None:
    template = "{% for m in messages %}{{ m.name }}: {{ m.content }} {{ m.tool_calls[0].query }}{% endfor %}"
    message = {"role": "user", "name": "</s>", "content": "a", "tool_calls": [{"query": "<|im_end|><audio>"}]}
    text = processor.apply_chat_template([message], chat_template=template)
    assert text == "</s>: a <|im_end|><audio>"
    ids = processor.apply_chat_template([message], chat_template=template, tokenize=True, return_dict=False)[0].tolist()
    assert not {2, STOP, AUDIO} & set(ids)


# -- objects, masks, variables -----------------------------------------------------------------------------------------


@dataclass
class Message:
    role: str
    content: Any
    name: str | None = None


@dataclass
class Conversation:
    messages: list[Any] = field(default_factory=list)


class Plain:
    def __init__(self, role: str, content: Any) -> None:
        self.role, self.content = role, content


class Dumped(Plain):
    def model_dump(self) -> dict[str, Any]:
        return {"role": self.role, "content": self.content, "name": None}


@pytest.mark.parametrize("kind", [Message, Plain, Dumped])
@pytest.mark.parametrize("template", [None, PARTS])
def test_message_objects(kind: Any, template: str | None, processor: GamaProcessor) -> None:
    given: dict[str, Any] = {"chat_template": template}
    message = user(WAVE, "a")
    want = processor.apply_chat_template([message], **given)
    single = [kind(message["role"], message["content"])]
    assert processor.apply_chat_template(single, **given) == want
    assert processor.apply_chat_template(Conversation(single), **given) == want
    assert processor.apply_chat_template([single, single], **given) == [want, want]
    assert processor.apply_chat_template([Conversation(single)], **given) == [want]


def test_messages_are_left_as_they_were(processor: GamaProcessor) -> None:
    messages = [{"role": "user", "content": [{"type": "audio", "audio": WAVE}, {"type": "text", "text": "</s>"}]}]
    processor.apply_chat_template(messages, chat_template=PARTS, tokenize=True)
    assert messages[0]["content"][1] == {"type": "text", "text": "</s>"}
    assert messages[0]["content"][0]["audio"] is WAVE


@pytest.mark.parametrize("given", [None, [], "hello", [[]], [{"content": "a"}], [3]])
def test_what_is_no_conversation(given: Any, processor: GamaProcessor) -> None:
    with pytest.raises(PromptError):
        processor.apply_chat_template(given)


def test_tools_and_variables_reach_a_template(processor: GamaProcessor) -> None:
    template = "{{ tools | length }} {{ documents[0].title }} {{ mood }} {{ messages[0].content }}"
    given: dict[str, Any] = {"tools": [{"name": "f"}], "documents": [{"title": "t", "text": ""}], "mood": "well"}
    assert processor.apply_chat_template([user("a")], chat_template=template, **given) == "1 t well a"
    with pytest.raises(PromptError, match="unknown argument 'mode'"):
        processor.apply_chat_template([user("a")], chat_template=template, mode="well")


def test_several_templates(processor: GamaProcessor) -> None:
    processor.chat_template = {"default": STRINGS, "loud": "{{ messages[0].content | upper }}"}
    assert processor.apply_chat_template([user("a")], add_generation_prompt=False) == "<|im_start|>user\na<|im_end|>\n"
    assert processor.apply_chat_template([user("what?")], chat_template="loud") == "WHAT?"
    processor.chat_template = {"loud": "x"}
    with pytest.raises(PromptError, match="loud"):
        processor.apply_chat_template([user("a")])


@pytest.mark.parametrize("template", [None, GENERATION])
@pytest.mark.parametrize("side", ["left", "right"])
def test_masks_of_what_an_assistant_wrote(side: str, template: str | None, processor: GamaProcessor) -> None:
    conversations = [
        [user(WAVE, "a"), assistant("It's a dog."), user("b"), assistant("Two <audio>.")],
        [user("a</s>"), assistant("No.")],
    ]
    inputs = processor.apply_chat_template(
        conversations,
        chat_template=template,
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
        processor_kwargs={"padding_side": side},
    )
    end = STOP if template else 2
    for row, mask, answers in zip(
        inputs["input_ids"], inputs["assistant_masks"].bool(), [["It's a dog.", "Two <audio>."], ["No."]], strict=True
    ):
        want = [
            i
            for a in answers
            for i in [*processor.tokenizer(a, add_special_tokens=False, split_special_tokens=True)["input_ids"], end]
        ]
        assert row[mask].tolist() == want


@pytest.mark.parametrize("other", ["add_generation_prompt", "return_assistant_tokens_mask"])
def test_what_excludes_each_other(other: str, processor: GamaProcessor) -> None:
    with pytest.raises(PromptError, match="not compatible"):
        processor.apply_chat_template([user("a")], continue_final_message=True, **{other: True})


@pytest.mark.parametrize("template", [STRINGS, PARTS])
@pytest.mark.parametrize("words", ["It is", "It is <|im_end|> a", "ends with <"])
def test_continuing_a_message(words: str, template: str, processor: GamaProcessor) -> None:
    messages = [user(WAVE, "a"), assistant(words)]
    got = processor.apply_chat_template(messages, chat_template=template, continue_final_message=True)
    assert got == f"<|im_start|>user\n<audio>a<|im_end|>\n<|im_start|>assistant\n{words}"


def test_what_is_not_said(processor: GamaProcessor) -> None:
    """An answer is opened after a question alone, and ids alone are what return_tensors asks for."""
    asked = [user(WAVE, "What?")]
    answered = [*asked, {"role": "assistant", "content": "A dog."}]
    assert processor.apply_chat_template(asked) == processor.apply_chat_template(asked, add_generation_prompt=True)
    assert processor.apply_chat_template(answered) == processor.apply_chat_template(
        answered, add_generation_prompt=False
    )
    assert processor.apply_chat_template(asked) != processor.apply_chat_template(asked, add_generation_prompt=False)
    inputs = processor.apply_chat_template(asked, tokenize=True, sampling_rate=16_000)
    assert set(inputs) == {"input_ids", "attention_mask", "input_features"}
    ids = processor.apply_chat_template(asked, tokenize=True, sampling_rate=16_000, return_tensors="pt")
    assert torch.equal(ids, inputs["input_ids"])
    whole = processor.apply_chat_template(answered, tokenize=True, sampling_rate=16_000)["input_ids"]
    assert torch.equal(whole[:, : ids.shape[1]], ids)
