"""gama: ask a sound what happened.

>>> import gama
>>> model = gama.load()
>>> print(model.ask("clip.wav", "what happened?"))

Importing this package costs nothing: every public name is loaded on first use. After ``import gama`` the Auto classes
of transformers know the model type ``gama``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gama import _registration, bitsandbytes_import, telemetry

__version__ = "0.2.0"

if TYPE_CHECKING:
    from gama.checkpoints.bundled import model_folder
    from gama.errors import GamaError
    from gama.inference.asking import Answer
    from gama.inference.engine import Gama
    from gama.inference.opening import load
    from gama.instant.engine import Instant
    from gama.model.configuration import GamaConfig
    from gama.model.gama import GamaForConditionalGeneration
    from gama.model.headless import GamaModel
    from gama.model.processing import GamaFeatureExtractor, GamaProcessor

__all__ = [
    "Answer",
    "Gama",
    "GamaConfig",
    "GamaError",
    "GamaFeatureExtractor",
    "GamaForConditionalGeneration",
    "GamaModel",
    "GamaProcessor",
    "Instant",
    "__version__",
    "load",
    "model_folder",
]

_HOME_OF = {
    "Answer": "gama.inference.asking",
    "Gama": "gama.inference.engine",
    "GamaConfig": "gama.model.configuration",
    "GamaError": "gama.errors",
    "GamaFeatureExtractor": "gama.model.processing",
    "GamaForConditionalGeneration": "gama.model.gama",
    "GamaModel": "gama.model.headless",
    "GamaProcessor": "gama.model.processing",
    "Instant": "gama.instant.engine",
    "load": "gama.inference.opening",
    "model_folder": "gama.checkpoints.bundled",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'gama' has no attribute {name!r}")
    from gama.packages import explained

    with explained():
        value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})


_registration.install()
bitsandbytes_import.install()  # peft and transformers import it, too
telemetry.switch_off()
