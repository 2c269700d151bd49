"""What ``gama bench`` found, for people: the table of one run, and two runs side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gama.bench.running import FORMAT
from gama.errors import GamaError

HEADER = ("", "median", "quartiles", "limit", "times the limit", "limited by")
COMPARED = ("", "A", "B", "B / A", "")
BEYOND = "beyond the spread"

Row = tuple[str, ...]


def machine_lines(found: dict[str, Any]) -> Iterator[str]:
    """The machine and what it allows."""
    machine = found["machine"]
    memory = f", {machine['memory_bytes'] / 2**30:.0f} GiB" if machine["memory_bytes"] else ""
    yield f"{machine['cpu']}, {machine['cores']} core(s){memory}; Python {machine['python']}"
    yield ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    for rate in machine["rates"]:
        half = f", bfloat16 {rate['bfloat16'] / 1e9:.0f}" if rate["bfloat16"] else ""
        products = f"products of float32 {rate['float32'] / 1e9:.0f}{half} GFLOP/s"
        yield f"{rate['threads']} thread(s): {products}; memory {rate['read'] / 1e9:.1f} GB/s"


def title(run: dict[str, Any]) -> str:
    """``onnxruntime, cpu, float32``."""
    runtime = run["runtime"]
    parts = [runtime["name"], runtime["device"], runtime["dtype"]]
    return ", ".join(parts + [runtime["quantization"]] * (runtime["quantization"] != "none"))


def rows(run: dict[str, Any]) -> Iterator[Row]:
    """Cells of :data:`HEADER`."""
    for measure in run["measures"]:
        shown = [_shown(measure[key], measure["unit"]) for key in ("median", "low", "high")]
        limit, times = "", ""
        if measure["limit"]:
            limit = _shown(measure["limit"], measure["unit"])
            times = f"{measure['median'] / measure['limit']:.1f}"
        name = measure["name"]
        if name == "token":
            name = f"token ({1 / measure['median']:.0f}/s)"
        yield name, shown[0], f"{shown[1]} – {shown[2]}", limit, times, measure["limited_by"] or ""


def _shown(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 2**20:.0f} MiB"
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.3g} ms"


# -- two runs ----------------------------------------------------------------------------------------------------------


def read(path: Path) -> dict[str, Any]:
    """What ``gama bench --json`` printed.

    Raises:
        GamaError: for any other file.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise GamaError(f"{path}: cannot be read as JSON: {' '.join(str(error).split())}", _HOW) from error
    if not isinstance(found, dict) or "gama_bench" not in found:
        raise GamaError(f"{path}: holds no output of gama bench", _HOW)
    if found["gama_bench"] != FORMAT:
        raise GamaError(f"{path}: format {found['gama_bench']} of gama bench, {FORMAT} was expected", _HOW)
    return found


_HOW = "gama bench --json > a.json"


def compared(first: dict[str, Any], second: dict[str, Any]) -> Iterator[tuple[str, list[Row]]]:
    """Title and cells of :data:`COMPARED` for each runtime that both have.

    A ratio is marked where the quartiles of the two do not touch: then the difference is beyond the spread.

    Raises:
        GamaError: where they share nothing.
    """
    others = {title(run): run for run in second["runs"]}
    shared = [(title(run), run, others[title(run)]) for run in first["runs"] if title(run) in others]
    if not shared:
        raise GamaError("the two measured different runtimes or precisions, and have nothing in common")
    for name, one, other in shared:
        theirs = {measure["name"]: measure for measure in other["measures"]}
        yield name, [_pair(m, theirs[m["name"]]) for m in one["measures"] if m["name"] in theirs]


def _pair(one: dict[str, Any], other: dict[str, Any]) -> Row:
    apart = one["low"] > other["high"] or other["low"] > one["high"]
    ratio = f"{other['median'] / one['median']:.2f}" if one["median"] else ""
    unit = one["unit"]
    return one["name"], _shown(one["median"], unit), _shown(other["median"], unit), ratio, BEYOND if apart else ""


def warnings(first: dict[str, Any], second: dict[str, Any]) -> Iterator[str]:
    """What makes the two hard to compare."""
    for what in ("cpu", "cores"):
        one, other = first["machine"][what], second["machine"][what]
        if one != other:
            yield f"the machines differ in {what}: {one} and {other}"
    if first["model"]["name"] != second["model"]["name"]:
        yield f"the models differ: {first['model']['name']} and {second['model']['name']}"
