"""What was written, compared with what it was written from: logits and greedy tokens on fixed prompts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gama.atomic import write_text
from gama.errors import CheckpointError
from gama.model.gama import GamaForConditionalGeneration
from gama.model.key_values import CACHE
from gama.model.processing import GamaProcessor
from gama.prompt import Turn, render

REPORT = "parity.json"
_QUESTIONS = (("What happened in this recording?", 1), ("Which sounds are usually heard in a kitchen?", 0))
_TOKENS = 16  # compared of each greedy answer


@dataclass(frozen=True)
class Parity:
    """How far what was written is from what it was written from.

    Attributes:
        max_abs_delta_logit: over all positions of all prompts and answers.
        greedy_agreement: share of the source's greedy tokens that are the likeliest here, too, at their place.
        prompts, tokens, positions: how much was compared.
        compute_dtype, stored_dtype: precision of the comparison, and of the weights on the disk.
    """

    max_abs_delta_logit: float
    greedy_agreement: float
    prompts: int
    tokens: int
    positions: int
    compute_dtype: str
    stored_dtype: str

    def line(self) -> str:
        """One line for people."""
        agreement = f"greedy agreement {self.greedy_agreement:.1%} of {self.tokens} tokens"
        how = f"{self.prompts} prompts, computed in {self.compute_dtype}, stored in {self.stored_dtype}"
        return f"max |Δlogit| {self.max_abs_delta_logit:.3g}, {agreement} ({how})"


@dataclass(frozen=True)
class Probe:
    """A prompt, and what the source answers to it.

    Attributes:
        ids: (1, T + 16), the prompt and the source's greedy tokens.
        prompt: T.
        input_features: (clips, frames, bins); None without a clip.
        logits: (1, T + 16, V) of the source, float32, on the CPU.
    """

    ids: Tensor
    prompt: int
    input_features: Tensor | None
    logits: Tensor


@torch.no_grad()
def probe(source: GamaForConditionalGeneration, processor: GamaProcessor) -> list[Probe]:
    """Ask the source its questions: one about a clip of fixed noise, one without a clip."""
    probes = []
    for question, clips in _QUESTIONS:
        prompt = processor.encode(render([Turn("user", question, clips=clips)], processor.template))
        values = _noise(source) if clips else None
        ids = _continued(source, torch.tensor([prompt]), values)
        probes.append(Probe(ids, len(prompt), values, _run(source, ids, values).logits.float().cpu()))
    return probes


def _continued(source: GamaForConditionalGeneration, ids: Tensor, values: Tensor | None) -> Tensor:
    """(1, T) -> (1, T + 16): the likeliest token, again and again."""
    output = _run(source, ids, values, use_cache=True)
    for _ in range(_TOKENS):
        following = _likeliest(source, output.logits[:, -1:])
        ids = torch.cat([ids, following], dim=1)
        output = _run(source, following, None, use_cache=True, **{CACHE: output[CACHE]})
    return ids


def _likeliest(model: GamaForConditionalGeneration, logits: Tensor) -> Tensor:
    """(1, T, V) -> (1, T) on the CPU; the placeholder of a clip is never an answer."""
    text = logits.float().cpu()
    if model.config.audio_token_id < text.shape[-1]:
        text = text.index_fill(-1, torch.tensor([model.config.audio_token_id]), -torch.inf)
    return text.argmax(-1)


@torch.no_grad()
def compare(written: GamaForConditionalGeneration, probes: Sequence[Probe], *, stored: torch.dtype) -> Parity:
    """Ask what was written the same.

    Raises:
        CheckpointError: for logits that are no numbers.
    """
    delta, right, tokens, positions = 0.0, 0, 0, 0
    for each in probes:
        logits = _run(written, each.ids, each.input_features).logits.float().cpu()
        if not bool(torch.isfinite(logits).all()):
            raise CheckpointError("the written model gives logits that are no numbers", "another --dtype?")
        delta = max(delta, float((logits - each.logits).abs().max()))
        answer = each.ids[:, each.prompt :]
        right += int((_likeliest(written, logits[:, each.prompt - 1 : -1]) == answer).sum())
        tokens += answer.numel()
        positions += logits.shape[1]
    computed = next(written.audio_tower.parameters()).dtype
    return Parity(delta, right / tokens, len(probes), tokens, positions, _name(computed), _name(stored))


def write_report(folder: Path, parity: Parity, facts: dict[str, object]) -> None:
    """``parity.json`` in a folder: the comparison, and what was compared."""
    write_text(folder / REPORT, json.dumps({**asdict(parity), **facts}, indent=2) + "\n")


def _run(model: GamaForConditionalGeneration, ids: Tensor, values: Tensor | None, **given: Any) -> Any:
    """The model's output for ids (1, T) and a clip (1, frames, bins) or none."""
    device: torch.device = next(model.get_input_embeddings().parameters()).device
    weights = next(model.audio_tower.parameters())
    features = None if values is None else model.audio_prefix(values.to(weights.device, weights.dtype))
    return model(input_ids=ids.to(device), audio_features=features, **given)


def _noise(source: GamaForConditionalGeneration) -> Tensor:
    """One clip of fixed noise as normalised fbank (1, frames, bins)."""
    encoder = source.config.audio_config
    return torch.randn(1, encoder.num_frames, encoder.num_mel_bins, generator=torch.Generator().manual_seed(7)) / 2


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
