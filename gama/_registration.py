"""Lets transformers' Auto classes find the model type ``gama`` after ``import gama``, without importing transformers.

The Auto classes resolve a model type by two of their own means: a table from type to class name, and the module
``transformers.models.<type>`` that holds the class. ``install`` adds our row to each table as soon as the module of
that table has been loaded, and answers for ``transformers.models.gama`` when somebody looks the row up. Only then is
``gama.model`` imported, which registers every class by the public ``register`` methods. So ``import gama`` costs
nothing, ``import transformers`` costs nothing more than before, and the order of the two does not matter.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MODEL_TYPE = "gama"

_ALIAS = f"transformers.models.{MODEL_TYPE}"

# Models have no row: their tables are keyed by the configuration's class, and importing that has registered them.
_ROWS = {
    "transformers.models.auto.configuration_auto": ("CONFIG_MAPPING_NAMES", "GamaConfig"),
    "transformers.models.auto.feature_extraction_auto": ("FEATURE_EXTRACTOR_MAPPING_NAMES", "GamaFeatureExtractor"),
    "transformers.models.auto.processing_auto": ("PROCESSOR_MAPPING_NAMES", "GamaProcessor"),
}


def install() -> None:
    """Add our rows to the tables that are loaded, and watch for the others. Safe to call more than once."""
    for name in _ROWS:
        if name in sys.modules:
            _add_row(sys.modules[name])
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _add_row(module: ModuleType) -> None:
    table_name, class_name = _ROWS[module.__name__]
    # A transformers that drops a table must still import; `import gama.model` registers without the tables.
    table = getattr(module, table_name, None)
    if table is not None:
        table.setdefault(MODEL_TYPE, class_name)


class _Finder(MetaPathFinder):
    """Finds ``transformers.models.gama`` itself and the modules of the tables through the other finders."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == _ALIAS:
            return ModuleSpec(fullname, _AliasLoader())
        if fullname not in _ROWS:
            return None
        for finder in sys.meta_path:
            spec = None if isinstance(finder, _Finder) else finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _TableLoader(spec.loader)
                return spec
        return None


class _TableLoader(Loader):
    """Loads a module as its own loader does, then adds our row."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # handed back first: tools that read a module's source ask the loader it names
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _add_row(module)


class _AliasLoader(Loader):
    """Fills ``transformers.models.gama`` with the public names of ``gama.model``."""

    def exec_module(self, module: ModuleType) -> None:
        model = importlib.import_module("gama.model")
        for name in model.__all__:
            setattr(module, name, getattr(model, name))
