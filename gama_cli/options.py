"""Options that several commands share, as decorators that stack.

Each decorator adds its options to a command; their values arrive as the keyword arguments it names.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


class FiniteRange(click.FloatRange):
    """A float range that takes neither NaN nor infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def fold_list(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Callback of an option that takes fold numbers such as ``1,2,3``."""
    try:
        return None if value is None else tuple(int(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a list of fold numbers such as 1,2,3.", ctx, param) from None


def model_options(command: Command) -> Command:
    """``model: str | None, quant: str, device: str, dtype: str``: which weights, and how they are held."""
    return _stack(
        command,
        click.option(
            "--model",
            metavar="DIR|NAME",
            envvar="GAMA_MODEL",
            help="Weights to answer with: a folder or a name. [default: the model in the package]",
        ),
        click.option(
            "--quant",
            type=click.Choice(["none", "8bit", "4bit"]),
            default="none",
            show_default=True,
            help="Hold the language model in 8 or 4 bits.",
        ),
        click.option(
            "--device",
            default="auto",
            show_default=True,
            metavar="NAME",
            help="auto, cpu, cuda, cuda:1, mps.",
        ),
        click.option(
            "--dtype",
            type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
            default="auto",
            show_default=True,
            help="Precision of the weights.",
        ),
    )


def generation_options(command: Command) -> Command:
    """``max_new_tokens: int, temperature: float, top_p: float, seed: int | None, template: str | None``."""
    return _stack(
        command,
        click.option(
            "--max-new-tokens",
            type=click.IntRange(min=1),
            default=200,
            show_default=True,
            metavar="N",
            help="Stop an answer after N tokens.",
        ),
        click.option(
            "--temperature",
            type=FiniteRange(min=0),
            default=0.0,
            show_default=True,
            metavar="T",
            help="0 takes the likeliest token every time; above 0 samples.",
        ),
        click.option(
            "--top-p",
            type=FiniteRange(min=0, max=1, min_open=True),
            default=1.0,
            show_default=True,
            metavar="P",
            help="Sample among the likeliest tokens that together hold P of the probability.",
        ),
        click.option(
            "--seed",
            type=click.IntRange(min=0, max=2**63 - 1),
            metavar="S",
            help="Repeat the same samples.",
        ),
        click.option("--template", metavar="NAME", help="Prompt template. [default: the model's own]"),
    )


def json_option(command: Command) -> Command:
    """``as_json: bool``: machine-readable output."""
    return _stack(command, click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line."))


def span_options(command: Command) -> Command:
    """``start: float | None, end: float | None, max_duration: float``: which part of a clip, in seconds."""
    return _stack(
        command,
        click.option("--from", "start", type=FiniteRange(min=0), metavar="SECONDS", help="Hear the clip from here on."),
        click.option(
            "--to", "end", type=FiniteRange(min=0, min_open=True), metavar="SECONDS", help="Hear the clip up to here."
        ),
        click.option(
            "--max-duration",
            type=FiniteRange(min=0, min_open=True),
            default=1800.0,
            show_default=True,
            metavar="SECONDS",
            help="Refuse a clip that is longer than this.",
        ),
    )


def _stack(command: Command, *options: Callable[[Command], Command]) -> Command:
    # click lists options in the order their decorators are read, which is the reverse of how they are applied
    for option in reversed(options):
        command = option(command)
    return command
