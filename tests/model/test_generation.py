"""Every mode of ``generate``: what it answers with clips equals what greedy decoding over whole prompts answers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from model import small
from model.small import CLIP, ROWS, WORDS, generate
from torch import Tensor
from transformers import LogitsProcessorList

from gama.model.gama import GamaForConditionalGeneration
from gama.model.key_values import CACHE

INSIDE = 3
SETTINGS: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
TWO = [*CLIP, 1, 60, *CLIP, 61]


@pytest.fixture(scope="module")
def beyond() -> GamaForConditionalGeneration:
    return small.model("llama")


@pytest.fixture(scope="module")
def inside() -> GamaForConditionalGeneration:
    return small.model("llama", audio_token_id=INSIDE)


@pytest.fixture(scope="module")
def assistant() -> GamaForConditionalGeneration:
    """Another model, of another width: its proposals are mostly wrong."""
    return small.model("llama", text_width=32, seed=5)


# -- a prompt in chunks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, small.SOFT, 11, 500])
def test_a_prompt_in_chunks(size: int, beyond: GamaForConditionalGeneration) -> None:
    """Chunks end anywhere, within a clip too, and rows have different numbers of clips."""
    fbank = small.fbanks(4)
    want = generate(beyond, ROWS, fbank)
    assert torch.equal(generate(beyond, ROWS, fbank, prefill_chunk_size=size), want)


@pytest.mark.parametrize("name", ["input_features", "audio_features"])
def test_chunks_of_whatever_name(name: str, beyond: GamaForConditionalGeneration) -> None:
    fbank = small.fbanks(2)
    given = fbank if name == "input_features" else beyond.get_audio_features(fbank)
    ids = torch.tensor([TWO])
    got = beyond.generate(input_ids=ids, prefill_chunk_size=4, **{name: given}, **SETTINGS)
    assert torch.equal(got, beyond.generate(input_ids=ids, input_features=fbank, **SETTINGS))


def test_chunks_encode_each_clip_once(beyond: GamaForConditionalGeneration, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, plain = [], beyond.audio_prefix
    monkeypatch.setattr(beyond, "audio_prefix", lambda values: seen.append(len(values)) or plain(values))
    generate(beyond, ROWS, small.fbanks(4), prefill_chunk_size=3)
    generate(beyond, ROWS, small.fbanks(4), num_beams=3)
    assert seen == [4, 4]


# -- assistants --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [CLIP + WORDS, TWO], ids=["one clip", "two clips"])
@pytest.mark.parametrize("who", ["itself", "another"])
def test_an_assistant_changes_nothing(
    ids: list[int], who: str, beyond: GamaForConditionalGeneration, assistant: GamaForConditionalGeneration
) -> None:
    fbank = small.fbanks(1 if ids is not TWO else 2)
    helper = small.model("llama") if who == "itself" else assistant
    want = generate(beyond, [ids], fbank)
    assert torch.equal(generate(beyond, [ids], fbank, assistant_model=helper), want)


def test_an_assistant_reads_the_clip(beyond: GamaForConditionalGeneration) -> None:
    """One that is the model itself is always right, if it reads what the model reads."""
    helper = small.model("llama")
    helper.generation_config.num_assistant_tokens = 4
    helper.generation_config.num_assistant_tokens_schedule = "constant"
    helper.generation_config.assistant_confidence_threshold = 0.0
    steps: list[int] = []
    hook = beyond.register_forward_hook(lambda module, args, output: steps.append(output.logits.shape[1]))
    generate(beyond, [CLIP + WORDS], small.fbanks(1), assistant_model=helper, max_new_tokens=10)
    hook.remove()
    assert len(steps) == 2, "ten tokens are two rounds of four proposals and one more"


@pytest.mark.parametrize("placeholder", [small.VOCABULARY, INSIDE])
def test_look_up_in_the_prompt(
    placeholder: int, beyond: GamaForConditionalGeneration, inside: GamaForConditionalGeneration
) -> None:
    """Words before a clip are found again, and the clip's placeholders come after them."""
    model = beyond if placeholder == small.VOCABULARY else inside
    fbank = small.fbanks(2)
    ids = [*small.clip(placeholder), 1, 60, 61, *small.clip(placeholder), 60, 61]
    want = generate(model, [ids], fbank)
    assert torch.equal(generate(model, [ids], fbank, prompt_lookup_num_tokens=3, max_matching_ngram_size=2), want)


# -- embeddings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beams", [1, 2])
def test_from_embeddings(beams: int, beyond: GamaForConditionalGeneration) -> None:
    fbank, ids = small.fbanks(2), torch.tensor([TWO])
    with torch.no_grad():
        embeds = beyond.embed(ids, beyond.get_audio_features(fbank))
    want = generate(beyond, [TWO], fbank, num_beams=beams)
    assert torch.equal(beyond.generate(inputs_embeds=embeds, num_beams=beams, **SETTINGS), want)
    both = beyond.generate(input_ids=ids, inputs_embeds=embeds, num_beams=beams, **SETTINGS)
    assert torch.equal(both[:, len(TWO) :], want)


def test_from_embeddings_with_clips_to_put_in(
    inside: GamaForConditionalGeneration, beyond: GamaForConditionalGeneration
) -> None:
    """A placeholder with a row of its own is known by its embedding, as in transformers' other models."""
    fbank, ids = small.fbanks(1), torch.tensor([small.clip(INSIDE) + WORDS])
    embeds = inside.get_input_embeddings()(ids).detach()
    want = inside.generate(input_ids=ids, input_features=fbank, **SETTINGS)[:, ids.shape[1] :]
    assert torch.equal(inside.generate(inputs_embeds=embeds, input_features=fbank, **SETTINGS), want)
    with pytest.raises(ValueError, match="7 audio placeholders .*2 clip"):
        inside(inputs_embeds=embeds, input_features=small.fbanks(2))
    with pytest.raises(ValueError, match="has no embedding, so clips need input_ids"):
        beyond(inputs_embeds=embeds, input_features=fbank)


@pytest.mark.filterwarnings("ignore:Passing .* with `inputs_embeds` and without `input_ids`")  # what is tested here
@pytest.mark.parametrize("processors", [{"repetition_penalty": 1.7}, {"no_repeat_ngram_size": 2}])
def test_processors_with_embeddings(processors: dict[str, Any], beyond: GamaForConditionalGeneration) -> None:
    with torch.no_grad():
        embeds = beyond.embed(torch.tensor([CLIP + WORDS]), beyond.get_audio_features(small.fbanks(1)))
    assert beyond.generate(inputs_embeds=embeds, **processors, **SETTINGS).shape == (1, 8)


# -- a second turn -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["all", "new", "none"])
def test_a_second_turn_over_the_cache(given: str, beyond: GamaForConditionalGeneration) -> None:
    """The second turn may bring a clip, along with that of the first or alone."""
    fbank = small.fbanks(2)
    first = beyond.generate(
        input_ids=torch.tensor([CLIP + WORDS]), input_features=fbank[:1], return_dict_in_generate=True, **SETTINGS
    )
    more = [5, 6, 7] if given == "none" else [5, *CLIP, 6]
    ids = torch.cat([first.sequences, torch.tensor([more])], dim=1)
    clips = fbank[:1] if given == "none" else fbank
    want = beyond.generate(input_ids=ids, input_features=clips, **SETTINGS)
    audio = {"all": {"input_features": fbank}, "new": {"input_features": fbank[1:]}, "none": {}}[given]
    got = beyond.generate(input_ids=ids, **{CACHE: first[CACHE]}, **audio, **SETTINGS)
    assert torch.equal(got, want)


# -- compiled and exported ---------------------------------------------------------------------------------------------


def test_a_static_cache_and_one_graph(beyond: GamaForConditionalGeneration) -> None:
    """A decoding step over a static cache is one graph, without breaks."""
    torch.compiler.reset()
    fbank = small.fbanks(1)
    want = generate(beyond, [CLIP + WORDS], fbank)
    compiled = torch.compile(beyond.forward, fullgraph=True, backend="eager")
    plain = beyond.forward
    beyond.forward = compiled
    try:
        got = generate(beyond, [CLIP + WORDS], fbank, cache_implementation="static")
    finally:
        beyond.forward = plain
    assert torch.equal(got, want)


@pytest.mark.parametrize("form", ["paper", "released"])
def test_export_of_the_whole(form: str) -> None:
    """``torch.export`` of ids and clips to logits, for clips and prompts of other values."""
    model = small.model("llama", aggregator=form)
    ids, fbank = torch.tensor([CLIP + WORDS]), small.fbanks(1)
    inputs = {"input_ids": ids, "input_features": fbank, "use_cache": False, "return_dict": False}
    with torch.no_grad():
        graph = torch.export.export(model, (), inputs)
        other = inputs | {"input_ids": torch.tensor([[1, 40, *CLIP, 41, 42, 43, 90]]), "input_features": -fbank}
        torch.testing.assert_close(graph.module()(**other)[0], model(**other)[0], atol=1e-4, rtol=1e-4)


# -- what transformers asks of every model -----------------------------------------------------------------------------


def test_logits_of_the_last_position_alone(beyond: GamaForConditionalGeneration) -> None:
    fbank, ids = small.fbanks(1), torch.tensor([CLIP + WORDS])
    with torch.no_grad():
        whole = beyond(input_ids=ids, input_features=fbank).logits
        last = beyond(input_ids=ids, input_features=fbank, logits_to_keep=1).logits
    assert last.shape[1] == 1
    torch.testing.assert_close(last[:, 0], whole[:, -1])


def test_scores_hidden_states_and_attentions(beyond: GamaForConditionalGeneration) -> None:
    model = small.model("llama")
    model.set_attn_implementation("eager")
    wanted = {"output_scores": True, "output_hidden_states": True, "output_attentions": True}
    out = model.generate(
        input_ids=torch.tensor([CLIP + WORDS]),
        input_features=small.fbanks(1),
        return_dict_in_generate=True,
        **wanted,
        **SETTINGS,
    )
    assert len(out.scores) == len(out.hidden_states) == len(out.attentions) == 8
    length = len(CLIP + WORDS)
    assert out.hidden_states[0][0].shape == (1, length, 48) and out.attentions[0][0].shape[-2:] == (length, length)
    assert out.hidden_states[1][0].shape == (1, 1, 48)
    assert torch.equal(out.sequences[:, length:], generate(beyond, [CLIP + WORDS], small.fbanks(1)))


def test_padding_on_the_left_changes_nothing(beyond: GamaForConditionalGeneration) -> None:
    fbank = small.fbanks(1)
    ids = torch.tensor([[0, 0, 0, *CLIP, *WORDS]])
    mask = (torch.arange(ids.shape[1]) >= 3).long()[None]
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        got = beyond(input_ids=ids, attention_mask=mask, position_ids=positions, input_features=fbank).logits[:, -1]
        want = beyond(input_ids=ids[:, 3:], input_features=fbank).logits[:, -1]
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


def test_own_processors_see_text(beyond: GamaForConditionalGeneration) -> None:
    seen: list[Tensor] = []
    watch = LogitsProcessorList([lambda ids, scores: seen.append(ids) or scores])
    generate(beyond, [TWO], small.fbanks(2), logits_processor=watch, prefill_chunk_size=3)
    assert seen and all(int(ids.max()) < small.VOCABULARY for ids in seen)
