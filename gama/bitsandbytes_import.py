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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING

from gama.errors import MissingPackageError

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
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


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


class _Finder(MetaPathFinder):
    """Finds the module that asks through the other finders, and has it loaded in our way."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _ASKS:
            return None
        for finder in sys.meta_path:
            spec = None if isinstance(finder, _Finder) else finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _Loader(spec.loader)
                return spec
        return None


class _Loader(Loader):
    """Loads a module as its own loader does, without the package ``kernels`` unless that is allowed."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # handed back first: tools that read a module's source ask the loader it names
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        if hub_kernels_allowed():
            self._loader.exec_module(module)
            return
        with _without_kernels():
            self._loader.exec_module(module)


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
