"""``gama convert``: released checkpoints and the parts they are made of, into one folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gama.atomic import write_errors
from gama_cli import console

if TYPE_CHECKING:
    from gama.checkpoints.conversion import Conversion

_PATH = click.Path(exists=True, path_type=Path)


@click.command()
@click.option("--audio", type=_PATH, multiple=True, metavar="PATH", help="A stage checkpoint: file, folder or zip.")
@click.option("--base", type=_PATH, metavar="DIR", help="The language model's folder, such as Llama-2-7b-chat-hf.")
@click.option("--encoder", type=_PATH, metavar="PATH", help="CAV-MAE weights for the audio encoder.")
@click.option("--qformer", type=_PATH, metavar="PATH", help="A Q-Former pretraining checkpoint (LAVIS).")
@click.option("--clap", type=_PATH, metavar="PATH", help="A LAION-CLAP checkpoint, for a transformers ClapModel.")
@click.option("--tokenizer", type=_PATH, metavar="DIR", help="The tokenizer's folder, where it is not the base's.")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="The folder to write.")
@click.option(
    "--dtype", type=click.Choice(["bf16", "fp16", "fp32"]), help="Precision to write. [default: as in the sources]"
)
@click.option("--keep-adapter", is_flag=True, help="Keep LoRA beside the weights instead of adding it to them.")
@click.option(
    "--stage1", is_flag=True, help="A start for stage 1: projectors drawn in the base's width, no LoRA, gaps drawn."
)
@click.option(
    "--aggregator",
    type=click.Choice(["released", "paper"]),
    default="released",
    show_default=True,
    help="The aggregator's form; released checkpoints know the first only.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="S", help="Of what --stage1 draws."
)
@click.option("--json", "as_json", is_flag=True, help="Print what became of every key as one JSON object.")
def convert(
    audio: tuple[Path, ...],
    base: Path | None,
    clap: Path | None,
    tokenizer: Path | None,
    out: Path,
    dtype: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Make one model folder of released checkpoints.

    Every key is loaded, dropped for a reason that is told, or an error. The folder holds sharded
    safetensors, configuration, processor and conversion.json, the fate of every key.

    \b
    Examples:
      gama convert --audio pytorch_model.bin --base Llama-2-7b-chat-hf --dtype bf16 -o gama-7b
      gama convert --encoder cavmae.pth --qformer lavis.pth --base Llama-2-7b-chat-hf --stage1 -o start
      gama convert --audio stage5.zip --base Qwen3-8B --stage1 -o start-qwen
      gama convert --clap clap.pt -o clap
      gama ask clip.wav "what happened?" --model gama-7b
    """
    if clap is not None:
        if audio or base or options["encoder"] or options["qformer"] or options["stage1"] or options["keep_adapter"]:
            raise click.UsageError("--clap makes a model of its own and takes --tokenizer and --dtype only")
        from gama.checkpoints.clap import convert_clap

        with write_errors(out):
            done = convert_clap(clap, out, tokenizer=tokenizer, dtype=dtype)
        _tell(done, out, as_json)
        return
    if base is None:
        raise click.UsageError("give the language model's folder: --base DIR")
    if not (audio or options["encoder"] or options["qformer"] or options["stage1"]):
        raise click.UsageError("give --audio, or --encoder and --qformer, or --stage1 to begin with the base alone")
    from gama.checkpoints.conversion import Request, convert

    request = Request(audio=audio, base=base, tokenizer=tokenizer, dtype=dtype, **options)
    with write_errors(out), console.progress(None, "MB hashed and written") as advance:
        done = convert(request, out, advance=in_megabytes(advance))
    _tell(done, out, as_json)


def in_megabytes(advance: console.Advance) -> console.Advance:
    seen = 0

    def megabytes(count: int) -> None:
        nonlocal seen
        before, seen = seen, seen + count
        advance(seen // 10**6 - before // 10**6)

    return megabytes


def _tell(done: Conversion, out: Path, as_json: bool) -> None:
    if as_json:
        from dataclasses import asdict

        console.json_line({"folder": str(out), **asdict(done)})
        return
    counts: dict[tuple[str, str, str], int] = {}
    for fate in done.fates:
        reason = fate.detail if fate.what == "dropped" else {"loaded": "", "lora": done.adapter}[fate.what]
        row = f"--{fate.role}", fate.what, reason
        counts[row] = counts.get(row, 0) + 1
    click.echo(console.table(["source", "keys", "became", ""], [(s, n, w, r) for (s, w, r), n in counts.items()]))
    if done.drawn:
        console.warn(f"{len(done.drawn)} weights were drawn at random: train stage 1 before you ask anything")
    files = f"{len(done.outputs)} file{'s' if len(done.outputs) != 1 else ''}"
    console.note(f"wrote {out}: {done.parameters:,} parameters in {files} of weights; conversion.json names every key")
