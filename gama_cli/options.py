"""Options that several commands share, as decorators that stack.

Each decorator adds its options to a command; their values arrive as the keyword arguments it names.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from gama.threads import threads

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


def _allow_hub_kernels(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Callback of ``--allow-hub-kernels``: what imports bitsandbytes reads the environment."""
    if value:
        from gama.bitsandbytes_import import ALLOW

        os.environ[ALLOW] = "1"


def hub_kernels_option(command: Command) -> Command:
    """No value: bitsandbytes may fetch a compiled CPU kernel from a hub."""
    option = click.option(
        "--allow-hub-kernels",
        is_flag=True,
        expose_value=False,
        envvar="GAMA_ALLOW_HUB_KERNELS",
        callback=_allow_hub_kernels,
        help="Let bitsandbytes fetch a compiled CPU kernel from a hub and run it.",
    )
    return _stack(command, option)


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
        hub_kernels_option,
    )


def _onnx_folder(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Callback of ``--frontend``: the folder of ``onnx:DIR``."""
    if value is None:
        return None
    kind, _, folder = value.partition(":")
    if kind != "onnx" or not folder:
        raise click.BadParameter(f"{value!r} is not onnx: and a folder, such as onnx:gama-onnx.", ctx, param)
    return folder


def runtime_options(command: Command) -> Command:
    """``runtime: str, frontend: str | None, provider: str``: what computes."""
    return _stack(
        command,
        click.option(
            "--runtime",
            type=click.Choice(["auto", "onnx", "torch"]),
            default="auto",
            show_default=True,
            help="What runs the model; auto is onnx where it can do what is asked.",
        ),
        click.option(
            "--frontend",
            metavar="onnx:DIR",
            callback=_onnx_folder,
            help="Hear by an exported front end (gama export onnx) in place of the model's own.",
        ),
        click.option(
            "--provider",
            default="auto",
            show_default=True,
            metavar="NAME",
            help="onnxruntime's provider: cpu, cuda, tensorrt, openvino, coreml, directml, ...",
        ),
    )


def generation_options(command: Command) -> Command:
    """``max_new_tokens: int, temperature: float, top_p: float, top_k: int, repetition_penalty: float,
    seed: int | None, template: str | None``: how answers are written. ``--preset`` changes their defaults."""
    return _stack(
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


def threads_option(command: Command) -> Command:
    """``threads: int``: threads that compute."""
    option = click.option(
        "--threads",
        type=click.IntRange(min=1),
        default=threads,
        show_default="one a physical core",
        metavar="N",
        help="Threads that compute.",
    )
    return _stack(command, option)


def _size(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """Callback of ``--cache-size``: bytes."""
    number, factor = value.strip().upper().removesuffix("B"), 1
    if number[-1:] in _FACTORS:
        number, factor = number[:-1], _FACTORS[number[-1]]
    try:
        size = float(number) * factor
    except ValueError:
        size = math.nan
    if not 0 < size < math.inf:
        raise click.BadParameter(f"{value!r} is not a size such as 500MB or 2GB.", ctx, param)
    return int(size)


def _folder(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Callback of ``--cache``, which takes the word behind it for its folder."""
    if value is not None and os.path.isfile(value):
        raise click.BadParameter(f"{value!r} is a file; write --cache=DIR, or --cache behind all words.", ctx, param)
    return value


_FACTORS = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}

DEFAULT_CACHE = "the gama cache"
"""The value of ``--cache`` without a folder."""


def cache_options(command: Command) -> Command:
    """``cache: str | None, cache_size: int``: where prefixes of clips are kept, and how many bytes of them."""
    return _stack(
        command,
        click.option(
            "--cache",
            is_flag=False,
            flag_value=DEFAULT_CACHE,
            envvar="GAMA_CACHE",
            metavar="[DIR]",
            callback=_folder,
            help="Keep on disk what the audio tower made of each clip; without DIR, in gama's cache folder.",
        ),
        click.option(
            "--cache-size",
            default="2GB",
            show_default=True,
            callback=_size,
            metavar="SIZE",
            help="Let the longest unused go above this size.",
        ),
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


def manifests_argument(command: Command) -> Command:
    """``manifests: tuple[Path, ...]``: one or more manifests."""
    return _stack(
        command,
        click.argument(
            "manifests",
            nargs=-1,
            required=True,
            metavar="MANIFEST...",
            type=click.Path(dir_okay=False, path_type=Path),
        ),
    )


def workers_option(command: Command) -> Command:
    """``workers: int``: processes; one for each core unless said otherwise."""
    option = click.option(
        "--workers",
        type=click.IntRange(min=1),
        default=lambda: len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        show_default="one a core",
        metavar="W",
        help="Processes.",
    )
    return _stack(command, option)


def _changes(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Callback of ``--map``: the two sides of OLD=NEW."""
    pairs = tuple(tuple(value.split("=", 1)) for value in values)
    for value, pair in zip(values, pairs, strict=True):
        if len(pair) != 2 or not pair[0]:
            raise click.BadParameter(f"{value!r} is not OLD=NEW, such as /cluster/audio=/data/audio.", ctx, param)
    return tuple((pair[0], pair[1]) for pair in pairs)


def remap_options(command: Command) -> Command:
    """``audio_root: Path | None, changes: tuple[tuple[str, str], ...]``: where the clips of a manifest lie."""
    return _stack(
        command,
        click.option(
            "--audio-root",
            type=click.Path(file_okay=False, exists=True, path_type=Path),
            metavar="DIR",
            help="Where relative clips lie. [default: beside the manifest]",
        ),
        click.option(
            "--map",
            "changes",
            multiple=True,
            callback=_changes,
            metavar="OLD=NEW",
            help="A clip whose path begins with OLD lies below NEW. Repeat for more.",
        ),
    )


def _stack(command: Command, *options: Callable[[Command], Command]) -> Command:
    # click lists options in the order their decorators are read, which is the reverse of how they are applied
    for option in reversed(options):
        command = option(command)
    return command
