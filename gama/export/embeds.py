"""A clip and a question as prompt embeddings, in the form that vLLM's HTTP interface takes."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from gama import audio
from gama.inference.engine import Gama
from gama.prompt import Turn, instruction


@torch.inference_mode()
def prompt_embeds(gama: Gama, clips: Sequence[str | Path | audio.Waveform], question: str) -> Tensor:
    """What the language model reads: prefixes and the embeddings of the prompt's tokens, (T, D).

    Args:
        gama: as :func:`gama.inference.engine.load` gives it.
        clips: each is cut into windows of 10.24 s, all of which go in front of the question.
        question: what is asked.

    Raises:
        AudioError, PromptError: for what cannot be read or asked.
    """
    waveforms = [clip if isinstance(clip, audio.Waveform) else audio.load(clip) for clip in clips]
    windows = [window for waveform in waveforms for window in audio.windows(waveform)]
    ids = gama.encode(gama.segments([Turn("user", instruction(question), clips=len(windows))]))
    prefix = gama.hear(windows) if windows else None
    rows = torch.tensor([ids], device=gama.model.device)
    embeds: Tensor = gama.model.embed(rows, prefix)
    return embeds[0]


def encoded(embeds: Tensor) -> str:
    """A tensor (T, D) as base64 of what torch.save writes: ``prompt_embeds`` of vLLM's completions."""
    buffer = io.BytesIO()
    torch.save(embeds.detach().cpu().contiguous().clone(), buffer)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


__all__ = ["encoded", "prompt_embeds"]
