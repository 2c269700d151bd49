"""The audio front end as ONNX: waveform -> prefix, checked against torch before it takes its place."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from gama.atomic import make_folder, move, write_errors
from gama.audio import Waveform
from gama.errors import CheckpointError, GamaError
from gama.export.graphs import EncoderGraph, FbankGraph, TowerGraph
from gama.export.metadata import describe, write_metadata
from gama.export.parity import Report, compare
from gama.export.precision import Precision, reduced
from gama.export.tracing import DEFAULT_OPSET, EXTERNAL_BYTES, axis, check_opset, import_onnx, join, save, trace
from gama.inference.engine import Gama
from gama.model.gama import GamaForConditionalGeneration

Part = Literal["fbank", "encoder", "prefix"]
OUTPUT: dict[Part, str] = {"fbank": "fbank", "encoder": "encoded", "prefix": "prefix"}
"""The output of each part; ``encoder`` reads ``fbank``, the others read ``waveform`` and ``lengths``."""


@dataclass(frozen=True)
class Plan:
    """What to export.

    Attributes:
        part: ``prefix`` (the whole front end), ``fbank`` or ``encoder``.
        precision: of encoder, aggregator, Q-Former and projectors; the fbank stays float32.
        opset: of the graph.
        calibration: clips for static int8; without any, int8 is dynamic.
        provider: of onnxruntime, for the check.
        answers: whether the check also compares the language model's answers.
        allow_drift: whether a graph beyond the limits of its precision is kept.
        external_bytes: from this size on the weights lie beside the graph.
    """

    part: Part = "prefix"
    precision: Precision = "fp32"
    opset: int = DEFAULT_OPSET
    calibration: Sequence[Waveform] = field(default=())
    provider: str = "cpu"
    answers: bool = True
    allow_drift: bool = False
    external_bytes: int = EXTERNAL_BYTES

    def __post_init__(self) -> None:
        check_opset(self.opset)
        if self.calibration and self.precision != "int8":
            raise GamaError(f"clips to calibrate with were given for {self.precision}", "they belong to int8")
        if self.part == "fbank" and self.precision != "fp32":
            raise GamaError(f"the fbank was asked for in {self.precision}", "it is float32 in every export")


def export_front_end(
    gama: Gama,
    folder: Path,
    out: Path,
    plan: Plan,
    clips: Sequence[Waveform],
    *,
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Export a part of the audio front end, compare it with torch on clips, and only then put it in its place.

    Args:
        gama: the model, in float32 on the CPU.
        folder: where its weights lie; their hash goes into the graph.
        out: gets ``<part>.onnx`` (weights of 2 GiB and more beside it, as ``<part>.onnx.data``), ``parity.json`` and
            ``parity.md``.
        clips: what it is checked on, each of at most 10.24 s.
        say: called with one line a step.

    Raises:
        CheckpointError: where the graph drifts beyond the limits of its precision; the report is written, the graph
            is not.
    """
    import_onnx()
    make_folder(out)
    with write_errors(out), tempfile.TemporaryDirectory(dir=out, prefix=".export-") as place:
        scratch = Path(place)
        say(f"tracing {plan.part} (opset {plan.opset})")
        graph = _graph(gama, plan, scratch)
        write_metadata(graph, _facts(gama, folder, plan))
        file = save(graph, scratch / "whole" / f"{plan.part}.onnx", external_bytes=plan.external_bytes)
        import_onnx().checker.check_model(str(file))
        say(f"comparing with torch on {len(clips)} clip(s)")
        report = compare(gama, file, plan.part, plan.precision, clips, provider=plan.provider, answers=plan.answers)
        report.write(out)
        if not report.passed and not plan.allow_drift:
            raise CheckpointError(
                f"the {plan.precision} graph drifts from torch: {report.complaint}",
                f"see {out / 'parity.md'}; --allow-drift keeps it all the same",
            )
        for made in sorted(file.parent.iterdir(), reverse=True):  # the data before the graph that needs it
            move(made, out / made.name)
    return report


def _facts(gama: Gama, folder: Path, plan: Plan) -> dict[str, str]:
    precision = plan.precision
    if precision == "int8":
        precision = f"int8 ({'static' if plan.calibration else 'dynamic'})"  # type: ignore[assignment]
    return {**describe(gama, folder), "gama.part": plan.part, "gama.precision": precision}


def _graph(gama: Gama, plan: Plan, scratch: Path) -> Any:
    if plan.part == "fbank":
        return fbank_graph(gama.model, scratch, opset=plan.opset)
    build = encoder_graph if plan.part == "encoder" else tower_graph
    graph = build(gama.model, scratch, opset=plan.opset)
    calibration = _features(gama, plan.calibration)
    graph = reduced(graph, plan.precision, scratch, calibration, external=_large(gama.model))
    if plan.part == "encoder":
        return graph
    return join(fbank_graph(gama.model, scratch, opset=plan.opset), graph, "fbank")


def _features(gama: Gama, clips: Sequence[Waveform]) -> list[Any]:
    """Normalised fbank (1, T, M) of each clip, for calibration."""
    return [gama.processor.feature_extractor([clip])["input_features"].numpy() for clip in clips]


def _large(model: GamaForConditionalGeneration) -> bool:
    return sum(p.numel() * 4 for p in model.audio_tower.parameters()) >= EXTERNAL_BYTES


# -- the parts in float32 --------------------------------------------------------------------------------------------


def fbank_graph(model: GamaForConditionalGeneration, scratch: Path, *, opset: int = DEFAULT_OPSET) -> Any:
    """``waveform`` (B, N), ``lengths`` (B,) -> ``fbank`` (B, T, M) as an ``onnx.ModelProto``."""
    encoder = model.config.audio_config
    inputs = {"waveform": torch.zeros(2, 50_000), "lengths": torch.tensor([50_000, 30_000])}
    batch = axis("batch")
    axes = {"waveform": {0: batch, 1: axis("samples", at_least=400)}, "lengths": {0: batch}}
    module = FbankGraph(encoder.num_frames, encoder.num_mel_bins)
    return trace(module, inputs, axes, ["fbank"], scratch / "fbank.onnx", opset=opset)


def encoder_graph(model: GamaForConditionalGeneration, scratch: Path, *, opset: int = DEFAULT_OPSET) -> Any:
    """``fbank`` (B, T, M) -> ``encoded`` (B, patches, C)."""
    path = scratch / "encoder.onnx"
    return trace(EncoderGraph(model), _fbank(model), {"fbank": {0: axis("batch")}}, ["encoded"], path, opset=opset)


def tower_graph(model: GamaForConditionalGeneration, scratch: Path, *, opset: int = DEFAULT_OPSET) -> Any:
    """``fbank`` (B, T, M) -> ``prefix`` (B, P, D)."""
    path = scratch / "tower.onnx"
    return trace(TowerGraph(model), _fbank(model), {"fbank": {0: axis("batch")}}, ["prefix"], path, opset=opset)


def _fbank(model: GamaForConditionalGeneration) -> dict[str, torch.Tensor]:
    encoder = model.config.audio_config
    return {"fbank": torch.zeros(2, encoder.num_frames, encoder.num_mel_bins)}


def front_end_graph(model: GamaForConditionalGeneration, scratch: Path, *, opset: int = DEFAULT_OPSET) -> Any:
    """``waveform`` (B, N), ``lengths`` (B,) -> ``prefix`` (B, P, D), the whole in float32."""
    return join(fbank_graph(model, scratch, opset=opset), tower_graph(model, scratch, opset=opset), "fbank")


__all__ = ["Part", "Plan", "export_front_end", "front_end_graph"]
