"""An exported graph beside torch on the same clips: how far they are apart, and whether answers change."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gama.atomic import write_text
from gama.audio import Waveform
from gama.inference.engine import Gama
from gama.instant.frontend import FrontEnd
from gama.instant.providers import session

QUESTION = "what happened?"
_NEW_TOKENS = 40

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Limits:
    """What a graph of a precision may lose.

    Attributes:
        cosine: least cosine between a clip's outputs.
        relative_l2: most of ``|onnx - torch| / |torch|``.
        same_answers: whether every answer must stay the same.
    """

    cosine: float
    relative_l2: float
    same_answers: bool


LIMITS = {
    "fp32": Limits(cosine=0.999999, relative_l2=1e-3, same_answers=True),
    "fp16": Limits(cosine=0.9999, relative_l2=1e-2, same_answers=False),
    "int8": Limits(cosine=0.999, relative_l2=5e-2, same_answers=False),
}


@dataclass(frozen=True)
class ClipParity:
    """One clip by torch and by onnxruntime.

    Attributes:
        clip: its name.
        seconds: how long it is.
        max_difference: the largest absolute difference of a value.
        relative_l2, cosine: over all values of the clip.
        answers: torch's and onnxruntime's, where the language model was asked.
    """

    clip: str
    seconds: float
    max_difference: float
    relative_l2: float
    cosine: float
    answers: tuple[str, str] | None

    @property
    def same_answer(self) -> bool:
        """Whether the two answers are one; true where none was asked for."""
        return self.answers is None or self.answers[0] == self.answers[1]


@dataclass(frozen=True)
class Report:
    """The comparison of one export.

    Attributes:
        part, precision: what was exported.
        providers: of onnxruntime in the comparison, the one that computes first.
        limits: what was allowed.
        clips: one entry a clip.
    """

    part: str
    precision: str
    providers: tuple[str, ...]
    limits: Limits
    clips: tuple[ClipParity, ...]

    @property
    def complaint(self) -> str:
        """What is beyond the limits, empty where nothing is."""
        found = []
        least, most = min(c.cosine for c in self.clips), max(c.relative_l2 for c in self.clips)
        changed = self.changed_answers
        if not least >= self.limits.cosine:
            found.append(f"cosine {least:.6f}, at least {self.limits.cosine} was expected")
        if not most <= self.limits.relative_l2:
            found.append(f"relative L2 {most:.2e}, at most {self.limits.relative_l2:.0e} was expected")
        if self.limits.same_answers and changed:
            found.append(f"{changed} of {len(self.clips)} answers changed")
        return "; ".join(found)

    @property
    def passed(self) -> bool:
        """Whether everything is within the limits."""
        return not self.complaint

    @property
    def changed_answers(self) -> int:
        """Clips about which the language model says something else."""
        return sum(not clip.same_answer for clip in self.clips)

    def write(self, folder: Path) -> None:
        """Write ``parity.json`` and ``parity.md``."""
        facts = {**asdict(self), "passed": self.passed, "changed_answers": self.changed_answers}
        write_text(folder / "parity.json", json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
        write_text(folder / "parity.md", self.markdown())

    def markdown(self) -> str:
        """The report as a table."""
        head = f"# {self.part}, {self.precision}, {self.providers[0]}: {'passed' if self.passed else self.complaint}"
        limits = f"Limits: cosine ≥ {self.limits.cosine}, relative L2 ≤ {self.limits.relative_l2:.0e}"
        limits += ", the same answers." if self.limits.same_answers else f". Answers changed: {self.changed_answers}."
        rows = ["| clip | s | max difference | relative L2 | cosine | answer |", "|---|---|---|---|---|---|"]
        rows += [_row(clip) for clip in self.clips]
        return "\n".join([head, "", limits, "", *rows, ""])


def _row(clip: ClipParity) -> str:
    said = ""
    if clip.answers is not None:
        said = clip.answers[0] if clip.same_answer else f"{clip.answers[0]} → {clip.answers[1]}"
    numbers = f"{clip.max_difference:.2e} | {clip.relative_l2:.2e} | {clip.cosine:.8f}"
    return f"| {clip.clip} | {clip.seconds:.2f} | {numbers} | {' '.join(said.replace('|', '/').split())} |"


def compare(
    gama: Gama,
    graph: Path,
    part: str,
    precision: str,
    clips: Sequence[Waveform],
    *,
    provider: str = "cpu",
    answers: bool = True,
) -> Report:
    """Run a graph and torch on clips.

    Args:
        gama: the model the graph was made from.
        graph: ``prefix.onnx``, ``fbank.onnx`` or ``encoder.onnx``.
        clips: each of at most 10.24 s.
        provider: of onnxruntime.
        answers: whether the language model is asked about each clip, with both prefixes (part ``prefix`` alone).
    """
    opened = session(graph, provider)
    asked = answers and part == "prefix"
    theirs = Gama(gama.model, gama.processor, name=gama.name, frontend=FrontEnd(graph, opened)) if asked else None
    found = []
    for clip in clips:
        said = None
        if theirs is not None:
            one, other = (str(g.ask(clip, QUESTION, max_new_tokens=_NEW_TOKENS)) for g in (gama, theirs))
            said = (one, other)
        found.append(_measured(clip, _torch(gama, part, clip), _onnx(opened, gama, part, clip), said))
    return Report(part, precision, tuple(opened.get_providers()), LIMITS[precision], tuple(found))


@torch.inference_mode()
def _torch(gama: Gama, part: str, clip: Waveform) -> Float:
    fbank = gama.processor.feature_extractor([clip])["input_features"].to(gama.model.device)
    if part == "fbank":
        return np.asarray(fbank.cpu().numpy())
    encoder = gama.model.audio_tower.encoder
    made = encoder(fbank).last if part == "encoder" else gama.model.audio_prefix(fbank)
    return np.asarray(made.float().cpu().numpy())


def _onnx(opened: Any, gama: Gama, part: str, clip: Waveform) -> Float:
    if part == "encoder":
        feed = {"fbank": gama.processor.feature_extractor([clip])["input_features"].numpy()}
    else:
        feed = {"waveform": clip.samples[None], "lengths": np.array([len(clip.samples)], dtype=np.int64)}
    return np.asarray(opened.run(None, feed)[0])


def _measured(clip: Waveform, ours: Float, theirs: Float, answers: tuple[str, str] | None) -> ClipParity:
    a, b = ours.astype(np.float64).ravel(), theirs.astype(np.float64).ravel()
    norm = math.sqrt(float(a @ a)) or 1.0
    cosine = float(a @ b) / (norm * (math.sqrt(float(b @ b)) or 1.0))
    difference = float(np.abs(a - b).max())
    relative = math.sqrt(float(((a - b) ** 2).sum())) / norm
    return ClipParity(clip.source, clip.duration, difference, relative, cosine, answers)
