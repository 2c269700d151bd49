"""bitsandbytes without code from a hub, whoever imports it.

On processors with AVX512-BF16 bitsandbytes asks the package ``kernels`` for a compiled CPU kernel from a hub while it
is being imported, and complains where it cannot. Nothing is downloaded and run behind a user's back here: its own
kernels run, unless ``--allow-hub-kernels`` or the environment variable :data:`ALLOW` asks for the other. ``install``
watches for the one module of it that asks, since peft and transformers import bitsandbytes as well.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType
from typing import TYPE_CHECKING

from gama.errors import MissingPackageError
from gama.import_hooks import watch

if TYPE_CHECKING:
    import logging

ALLOW = "GAMA_ALLOW_HUB_KERNELS"
"""The environment variable that lets bitsandbytes fetch a kernel: anything but empty and 0."""

_ASKS = "bitsandbytes.backends.cpu.ops"
_COMPLAINT = "kernels-community"


def hub_kernels_allowed() -> bool:
    """Whether bitsandbytes may fetch a compiled kernel from a hub."""
    return os.environ.get(ALLOW, "0") not in ("", "0")


def install() -> None:
    """From now on an import of bitsandbytes asks no hub. Safe to call more than once; costs nothing until then."""
    watch(_ASKS, _execute)


def import_bitsandbytes() -> ModuleType:
    """The module bitsandbytes, with its own kernels.

    Raises:
        MissingPackageError: where it is not installed.
    """
    install()
    try:
        return importlib.import_module("bitsandbytes")
    except ModuleNotFoundError as error:
        if error.name != "bitsandbytes":
            raise
        raise MissingPackageError(
            "quantization needs the package bitsandbytes", "pip install 'gama-audio[torch]'"
        ) from None


def _execute(load: Callable[[], None], module: ModuleType) -> None:
    """Without the package ``kernels`` unless that is allowed."""
    with nullcontext() if hub_kernels_allowed() else _without_kernels():
        load()


@contextmanager
def _without_kernels() -> Iterator[None]:
    """Inside, the package ``kernels`` cannot be imported, and nobody is told."""
    import logging

    kernels = sys.modules.get("kernels")
    logger = logging.getLogger(_ASKS)
    logger.addFilter(_unasked)
    sys.modules["kernels"] = None  # type: ignore[assignment]  # importing it now fails
    try:
        yield
    finally:
        del sys.modules["kernels"]
        if kernels is not None:
            sys.modules["kernels"] = kernels
        logger.removeFilter(_unasked)


def _unasked(record: logging.LogRecord) -> bool:
    return _COMPLAINT not in str(record.msg)
