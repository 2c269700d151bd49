"""``gama prepare questions``: questions and answers written by a language model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from gama.atomic import check_output
from gama_cli import console
from gama_cli.left_out import LeftOut
from gama_cli.options import FiniteRange, manifests_argument


@click.command()
@manifests_argument
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    metavar="MANIFEST",
    help="The manifest to write.",
)
@click.option("--endpoint", required=True, metavar="URL", help="Server, such as http://localhost:8000/v1.")
@click.option("--model", required=True, metavar="NAME", help="Model on that server.")
@click.option(
    "--key-variable",
    default="OPENAI_API_KEY",
    show_default=True,
    metavar="NAME",
    help="Environment variable that holds the server's key, if it needs one.",
)
@click.option(
    "--count", type=click.IntRange(min=1, max=50), default=5, show_default=True, metavar="N", help="Questions a clip."
)
@click.option(
    "--attempts",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    metavar="N",
    help="Replies asked for before a clip is given up.",
)
@click.option(
    "--temperature",
    type=FiniteRange(min=0),
    default=0.7,
    show_default=True,
    metavar="T",
    help="0 takes the likeliest words; above 0 samples.",
)
@click.option(
    "--at-once", type=click.IntRange(min=1), default=4, show_default=True, metavar="N", help="Requests under way."
)
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Replies kept. [default: a folder beside MANIFEST]",
)
def questions(
    manifests: Sequence[Path],
    out: Path,
    endpoint: str,
    model: str,
    key_variable: str,
    count: int,
    attempts: int,
    temperature: float,
    at_once: int,
    cache: Path | None,
) -> None:
    """Have a language model write questions and answers about clips.

    It sees what the rows know of a clip: events with their times, and a caption. Any server that speaks OpenAI's chat
    completions will do. Run again after a stop: replies are kept. The exit status is 1 where a clip got none.

    \b
    Example:
      gama prepare questions audiocaps.json --endpoint http://localhost:8000/v1 --model qwen --out qa.json
    """
    from gama.data.chat_endpoint import Endpoint
    from gama.data.generation import Writer, write_questions

    check_output(out, manifests, make_folder=True, regular=cache is None)  # the replies lie beside it
    writer = Writer(
        Endpoint(endpoint, model, os.environ.get(key_variable, "")),
        cache or out.with_name(f"{out.stem}.replies"),
        count=count,
        attempts=attempts,
        temperature=temperature,
    )
    left_out = LeftOut()
    with console.progress(None, "asking") as advance:
        done = write_questions(manifests, out, writer, at_once=at_once, progress=advance, malformed=left_out)
    if done.unknown:
        console.warn(f"{done.unknown} clips have neither events nor a caption; nothing was asked about them")
    if done.malformed:
        console.warn(f"{done.malformed} replies were no list of questions and answers and were asked for again")
    if done.given_up:
        console.warn(f"{done.given_up} clips got no usable reply in {attempts} attempts")
    console.note(f"wrote {done.pairs} rows about {done.clips - done.given_up} clips to {out}")
    console.note(f"{done.asked} replies asked for, {done.kept} taken from those kept")
    if left_out.close() or done.given_up:
        raise SystemExit(1)
