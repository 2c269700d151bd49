"""``gama export adapter`` and ``gama export merged``: LoRA, and the language model, for other programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gama_cli import console
from gama_cli.options import json_option

if TYPE_CHECKING:
    from gama.export.text_parity import Parity

_MODEL = click.option(
    "--model", metavar="DIR|NAME", envvar="GAMA_MODEL", help="What to export. [default: the model in the package]"
)
_OUTPUT = click.option(
    "-o",
    "--out",
    "output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The new folder.",
)
_ADAPTER = click.option(
    "--adapter",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="LoRA that lies elsewhere. [default: in the model's folder, or in its folder adapter]",
)
_DEVICE = click.option(
    "--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda, cuda:1, mps."
)


@click.command()
@_MODEL
@_OUTPUT
@_ADAPTER
@click.option("--base", metavar="NAME", help="What the adapter's configuration calls its base model.")
@click.option("--with-base", is_flag=True, help="Write the language model without LoRA, too: DIR/language_model.")
@_DEVICE
@json_option
def adapter(
    model: str | None, output: Path, adapter: Path | None, base: str | None, with_base: bool, device: str, as_json: bool
) -> None:
    """Write a model's LoRA as a PEFT folder for its language model, with a parity report.

    \b
    Examples:
      gama export adapter --model gama-7b -o gama-lora --base meta-llama/Llama-2-7b-chat-hf
      gama export adapter --model my-model --adapter my-lora -o lora --with-base
    """
    from gama.export.adapter import export_adapter

    parity = export_adapter(model, output, adapter=adapter, base=base, with_base=with_base, device=device)
    _show(output, parity, as_json)


@click.command()
@_MODEL
@_OUTPUT
@_ADAPTER
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    show_default=True,
    help="Precision of the written weights; auto keeps the model's.",
)
@_DEVICE
@json_option
def merged(model: str | None, output: Path, adapter: Path | None, dtype: str, device: str, as_json: bool) -> None:
    """Write a model's language model, LoRA added, as a plain transformers folder, with a parity report.

    DIR/language_model is what AutoModelForCausalLM, vLLM, TGI and llama.cpp's converter read; DIR/audio_tower makes the
    prefix that goes in front of its token embeddings.

    \b
    Examples:
      gama export merged --model gama-7b -o gama-merged
      gama export merged -o mini-merged --dtype float32
    """
    from gama.export.merged import export_merged

    _show(output, export_merged(model, output, adapter=adapter, dtype=dtype, device=device), as_json)


def _show(output: Path, parity: Parity, as_json: bool) -> None:
    if parity.greedy_agreement < 1:
        console.warn(f"greedy answers differ: {parity.greedy_agreement:.1%} of {parity.tokens} tokens agree")
    if as_json:
        console.json_line({"path": str(output), **json.loads((output / "parity.json").read_text(encoding="utf-8"))})
        return
    click.echo(str(output))
    click.echo(parity.line())
