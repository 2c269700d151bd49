"""Invariants of the model on small random weights: what is computed once must be computed the same everywhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from model import small
from model.small import CLIP, ROWS, WORDS, generate, logits
from torch import Tensor, nn

from gama.model.gama import GamaForConditionalGeneration

FAMILIES = tuple(small.FAMILIES)
SOFT = small.SOFT


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> GamaForConditionalGeneration:
    return small.model(request.param)


@pytest.fixture(scope="module")
def llama() -> GamaForConditionalGeneration:
    return small.model("llama")


# -- forward -----------------------------------------------------------------------------------------------------------


def test_audio_features_equal_audio_values(model: GamaForConditionalGeneration) -> None:
    fbank = small.fbanks(1)
    with torch.no_grad():
        features = model.get_audio_features(fbank).pooler_output
    assert features.shape == (1, SOFT, 48)
    got = logits(model, CLIP + WORDS, audio_features=features)
    assert torch.equal(got, logits(model, CLIP + WORDS, audio_values=fbank))
    assert got.shape == (1, SOFT + len(WORDS), small.VOCABULARY)


def test_each_place_of_the_prefix_has_its_vector() -> None:
    config = small.config("llama")
    plain = GamaForConditionalGeneration(config).eval()
    config.prefix_positions = True
    placed = GamaForConditionalGeneration(config).eval()
    told = placed.load_state_dict(plain.state_dict(), strict=False)
    assert told.missing_keys == ["prefix_positions.weight"] and placed.prefix_positions is not None
    assert plain.prefix_positions is None
    fbank = small.fbanks(2)
    with torch.no_grad():
        expected = plain.get_audio_features(fbank).pooler_output + placed.prefix_positions.weight
        assert torch.equal(placed.get_audio_features(fbank).pooler_output, expected)
        assert torch.equal(placed.hear(fbank).prefix, plain.hear(fbank).prefix)
        assert placed.prefix_positions.weight.std() > 0


def test_parameters_outside_of_layers_are_drawn_too() -> None:
    tower = GamaForConditionalGeneration(small.config("llama")).audio_tower
    queries = tower.qformer.query_tokens[0]
    assert 0.01 < queries.std() < 0.03
    assert len({tuple(query.tolist()) for query in queries}) == len(queries)
    assert 0.01 < tower.encoder.position.std() < 0.03
    assert 0.01 < tower.encoder.modality.std() < 0.03


def test_prefix_takes_the_place_of_the_placeholders(llama: GamaForConditionalGeneration) -> None:
    fbank = small.fbanks(2)
    with torch.no_grad():
        first, second = llama.get_audio_features(fbank).pooler_output
        table = llama.get_input_embeddings().weight
        embeds = torch.cat([table[[1]], first, table[[40, 41]], second, table[[42]]])[None]
        want = llama.language_model(inputs_embeds=embeds).logits
    ids = [1, *CLIP, 40, 41, *CLIP, 42]
    torch.testing.assert_close(logits(llama, ids, audio_values=fbank), want)
    assert not torch.allclose(logits(llama, ids, audio_values=fbank.flip(0)), want, atol=1e-2)


def test_without_a_clip_it_is_the_language_model(model: GamaForConditionalGeneration) -> None:
    with torch.no_grad():
        want = model.language_model(input_ids=torch.tensor([WORDS])).logits
    assert torch.equal(logits(model, WORDS), want)


@pytest.mark.parametrize(
    ("ids", "clips"),
    [(WORDS, 1), (CLIP + WORDS, 2), (CLIP[:-1] + WORDS, 1), (CLIP * 2 + WORDS, 1), (CLIP + WORDS, 0)],
    ids=["no place", "two clips one place", "a token short", "two places one clip", "no clip"],
)
def test_clips_and_placeholders_must_match(ids: list[int], clips: int, llama: GamaForConditionalGeneration) -> None:
    given = {"audio_values": small.fbanks(clips)} if clips else {}
    with pytest.raises(ValueError, match=rf"{ids.count(small.VOCABULARY)} audio placeholders .*{clips} clip"):
        llama(input_ids=torch.tensor([ids]), **given)


def test_nothing_given_is_refused(llama: GamaForConditionalGeneration) -> None:
    with pytest.raises(ValueError, match="input_ids or inputs_embeds"):
        llama()


def test_width_of_embedding_and_logits(model: GamaForConditionalGeneration) -> None:
    assert model.config.audio_token_id == small.VOCABULARY
    assert model.get_input_embeddings().weight.shape[0] == small.VOCABULARY
    assert model.get_output_embeddings().weight.shape[0] == small.VOCABULARY


def test_audio_token_inside_the_vocabulary(llama: GamaForConditionalGeneration) -> None:
    inside = small.model("llama", audio_token_id=3)
    fbank = small.fbanks(1)
    got = logits(inside, small.clip(3) + WORDS, audio_values=fbank)
    assert torch.equal(got, logits(llama, CLIP + WORDS, audio_values=fbank))


def test_given_mask_is_honoured(model: GamaForConditionalGeneration) -> None:
    """What is masked may be anything; pads lie between the clip and its text, as in the original's training."""
    fbank = small.fbanks(1)
    rows = torch.tensor([CLIP + [0, 0, 0] + WORDS, CLIP + [99, 98, 97] + WORDS])
    mask = torch.ones_like(rows)
    mask[:, SOFT : SOFT + 3] = 0
    got = logits(model, rows, audio_values=fbank.repeat(2, 1, 1), attention_mask=mask)[:, SOFT + 3 :]
    torch.testing.assert_close(got[0], got[1])
    unmasked = logits(model, rows[1:], audio_values=fbank)[:, SOFT + 3 :]
    assert not torch.allclose(got[1:], unmasked, atol=1e-2)


def test_given_positions_are_honoured(model: GamaForConditionalGeneration) -> None:
    """With positions that skip the pads, the padded row equals the row without pads; with a gap it does not."""
    fbank = small.fbanks(1)
    want = logits(model, CLIP + WORDS, audio_values=fbank)[:, SOFT:]
    rows = torch.tensor([CLIP + [0, 0, 0] + WORDS])
    mask = torch.ones_like(rows)
    mask[:, SOFT : SOFT + 3] = 0
    skipping = (mask.cumsum(-1) - 1).clamp(min=0)
    given = {"audio_values": fbank, "attention_mask": mask}
    got = logits(model, rows, position_ids=skipping, **given)[:, SOFT + 3 :]
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
    straight = torch.arange(rows.shape[1])[None]
    gapped = logits(model, rows, position_ids=straight, **given)[:, SOFT + 3 :]
    assert not torch.allclose(gapped, want, atol=1e-2)


def test_float_mask_equals_integer_mask(model: GamaForConditionalGeneration) -> None:
    """The original's mask is float32."""
    fbank = small.fbanks(1)
    mask = torch.tensor([[1] * SOFT + [0, 0] + [1] * len(WORDS)])
    ids = CLIP + [0, 0] + WORDS
    got = logits(model, ids, audio_values=fbank, attention_mask=mask.float())
    want = logits(model, ids, audio_values=fbank, attention_mask=mask)
    torch.testing.assert_close(got[:, SOFT + 2 :], want[:, SOFT + 2 :])


def test_loss_skips_placeholders_and_what_follows_a_clip(llama: GamaForConditionalGeneration) -> None:
    ids = torch.tensor([CLIP + WORDS])
    out = llama(input_ids=ids, audio_values=small.fbanks(1), labels=ids)
    want = nn.functional.cross_entropy(out.logits[0, SOFT:-1], torch.tensor(WORDS[1:]))
    torch.testing.assert_close(out.loss, want)


def test_loss_with_num_items_in_batch(llama: GamaForConditionalGeneration) -> None:
    """The Trainer divides the sum of a whole accumulated batch."""
    ids = torch.tensor([WORDS])
    mean = llama(input_ids=ids, labels=ids).loss
    part = llama(input_ids=ids, labels=ids, num_items_in_batch=torch.tensor(20)).loss
    torch.testing.assert_close(part * 20, mean * (len(WORDS) - 1))


def test_tuple_output(llama: GamaForConditionalGeneration) -> None:
    ids = torch.tensor([WORDS])
    loss, scores = llama(input_ids=ids, labels=ids, return_dict=False, use_cache=False)[:2]
    assert loss.ndim == 0
    assert scores.shape == (1, len(WORDS), small.VOCABULARY)


# -- generation --------------------------------------------------------------------------------------------------------


COUNTS = [1, 2, 0, 1]  # clips of each row
SETTINGS: list[dict[str, Any]] = [
    {},
    {"repetition_penalty": 1.7},
    {"no_repeat_ngram_size": 2},
    {"num_beams": 3},
    {"num_beams": 3, "repetition_penalty": 1.7},
    {"cache_implementation": "static"},
    {"encoder_repetition_penalty": 1.3},
]


def name_of(settings: dict[str, Any]) -> str:
    return " ".join(settings) or "greedy"


@pytest.mark.parametrize("settings", SETTINGS, ids=name_of)
def test_batched_rows_equal_each_row_alone(settings: dict[str, Any], model: GamaForConditionalGeneration) -> None:
    fbank = small.fbanks(sum(COUNTS))
    together = generate(model, ROWS, fbank, **settings).tolist()
    alone = [
        generate(model, [row], part if len(part) else None, **settings)[0].tolist()
        for row, part in zip(ROWS, fbank.split(COUNTS), strict=True)
    ]
    assert together == alone
    assert len({tuple(row) for row in together}) == len(ROWS)


@pytest.mark.parametrize("settings", SETTINGS[:2], ids=name_of)
def test_cached_equals_uncached(settings: dict[str, Any], model: GamaForConditionalGeneration) -> None:
    fbank = small.fbanks(sum(COUNTS))
    cached = generate(model, ROWS, fbank, **settings)
    assert torch.equal(cached, generate(model, ROWS, fbank, use_cache=False, **settings))


def test_generation_equals_repeated_forward(model: GamaForConditionalGeneration) -> None:
    fbank = small.fbanks(1)
    ids = CLIP + WORDS
    for _ in range(8):
        ids = [*ids, int(logits(model, ids, audio_values=fbank)[0, -1].argmax())]
    assert generate(model, [CLIP + WORDS], fbank)[0].tolist() == ids[-8:]


def test_generation_from_features(model: GamaForConditionalGeneration) -> None:
    fbank = small.fbanks(2)
    with torch.no_grad():
        features = model.get_audio_features(fbank).pooler_output
    got = generate(model, ROWS[1:2], None, audio_features=features)
    assert torch.equal(got, generate(model, ROWS[1:2], fbank))


@pytest.mark.parametrize(
    "settings", [{"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 2}, {"num_beams": 2, "use_cache": False}]
)
def test_beams_with_several_clips(settings: dict[str, Any], llama: GamaForConditionalGeneration) -> None:
    """Rows with two, no and one clip are each expanded with all their own clips, in order."""
    fbank, rows, counts = small.fbanks(3), [ROWS[1], ROWS[2], ROWS[3]], [2, 0, 1]
    together = generate(llama, rows, fbank, **settings)
    alone = [
        generate(llama, [row], part if len(part) else None, **settings)
        for row, part in zip(rows, fbank.split(counts), strict=True)
    ]
    assert torch.equal(together, torch.cat(alone))


def test_samples_of_one_row(llama: GamaForConditionalGeneration) -> None:
    """A temperature of nearly 0 samples what greedy picks: every sequence must equal it."""
    fbank = small.fbanks(3)
    rows = [ROWS[1], ROWS[3]]
    sampled = generate(llama, rows, fbank, do_sample=True, temperature=1e-6, num_return_sequences=3)
    greedy = generate(llama, rows, fbank)
    assert torch.equal(sampled, greedy.repeat_interleave(3, dim=0))


class Watching:
    """A logits processor that keeps what it is shown."""

    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.seen.append((input_ids.clone(), scores.clone()))
        return scores


@pytest.mark.parametrize("placeholder", [small.VOCABULARY, small.VOCABULARY + 1000, 3])
def test_processors_never_see_the_placeholder(placeholder: int) -> None:
    model = small.model("llama", audio_token_id=placeholder)
    rows = [small.clip(placeholder) + WORDS, small.clip(placeholder) + [1, 60]]
    watching = Watching()
    generate(model, rows, small.fbanks(2), logits_processor=[watching])
    assert len(watching.seen) == 8
    for ids, scores in watching.seen:
        assert scores.shape == (2, small.VOCABULARY)
        assert int(ids.max()) < small.VOCABULARY
        assert not (ids == placeholder).any()
        assert set(ids[0, : SOFT + len(WORDS)].tolist()) == set(WORDS)  # nor padding: text alone
        assert set(ids[1, : SOFT + len(WORDS)].tolist()) == {1, 60}


def test_repetition_penalty_counts_text_alone(model: GamaForConditionalGeneration) -> None:
    penalty, fbank = 1.7, small.fbanks(1)
    ids = CLIP + WORDS
    for _ in range(8):
        scores = logits(model, ids, audio_values=fbank)[0, -1]
        said = sorted({i for i in ids if i != small.VOCABULARY})
        scores[said] = torch.where(scores[said] > 0, scores[said] / penalty, scores[said] * penalty)
        ids = [*ids, int(scores.argmax())]
    assert generate(model, [CLIP + WORDS], fbank, repetition_penalty=penalty)[0].tolist() == ids[-8:]


def test_a_clip_alone_can_be_continued(llama: GamaForConditionalGeneration) -> None:
    """A prompt of placeholders only: no text id exists to show to the processors, and none may be made up."""
    got = generate(llama, [CLIP], small.fbanks(1), repetition_penalty=1.5)
    assert got.shape == (1, 8)


def test_generated_ids_are_words(model: GamaForConditionalGeneration) -> None:
    got = generate(model, ROWS, small.fbanks(sum(COUNTS)), max_new_tokens=24)
    assert int(got.max()) < small.VOCABULARY


def test_streamed_ids_equal_the_whole(llama: GamaForConditionalGeneration) -> None:
    class Kept:
        def __init__(self) -> None:
            self.ids: list[int] = []

        def put(self, ids: Tensor) -> None:
            self.ids += ids.flatten().tolist()

        def end(self) -> None:
            self.ids.append(-1)

    kept = Kept()
    whole = generate(llama, ROWS[:1], small.fbanks(1), streamer=kept)
    assert kept.ids[len(ROWS[0]) :] == [*whole[0].tolist(), -1]
