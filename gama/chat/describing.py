"""A clip in one line of words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def described(facts: Mapping[str, Any]) -> str:
    """Duration, where from, level: from the facts of :func:`gama.chat.clips.facts`."""
    parts = [f"{facts['duration_s']:.1f} s" + (f" from {facts['start_s']:.1f} s" if facts["start_s"] else "")]
    parts.append(f"{facts['sample_rate'] / 1000:g} kHz")
    parts.append({1: "mono", 2: "stereo"}.get(facts["channels"], f"{facts['channels']} channels"))
    silent = facts["peak_db"] is None or facts["silent"]
    parts.append("silent" if silent else f"peak {facts['peak_db']:.1f} dB, mean {facts['rms_db']:.1f} dB")
    if facts["windows"] > 1:
        parts.append(f"heard in {facts['windows']} windows")
    return ", ".join(parts)


__all__ = ["described"]
