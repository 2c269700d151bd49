"""onnxruntime: which provider computes, how many threads, and a session that runs where it was asked to. No torch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gama.errors import CheckpointError, DeviceError, MissingPackageError
from gama.threads import threads

if TYPE_CHECKING:
    import onnxruntime

CPU = "CPUExecutionProvider"

NAMES = {
    "cpu": CPU,
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "qnn": "QNNExecutionProvider",
}
"""Short names; onnxruntime's own names (``XnnpackExecutionProvider``) are taken as well."""

_SWAP = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"

# what onnxruntime raises for a file it cannot run; they share no base class, and not every release has each
_FAILURES = (
    *("EPFail", "EngineError", "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "ModelLoadCanceled"),
    *("NoModel", "NoSuchFile", "NotImplemented", "RuntimeException"),
)

logger = logging.getLogger(__name__)


def available() -> tuple[str, ...]:
    """The providers this onnxruntime was built with, by its own names.

    Raises:
        MissingPackageError: without onnxruntime.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingPackageError(
            f"onnxruntime cannot be imported: {error}", "pip install onnxruntime, or onnxruntime-gpu in its place"
        ) from error
    return tuple(onnxruntime.get_available_providers())


def choose(wanted: str = "auto", offered: Sequence[str] | None = None) -> tuple[str, ...]:
    """Providers in the order onnxruntime tries them; the CPU comes last, for the nodes the first does not know.

    Args:
        wanted: ``auto`` (CUDA where it is offered, the CPU else), a short name of :data:`NAMES`, or onnxruntime's own.
        offered: what there is to choose from; this machine's by default.

    Raises:
        DeviceError: for a name nobody knows, or a provider that is not offered.
    """
    offered = available() if offered is None else tuple(offered)
    if wanted == "auto":
        cuda = NAMES["cuda"]
        return (cuda, CPU) if cuda in offered else (CPU,)
    by_lower = {name.lower(): name for name in (*NAMES.values(), *offered)}
    provider = NAMES.get(wanted.lower()) or by_lower.get(wanted.lower())
    if provider is None:
        known = ", ".join(["auto", *NAMES])
        raise DeviceError(f"no onnxruntime provider is called {wanted!r}", f"give one of {known}")
    if provider not in offered:
        raise DeviceError(f"this onnxruntime has no {provider}; it offers {', '.join(offered)}", _mend(provider))
    return (provider,) if provider == CPU else (provider, CPU)


def _mend(provider: str) -> str:
    if provider in (NAMES["cuda"], NAMES["tensorrt"]):
        return f"{_SWAP}, or --provider cpu"
    return "install the onnxruntime build that has it, or --provider cpu"


def session(
    path: Path, wanted: str = "auto", *, num_threads: int | None = None, quick: bool = False
) -> onnxruntime.InferenceSession:
    """Open a graph on the provider that was asked for.

    Args:
        path: the ONNX file; external data is found beside it.
        wanted: see :func:`choose`.
        num_threads: threads inside an operator; :func:`gama.threads.threads` by default.
        quick: fold constants and fuse nothing: a small model opens sooner and runs as fast.

    Raises:
        CheckpointError: no such file, or not a graph onnxruntime can run.
        DeviceError: where the provider is not offered, or does not start though it is (a missing driver): the CPU
            never takes over in silence. With ``auto`` it takes over with a warning.
    """
    if not path.is_file():
        raise CheckpointError(f"no file {path}", "gama export onnx writes one")
    providers = choose(wanted)
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as failures

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # nothing it can go on after; errors are raised, and told below in words of ours
    options.intra_op_num_threads = num_threads or threads()
    options.inter_op_num_threads = 1
    if quick:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    try:
        opened = onnxruntime.InferenceSession(str(path), options, providers=list(providers))
    except tuple(getattr(failures, name) for name in _FAILURES if hasattr(failures, name)) as error:
        raise CheckpointError(f"{path}: onnxruntime cannot run it: {_short(error)}") from error
    _check_provider(opened.get_providers(), providers, wanted)
    return opened


def _check_provider(running: Sequence[str], providers: Sequence[str], wanted: str) -> None:
    if running and running[0] == providers[0]:
        return
    told = f"{providers[0]} does not start on this machine, {', '.join(running)} would run instead"
    if wanted != "auto":
        raise DeviceError(told, "check its driver and libraries, or --provider cpu")
    logger.warning("%s", told.replace("would run", "runs"))


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
