"""The options that say how answers are written, and ``--preset``, which changes their defaults."""

from __future__ import annotations

import functools
from typing import Any

import click

from gama_cli.options import Command, FiniteRange, stack


def generation_options(command: Command) -> Command:
    """``max_new_tokens: int, temperature: float, top_p: float, top_k: int, repetition_penalty: float,
    seed: int | None, template: str | None``: how answers are written. ``--preset`` changes their defaults."""
    return stack(
        _with_preset(command),
        click.option(
            "--preset",
            metavar="NAME",
            help="Settings of others: gama-paper. Options given beside it go before it.",
        ),
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
            "--top-k",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            metavar="K",
            help="Sample among the K likeliest tokens; 0 for all.",
        ),
        click.option(
            "--repetition-penalty",
            type=FiniteRange(min=0, min_open=True),
            default=1.0,
            show_default=True,
            metavar="R",
            help="Above 1, words that were read or said are less likely.",
        ),
        click.option(
            "--seed",
            type=click.IntRange(min=0, max=2**63 - 1),
            metavar="S",
            help="Repeat the same samples.",
        ),
        click.option("--template", metavar="NAME", help="Prompt template. [default: the model's own]"),
    )


def _with_preset(command: Command) -> Command:
    """The command with the values of ``--preset`` for every option that nobody gave."""

    @functools.wraps(command)
    def run(*args: Any, preset: str | None, **options: Any) -> Any:
        if preset is not None:
            options |= _of_preset(click.get_current_context(), preset)
        return command(*args, **options)

    return run  # type: ignore[return-value]


def _of_preset(ctx: click.Context, name: str) -> dict[str, Any]:
    """A preset on the command line goes before the settings file; one of the file goes beside what stands there."""
    from gama.inference.sampling import preset

    sources = click.core.ParameterSource
    weaker = {sources.DEFAULT, sources.DEFAULT_MAP}
    if ctx.get_parameter_source("preset") is sources.DEFAULT_MAP:
        weaker = {sources.DEFAULT}
    return {key: value for key, value in preset(name).items() if ctx.get_parameter_source(key) in weaker}
