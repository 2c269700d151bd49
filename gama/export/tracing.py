"""PyTorch module -> ONNX graph, by ``torch.onnx.export(dynamo=True)``, and graphs joined end to end."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gama.errors import GamaError, MissingPackageError

OPSETS = range(18, 24)
DEFAULT_OPSET = 20  # the first with Gelu as one operator
EXTERNAL_BYTES = 2**31 - 2**24  # from here on weights lie beside the graph: a protobuf message ends at 2 GiB

Axes = dict[int, Any]

_TALKATIVE = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")


def import_onnx() -> Any:
    """The module onnx, with onnxscript known to be there.

    Raises:
        MissingPackageError: where one of them is not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"ONNX export needs the package {error.name}", "pip install 'gama-audio[export]'"
        ) from error
    return onnx


def check_opset(opset: int) -> None:
    """Refuse an opset that the exporter cannot write.

    Raises:
        GamaError: for such an opset.
    """
    if opset not in OPSETS:
        raise GamaError(f"opset {opset} was asked for, {OPSETS.start} to {OPSETS.stop - 1} can be written")


def axis(name: str, *, at_least: int = 1) -> Any:
    """A dimension that stays open."""
    return torch.export.Dim(name, min=at_least)


@torch.no_grad()
def trace(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    axes: Mapping[str, Axes],
    outputs: Sequence[str],
    path: Path,
    *,
    opset: int = DEFAULT_OPSET,
) -> Any:
    """Trace a module into an ONNX graph.

    Args:
        module: the module.
        inputs: example inputs by name, in the order of ``forward``.
        axes: the open dimensions of each input.
        outputs: their names.
        path: a file for the exporter to write; the graph's weights may lie beside it.

    Returns:
        The ``onnx.ModelProto``, its weights in memory.
    """
    onnx = import_onnx()
    check_opset(opset)
    with _quiet():
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            dynamo=True,
            dynamic_shapes=tuple(axes.get(name) for name in inputs),
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=opset,
            verbose=False,
        )
        assert program is not None
        weights = sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))
        program.save(str(path), external_data=weights >= EXTERNAL_BYTES)
    graph = onnx.load(str(path))
    _strip(graph.graph)
    return graph


def _strip(graph: Any) -> None:
    """Drop the exporter's notes (stack traces, names of Python modules): half of a small graph."""
    for node in graph.node:
        del node.metadata_props[:]
        node.ClearField("doc_string")
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _strip(attribute.g)
    for value in (*graph.input, *graph.output, *graph.initializer):
        del value.metadata_props[:]
    del graph.value_info[:], graph.metadata_props[:]


def save(graph: Any, path: Path, *, external_bytes: int = EXTERNAL_BYTES) -> Path:
    """Write a graph; from ``external_bytes`` of weights on, they go to ``<name>.data`` beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    large = sum(len(tensor.raw_data) for tensor in graph.graph.initializer) >= external_bytes
    import_onnx().save_model(graph, str(path), save_as_external_data=large, location=f"{path.name}.data")
    return path


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporter and optimizer log what they tried; nothing of it helps a user."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def join(first: Any, second: Any, link: str) -> Any:
    """Put one graph before another: the output ``link`` of the first is the input ``link`` of the second.

    Names inside the first become ``fbank/…``, so that they cannot collide; both keep their inputs' and outputs' names.
    """
    onnx = import_onnx()
    ends = {value.name for value in (*first.graph.input, *first.graph.output)}
    prefixed = onnx.compose.add_prefix(
        first, "fbank/", rename_nodes=True, rename_inputs=False, rename_outputs=False, rename_edges=False
    )
    _rename(prefixed.graph, lambda name: name if name in ends or not name else f"fbank/{name}")
    joined = onnx.ModelProto()
    joined.CopyFrom(second)
    del joined.graph.node[:], joined.graph.initializer[:], joined.graph.value_info[:], joined.graph.input[:]
    joined.graph.input.extend(prefixed.graph.input)
    joined.graph.input.extend(value for value in second.graph.input if value.name != link)
    for part in (prefixed.graph, second.graph):
        joined.graph.node.extend(part.node)
        joined.graph.initializer.extend(part.initializer)
    known = {domain.domain for domain in joined.opset_import}
    joined.opset_import.extend(domain for domain in first.opset_import if domain.domain not in known)
    return joined


def _rename(graph: Any, renamed: Any) -> None:
    for node in graph.node:
        for side in (node.input, node.output):
            side[:] = [renamed(name) for name in side]
    for tensor in graph.initializer:
        tensor.name = renamed(tensor.name)


__all__ = ["DEFAULT_OPSET", "EXTERNAL_BYTES", "OPSETS", "axis", "check_opset", "import_onnx", "join", "save", "trace"]
