"""Usage statistics of other libraries, switched off whoever imports them.

The official builds of onnxruntime 1.32 start an uploader as soon as they are imported: it writes a device id and a
database under ``~/.cache/Microsoft`` and sends events to ``mobile.events.data.microsoft.com``. Its environment variable
is read once, at import, and is the only switch that also prevents the first event and the device id; builds that know
no such variable (Windows, ETW) have ``disable_telemetry_events``. huggingface_hub has a variable of its own. A variable
that the user has set, to whatever value, is left as it is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import ModuleType

from gama.import_hooks import watch

ONNXRUNTIME = "ORT_DISABLE_TELEMETRY"
"""onnxruntime's environment variable; set it to 0 to let onnxruntime send what it wants to."""

_VARIABLES = {ONNXRUNTIME: "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
_OFF = ("", "0", "false", "off", "no")


def switch_off() -> None:
    """Switch usage statistics off in this process and in those it starts. Safe to call more than once."""
    for name, value in _VARIABLES.items():
        os.environ.setdefault(name, value)
    watch("onnxruntime", _execute)
    if (loaded := sys.modules.get("onnxruntime")) is not None:
        _disable_events(loaded)


def _execute(load: Callable[[], None], module: ModuleType) -> None:
    load()
    _disable_events(module)


def _disable_events(module: ModuleType) -> None:
    wanted = os.environ.get(ONNXRUNTIME, "").lower() in _OFF
    if not wanted and hasattr(module, "disable_telemetry_events"):
        module.disable_telemetry_events()


__all__ = ["ONNXRUNTIME", "switch_off"]
