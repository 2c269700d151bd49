"""Which optional part of gama a missing package belongs to, said in one line instead of a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gama.errors import MissingPackageError

_TORCH = "pip install 'gama-audio[torch]'"
_EXPORT = "pip install 'gama-audio[export]'"

INSTALL = {
    **dict.fromkeys(("torch", "transformers", "peft", "accelerate", "bitsandbytes", "safetensors"), _TORCH),
    **dict.fromkeys(("onnx", "onnxscript", "onnx_ir"), _EXPORT),
    "onnxruntime": "pip install onnxruntime, or onnxruntime-gpu in its place",
    **dict.fromkeys(("optimum", "gptqmodel"), "pip install 'gama-audio[gptq]'"),
    "av": "pip install 'gama-audio[media]'",
}
"""The command that installs each package which the default install may lack."""


def missing_package(error: ModuleNotFoundError) -> MissingPackageError | None:
    """The error to show for a failed import; None where the module is not one of an optional part."""
    name = (error.name or "").split(".")[0]
    if name not in INSTALL:
        return None
    return MissingPackageError(f"this needs the package {name}, which is not installed", INSTALL[name])


@contextmanager
def explained() -> Iterator[None]:
    """Inside, a missing optional package is a :class:`MissingPackageError` that says how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = missing_package(error)
        if missing is None:
            raise
        raise missing from error


__all__ = ["INSTALL", "explained", "missing_package"]
