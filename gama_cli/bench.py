"""``gama bench``: how long each stage of an answer takes here, against what the machine allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gama.errors import GamaError
from gama_cli import console
from gama_cli.options import json_option, model_options, runtime_options


@click.command()
@model_options
@runtime_options
@click.option("--repeats", type=click.IntRange(1), default=7, show_default=True, help="Answers to take medians of.")
@click.option("--starts", type=click.IntRange(1), default=3, show_default=True, help="Cold starts, likewise.")
@click.option(
    "--compare",
    nargs=2,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="A.json B.json",
    help="Measure nothing: put two outputs of --json side by side.",
)
@json_option
def bench(
    repeats: int, starts: int, compare: tuple[Path, Path] | None, as_json: bool, runtime: str, **options: Any
) -> None:
    """Time import, load, filterbank, audio tower, prefill and tokens, and hold each against its limit.

    The limits are measured here: how fast this machine multiplies matrices and reads memory, and how long the packages
    alone take to import. The packaged model is measured on onnxruntime and, where it is installed, on PyTorch.

    \b
    Examples:
      gama bench
      gama bench --runtime torch --dtype bfloat16
      gama bench --model DIR --quant 4bit --json > after.json
      gama bench --compare before.json after.json
    """
    if compare is not None:
        if as_json:
            raise click.UsageError("--compare prints a table, and takes no --json")
        _show_compared(*compare)
        return
    from gama.bench.running import Plan, measure

    loading = {("name_or_dir" if name == "model" else name): value for name, value in options.items()}
    plan = Plan(loading, _runtimes(runtime, options), starts=starts, repeats=repeats)
    found = measure(plan, say=lambda text: console.note(f"measuring {text}"))
    if as_json:
        console.json_line(found)
    else:
        _show(found)


def _runtimes(asked: str, options: dict[str, Any]) -> tuple[Any, ...]:
    """Both, where both can do what is asked."""
    from gama.bench.machine import installed
    from gama.checkpoints.bundled import model_folder
    from gama.instant.engine import has_instant_graphs

    torch_alone = options["quant"] != "none" or options["device"] not in ("auto", "cpu")
    torch_alone = torch_alone or options["dtype"] not in ("auto", "float32")
    onnx = has_instant_graphs(model_folder(options["model"])) and not torch_alone
    if asked != "auto":
        if asked == "onnx" and not onnx:
            raise GamaError("onnxruntime cannot run this model as asked here", "--runtime torch")
        return (asked,)
    return ("onnx",) * onnx + ("torch",) * (installed("torch") is not None or not onnx)


def _show(found: dict[str, Any]) -> None:
    from gama.bench import report

    for line in report.machine_lines(found):
        click.echo(line)
    for run in found["runs"]:
        click.echo(f"\n{found['model']['name']}: {report.title(run)}; a prompt of {run['prompt_tokens']} tokens")
        click.echo(console.table(report.HEADER, list(report.rows(run))))


def _show_compared(first: Path, second: Path) -> None:
    from gama.bench import report

    one, other = report.read(first), report.read(second)
    for text in report.warnings(one, other):
        console.warn(text)
    for name, rows in report.compared(one, other):
        click.echo(f"{name}:")
        click.echo(console.table(report.COMPARED, rows))
