"""``gama quantize``: a model folder whose language model is stored in few bits."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from gama_cli import console
from gama_cli.convert import in_megabytes
from gama_cli.options import hub_kernels_option


@click.command()
@click.argument("model", metavar="DIR|NAME")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="The folder to write.")
@click.option(
    "--quant",
    type=click.Choice(["4bit", "8bit", "gptq"]),
    default="4bit",
    show_default=True,
    help="NF4 with double quantization or LLM.int8 (bitsandbytes), or 4-bit GPTQ, which needs a GPU.",
)
@click.option(
    "--calibration",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="MANIFEST|TEXT",
    help="For gptq: what the language model reads meanwhile, a manifest or a text file with one passage a line.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was written as one JSON object.")
@hub_kernels_option
def quantize(model: str, out: Path, quant: str, calibration: Path | None, as_json: bool) -> None:
    """Store the language model of MODEL in few bits; the audio tower keeps its precision.

    Such a folder is a third as large, is read without quantizing, and gives the answers that --quant gives.

    \b
    Examples:
      gama quantize gama-7b -o gama-7b-4bit
      gama ask clip.wav "what happened?" --model gama-7b-4bit
      gama quantize gama-7b -o gama-7b-8bit --quant 8bit
      gama quantize gama-7b -o gama-7b-gptq --quant gptq --calibration train.json
    """
    if (quant == "gptq") != (calibration is not None):
        raise click.UsageError("gptq needs --calibration MANIFEST|TEXT, and nothing else takes it")
    from gama.checkpoints.bundled import model_folder
    from gama.hub.disk import human
    from gama.packages import explained

    folder = model_folder(model)
    megabytes = sum(file.stat().st_size for file in folder.glob("model*.safetensors")) // 10**6
    with explained(), console.progress(None if quant == "gptq" else megabytes, "MB quantized") as advance:
        if calibration is not None:
            from gama.quantization.gptq import quantize_gptq

            done = quantize_gptq(folder, out, calibration=calibration)
        else:
            from gama.quantization.storing import quantize as store

            done = store(folder, out, quant=quant, advance=in_megabytes(advance))
    if as_json:
        console.json_line({"folder": str(out), **asdict(done)})
        return
    console.note(
        f"wrote {out}: {done.layers} matrices in {done.quantization}, {human(done.written)} of weights "
        f"where there were {human(done.read)}"
    )
