"""Import bitsandbytes without letting it fetch code from a hub.

On processors with AVX512-BF16 bitsandbytes asks the package ``kernels`` for a compiled CPU kernel from a hub while it
is being imported, and complains where it cannot. Nothing is downloaded behind a user's back here: its own kernels run.
"""

from __future__ import annotations

import importlib
import logging
import sys
from types import ModuleType

from gama.errors import MissingPackageError

_COMPLAINT = "kernels-community"


def import_bitsandbytes() -> ModuleType:
    """The module bitsandbytes, with its own kernels.

    Raises:
        MissingPackageError: where it is not installed.
    """
    loaded = sys.modules.get("bitsandbytes")
    if loaded is not None:
        return loaded
    kernels = sys.modules.get("kernels")
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    logger.addFilter(_unasked)
    sys.modules["kernels"] = None  # type: ignore[assignment]  # importing it now fails
    try:
        return importlib.import_module("bitsandbytes")
    except ModuleNotFoundError as error:
        if error.name != "bitsandbytes":
            raise
        raise MissingPackageError(
            "quantization needs the package bitsandbytes", "pip install 'gama-audio[torch]'"
        ) from None
    finally:
        del sys.modules["kernels"]
        if kernels is not None:
            sys.modules["kernels"] = kernels
        logger.removeFilter(_unasked)


def _unasked(record: logging.LogRecord) -> bool:
    return _COMPLAINT not in str(record.msg)
