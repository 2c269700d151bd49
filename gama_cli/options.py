"""Options that several commands share, as decorators that stack.

Each decorator adds its options to a command; their values arrive as the keyword arguments it names.
"""

from __future__ import annotations

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
    return stack(command, option)


def model_options(command: Command) -> Command:
    """``model: str | None, quant: str, device: str, dtype: str``: which weights, and how they are held."""
    return stack(
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
    return stack(
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
    return stack(command, option)


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
    return stack(
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
    return stack(command, click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line."))


def _channel(ctx: click.Context, param: click.Parameter, value: str) -> str | int:
    """Callback of ``--channel``."""
    if value == "mix":
        return value
    if value.isdecimal():
        return int(value)
    raise click.BadParameter(f"{value!r} is neither 'mix' nor a channel number such as 0.", ctx, param)


def channel_option(command: Command) -> Command:
    """``channel: str | int``: which channels of a clip are heard."""
    option = click.option(
        "--channel",
        default="mix",
        show_default=True,
        metavar="mix|N",
        callback=_channel,
        help="Mix all channels, or hear one (the released code hears 0).",
    )
    return stack(command, option)


def max_duration_option(command: Command) -> Command:
    """``max_duration: float``: seconds that a clip may last."""
    option = click.option(
        "--max-duration",
        type=FiniteRange(min=0, min_open=True),
        default=1800.0,
        show_default=True,
        metavar="SECONDS",
        help="Refuse a clip that is longer than this.",
    )
    return stack(command, option)


def span_options(command: Command) -> Command:
    """``start: float | None, end: float | None, max_duration: float``: which part of a clip, in seconds."""
    return stack(
        command,
        click.option("--from", "start", type=FiniteRange(min=0), metavar="SECONDS", help="Hear the clip from here on."),
        click.option(
            "--to", "end", type=FiniteRange(min=0, min_open=True), metavar="SECONDS", help="Hear the clip up to here."
        ),
        max_duration_option,
    )


def batch_size_option(command: Command) -> Command:
    """``batch_size: int``: prompts computed together."""
    option = click.option(
        "--batch-size",
        type=click.IntRange(min=1),
        default=8,
        show_default=True,
        metavar="N",
        help="Answer N prompts at a time, where the runtime gains by it.",
    )
    return stack(command, option)


def manifests_argument(command: Command) -> Command:
    """``manifests: tuple[Path, ...]``: one or more manifests."""
    return stack(
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
    return stack(command, option)


def _changes(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Callback of ``--map``: the two sides of OLD=NEW."""
    pairs = tuple(tuple(value.split("=", 1)) for value in values)
    for value, pair in zip(values, pairs, strict=True):
        if len(pair) != 2 or not pair[0]:
            raise click.BadParameter(f"{value!r} is not OLD=NEW, such as /cluster/audio=/data/audio.", ctx, param)
    return tuple((pair[0], pair[1]) for pair in pairs)


def remap_options(command: Command) -> Command:
    """``audio_root: Path | None, changes: tuple[tuple[str, str], ...]``: where the clips of a manifest lie."""
    return stack(
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


def stack(command: Command, *options: Callable[[Command], Command]) -> Command:
    """A command with options, in the order in which help lists them."""
    # click lists options in the order their decorators are read, which is the reverse of how they are applied
    for option in reversed(options):
        command = option(command)
    return command
