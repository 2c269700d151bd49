"""A float32 graph in 16 or 8 bits, by onnxruntime's own tools."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gama.export.tracing import import_onnx

Precision = Literal["fp32", "fp16", "int8"]

_QUANTIZED = ["MatMul", "Gemm"]  # convolutions stay float32: they are few, and the first layer is the most sensitive


def reduced(
    graph: Any,
    precision: Precision,
    scratch: Path,
    calibration: Sequence[NDArray[np.float32]] = (),
    *,
    external: bool = False,
) -> Any:
    """A graph with its weights in another precision; inputs and outputs stay float32.

    Args:
        graph: an ``onnx.ModelProto`` in float32 with the one input ``fbank``.
        precision: ``fp32`` returns the graph as it is.
        scratch: a folder for intermediate files.
        calibration: inputs (1, T, M): int8 is static with them and dynamic without.
        external: whether the weights exceed what a protobuf message holds.
    """
    if precision == "fp32":
        return graph
    if precision == "fp16":
        return _half(graph)
    return _eight_bits(graph, scratch, calibration, external)


def _half(graph: Any) -> Any:
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    with _quiet():
        half = OnnxModel(convert_float_to_float16(graph, keep_io_types=True, disable_shape_infer=True))
        half.topological_sort()  # the tool appends its casts
    return half.model


def _eight_bits(graph: Any, scratch: Path, calibration: Sequence[NDArray[np.float32]], external: bool) -> Any:
    from onnxruntime import quantization

    onnx = import_onnx()
    source, target = scratch / "float32.onnx", scratch / "int8.onnx"
    onnx.save_model(graph, str(source), save_as_external_data=external, location=f"{source.name}.data")
    shared: dict[str, Any] = {
        "op_types_to_quantize": _QUANTIZED,
        "per_channel": True,
        "weight_type": quantization.QuantType.QInt8,
        "reduce_range": not _has_vnni(),
        "nodes_to_exclude": _attention(graph),
        "use_external_data_format": external,
    }
    with _quiet():
        if calibration:
            quantization.quantize_static(
                str(source),
                str(target),
                _Clips(calibration),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8,
                calibrate_method=quantization.CalibrationMethod.MinMax,
                **shared,
            )
        else:
            quantization.quantize_dynamic(str(source), str(target), **shared)
    return onnx.load(str(target))


def _attention(graph: Any) -> list[str]:
    """Names of the products of two activations: probabilities of attention do not survive one range for all clips."""
    weights = {tensor.name for tensor in graph.graph.initializer}
    return [n.name for n in graph.graph.node if n.op_type in _QUANTIZED and n.input[1] not in weights]


class _Clips:
    """What onnxruntime's calibration asks for: one feed after another, then None."""

    def __init__(self, clips: Sequence[NDArray[np.float32]]) -> None:
        self._left = iter(clips)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        clip = next(self._left, None)
        return None if clip is None else {"fbank": clip}


def _has_vnni() -> bool:
    """Whether this processor adds products of 8 bits without saturating; where unknown, the safe answer."""
    try:
        return "vnni" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


@contextmanager
def _quiet() -> Iterator[None]:
    """onnxruntime's tools log advice on the root logger."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
