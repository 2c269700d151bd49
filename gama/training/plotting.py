"""The curves of runs: loss and learning rate over the steps, of stages in a row or of runs to compare."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gama.atomic import make_folder, replacing
from gama.errors import GamaError, MissingPackageError
from gama.text import shown

_METRICS = "metrics.jsonl"
_SMOOTHED = 50  # a curve is drawn as the mean of about this many pieces beside its faint points
_INSTALL = "pip install 'gama-audio[plot]'"


@dataclass(frozen=True)
class Curve:
    """The numbers of a run.

    Attributes:
        name: of its folder.
        steps, losses, rates: one an optimizer step.
        tests: (step, loss on the validation rows).
    """

    name: str
    steps: tuple[int, ...]
    losses: tuple[float, ...]
    rates: tuple[float, ...]
    tests: tuple[tuple[int, float], ...]


def read_curve(run: Path) -> Curve:
    """The numbers of a run's folder, or of a file like its ``metrics.jsonl``.

    Raises:
        GamaError: where there are none.
    """
    file = run / _METRICS if run.is_dir() else run
    if not file.is_file():
        raise GamaError(f"{run}: no run of gama train: {_METRICS} is not there", "give its output folder")
    texts = file.read_text(encoding="utf-8", errors="replace").splitlines()
    lines = [line for number, text in enumerate(texts, 1) if (line := _line(text, f"{file}: line {number}"))]
    if not lines:
        raise GamaError(f"{file}: no step is written in it yet")
    return Curve(
        name=file.parent.name,
        steps=tuple(int(line["step"]) for line in lines),
        losses=tuple(float(line["loss"]) for line in lines),
        rates=tuple(float(line.get("learning_rate", 0.0)) for line in lines),
        tests=tuple((int(line["step"]), float(line["eval_loss"])) for line in lines if "eval_loss" in line),
    )


def _line(text: str, where: str) -> dict[str, Any] | None:
    """One line of metrics; None for one that a running or killed process has not finished.

    Raises:
        GamaError: for numbers that are none.
    """
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or not {"step", "loss"} <= set(line):
        return None
    for key in ("step", "loss", "learning_rate", "eval_loss"):
        value = line.get(key, 0)
        if not isinstance(value, (int, float)) or abs(value) > sys.float_info.max:
            raise GamaError(f"{where}: {key!r} is {shown(value)}, expected a number")
    if not 0 <= line["step"] == line["step"] // 1:
        raise GamaError(f"{where}: 'step' is {shown(line['step'])}, expected a whole number")
    return line


def in_a_row(curves: Sequence[Curve]) -> list[int]:
    """Where each curve begins when the stages of a curriculum stand side by side: the steps before it."""
    begins, before = [], 0
    for curve in curves:
        begins.append(before)
        before += curve.steps[-1]
    return begins


def smooth(values: Sequence[float], pieces: int = _SMOOTHED) -> list[float]:
    """The mean of each value and its neighbours, as many as make about ``pieces`` windows."""
    half = max(0, len(values) // pieces // 2)
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def draw(curves: Sequence[Curve], out: Path, *, overlay: bool = False) -> None:
    """Draw loss and learning rate into a picture (PNG, SVG or PDF by its ending), which appears whole or not at all.

    Args:
        curves: one a run.
        out: the picture.
        overlay: every run from step 0, to compare them; otherwise one after the other, as stages are.

    Raises:
        MissingPackageError: where matplotlib is not installed.
        GamaError: for an ending that is no kind of picture.
    """
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise MissingPackageError("curves are drawn by the package matplotlib", _INSTALL) from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(2, 1, sharex=True, figsize=(9, 6), height_ratios=(3, 1))
    kinds = figure.canvas.get_supported_filetypes()
    kind = out.suffix.removeprefix(".").lower()
    if kind not in kinds:
        pyplot.close(figure)
        raise GamaError(f"{out}: no picture ends in {out.suffix!r}", "give a name that ends in .png, .svg or .pdf")
    begins = [0] * len(curves) if overlay else in_a_row(curves)
    for curve, begin in zip(curves, begins, strict=True):
        _draw_one(curve, begin, above, below)
    above.set(ylabel="loss", yscale="log" if _spread(curves) > 30 else "linear")
    below.set(ylabel="learning rate", xlabel="optimizer step")
    above.legend(fontsize=8)
    for axes in (above, below):
        axes.grid(alpha=0.3)
    make_folder(out.parent)
    try:
        with replacing(out) as partial:
            figure.savefig(partial, format=kind, dpi=110, bbox_inches="tight")
    finally:
        pyplot.close(figure)


def _draw_one(curve: Curve, begin: int, above: Any, below: Any) -> None:
    at = [begin + step for step in curve.steps]
    (line,) = above.plot(at, smooth(curve.losses), label=curve.name)
    above.plot(at, curve.losses, color=line.get_color(), alpha=0.2, linewidth=0.8)
    below.plot(at, curve.rates, color=line.get_color())
    if curve.tests:
        steps, losses = zip(*curve.tests, strict=True)
        label = f"{curve.name}, validation"
        above.plot([begin + s for s in steps], losses, "o--", color=line.get_color(), markersize=4, label=label)


def _spread(curves: Sequence[Curve]) -> float:
    losses = [loss for curve in curves for loss in curve.losses]
    return max(losses) / min(losses) if min(losses) > 0 else 1.0
