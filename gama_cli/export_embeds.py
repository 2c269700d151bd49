"""``gama export embeds``: a clip and a question as prompt embeddings for another server."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("clip")
@click.argument("question")
@click.option("--model", metavar="DIR|NAME", envvar="GAMA_MODEL", help="The model. [default: the one in the package]")
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    show_default=True,
    help="Of the embeddings; the server's model has to have the same.",
)
@click.option("--served", metavar="NAME", help="Write the whole request, for the model of that name on the server.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=100, show_default=True, help="Of that request.")
@click.option("-o", "--out", type=click.Path(dir_okay=False, path_type=Path), help="A file, instead of stdout.")
def embeds(
    clip: str, question: str, model: str | None, dtype: str, served: str | None, max_tokens: int, out: Path | None
) -> None:
    """Write what the language model would read, in the form that vLLM's HTTP interface takes.

    That is base64 of a tensor (tokens, width), as torch.save writes it: "prompt_embeds" of /v1/completions, of a
    server started with --enable-prompt-embeds on the language_model folder of "gama export merged".

    \b
    Examples:
      gama export embeds clip.wav "what happened?" -o embeds.txt
      gama export embeds clip.wav "what happened?" --model gama-7b --served served/language_model -o request.json
    """
    import torch

    from gama.atomic import check_output, write_text
    from gama.export.embeds import encoded, prompt_embeds
    from gama.inference.engine import load

    if out is not None:
        check_output(out, [clip])
    tensor = prompt_embeds(load(model), [clip], question)
    text = encoded(tensor if dtype == "auto" else tensor.to(getattr(torch, dtype)))
    if served is not None:
        text = json.dumps({"model": served, "prompt_embeds": text, "max_tokens": max_tokens, "temperature": 0})
    if out is None:
        click.echo(text)
    else:
        write_text(out, text)  # vLLM refuses a line break behind base64
        click.echo(out)
