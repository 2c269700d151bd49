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
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from gama.import_hooks import watch

MODEL_TYPE = "gama"

_ALIAS = f"transformers.models.{MODEL_TYPE}"

_WHOLE = "GamaForConditionalGeneration"

# The tables of models are keyed by the configuration's class as well, and importing that registers them; pipelines and
# trainers read the names.
_ROWS = {
    "transformers.models.auto.configuration_auto": {"CONFIG_MAPPING_NAMES": "GamaConfig"},
    "transformers.models.auto.feature_extraction_auto": {"FEATURE_EXTRACTOR_MAPPING_NAMES": "GamaFeatureExtractor"},
    "transformers.models.auto.processing_auto": {"PROCESSOR_MAPPING_NAMES": "GamaProcessor"},
    "transformers.models.auto.modeling_auto": {
        "MODEL_MAPPING_NAMES": "GamaModel",
        "MODEL_FOR_PRETRAINING_MAPPING_NAMES": _WHOLE,
        "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES": _WHOLE,
        "MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES": _WHOLE,
    },
}


def install() -> None:
    """Add our rows to the tables that are loaded, and watch for the others. Safe to call more than once."""
    for name in _ROWS:
        if name in sys.modules:
            _add_rows(sys.modules[name])
        watch(name, _execute)
    if not any(isinstance(finder, _AliasFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AliasFinder())


def _add_rows(module: ModuleType) -> None:
    for table_name, class_name in _ROWS[module.__name__].items():
        # A transformers that drops a table must still import; `import gama.model` registers without the tables.
        table = getattr(module, table_name, None)
        if table is not None:
            table.setdefault(MODEL_TYPE, class_name)


def _execute(load: Callable[[], None], module: ModuleType) -> None:
    load()
    _add_rows(module)


class _AliasFinder(MetaPathFinder):
    """Finds ``transformers.models.gama``."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, _AliasLoader()) if fullname == _ALIAS else None


class _AliasLoader(Loader):
    """Fills ``transformers.models.gama`` with the public names of ``gama.model``."""

    def exec_module(self, module: ModuleType) -> None:
        model = importlib.import_module("gama.model")
        for name in model.__all__:
            setattr(module, name, getattr(model, name))
