"""``gama export``: ONNX graphs of the audio front end; adapters and merged weights in files of their own."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gama.atomic import check_output_folder
from gama_cli import console

if TYPE_CHECKING:
    from gama.audio import Waveform

_ELSEWHERE = {
    "adapter": ("gama_cli.export_adapter", "adapter", "A model's LoRA as a PEFT folder."),
    "merged": ("gama_cli.export_adapter", "merged", "The language model alone, LoRA added; the audio tower beside it."),
    "embeds": ("gama_cli.export_embeds", "embeds", "A clip and a question as prompt embeddings, for vLLM."),
}
_HIDDEN = ("instant",)

_OPTIONS: list[Callable[[Any], Any]] = [
    click.option(
        "-o",
        "--out",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("gama-onnx"),
        show_default=True,
        metavar="DIR",
        help="Folder to write into.",
    ),
    click.option(
        "--model",
        metavar="DIR|NAME",
        envvar="GAMA_MODEL",
        help="Whose front end. [default: the model in the package]",
    ),
    click.option(
        "--part",
        type=click.Choice(["prefix", "fbank", "encoder"]),
        default="prefix",
        show_default=True,
        help="prefix is the whole front end; encoder reads what fbank makes.",
    ),
    click.option(
        "--precision",
        type=click.Choice(["fp32", "fp16", "int8"]),
        default="fp32",
        show_default=True,
        help="Of everything after the fbank.",
    ),
    click.option("--opset", type=int, default=20, show_default=True, metavar="N", help="ONNX opset, 18 to 23."),
    click.option(
        "--calibrate",
        "calibration",
        multiple=True,
        metavar="CLIP",
        help="Make int8 static, its ranges measured on this clip; repeat for more. Without any, int8 is dynamic.",
    ),
    click.option(
        "--check",
        "checks",
        multiple=True,
        metavar="CLIP",
        help="Compare with torch on this clip; repeat for more. [default: generated clips]",
    ),
    click.option(
        "--provider",
        default="cpu",
        show_default=True,
        metavar="NAME",
        help="onnxruntime's provider for the comparison: cpu, cuda, tensorrt, openvino, ...",
    ),
    click.option("--no-answers", is_flag=True, help="Do not compare the language model's answers."),
    click.option("--allow-drift", is_flag=True, help="Keep a graph that is further from torch than its limits."),
]


def _onnx_options(command: Any) -> Any:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


class ExportGroup(click.Group):
    """Its subcommands are imported when they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["onnx", *_ELSEWHERE, *_HIDDEN]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _ELSEWHERE:
            module, attribute, _ = _ELSEWHERE[cmd_name]
            command: click.Command = getattr(importlib.import_module(module), attribute)
            return command
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [("onnx", "The audio front end as ONNX: waveform to prefix, checked against torch.")]
        rows += [(name, help) for name, (_, _, help) in _ELSEWHERE.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=ExportGroup, invoke_without_command=True, subcommand_metavar="[onnx|adapter|merged|embeds] …")
@_onnx_options
@click.pass_context
def export(ctx: click.Context, /, **options: Any) -> None:
    """Take a model out of PyTorch. Alone, and with its options, this is "gama export onnx".

    \b
    Examples:
      gama export
      gama export onnx -o front-end --precision int8 --check clip.wav
      gama export adapter -o adapter --model DIR
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(onnx, **options)
        return
    given = [name for name in options if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE]
    if given:
        raise click.UsageError(f"options of {ctx.invoked_subcommand!r} stand after its name", ctx)


@export.command("onnx")
@_onnx_options
def onnx(
    out: Path,
    model: str | None,
    part: Any,
    precision: Any,
    opset: int,
    calibration: Sequence[str],
    checks: Sequence[str],
    provider: str,
    no_answers: bool,
    allow_drift: bool,
) -> None:
    """Write the audio front end as ONNX and compare it with torch.

    The graph goes from "waveform" (clips, samples), float32 at 16 kHz, and "lengths" (clips) to "prefix" (clips, 96,
    width). It needs no PyTorch and no preprocessing but decoding and resampling. Beside it lies the comparison,
    parity.md. A graph further from torch than the limits of its precision is not written.

    \b
    Examples:
      gama export onnx
      gama export onnx -o front-end --model DIR --precision fp16
      gama export onnx --precision int8 --calibrate a.wav --calibrate b.wav --check c.wav
    """
    from gama.checkpoints.bundled import model_folder
    from gama.export.onnx import Plan, export_front_end
    from gama.export.tracing import import_onnx
    from gama.inference.engine import load
    from gama.instant.providers import choose

    folder = model_folder(model)
    check_output_folder(out)
    import_onnx()
    console.note(f"comparing on {choose(provider)[0]} (onnxruntime)")
    plan = Plan(
        part=part,
        precision=precision,
        opset=opset,
        calibration=_windows(calibration),
        provider=provider,
        answers=not no_answers,
        allow_drift=allow_drift,
    )
    clips = _windows(checks) or _generated()
    gama = load(model, device="cpu", dtype="float32")
    report = export_front_end(gama, folder, out, plan, clips, say=console.note)
    console.note(_summary(report))
    click.echo(out / f"{part}.onnx")


@export.command("instant", hidden=True)
@click.option("--model", metavar="DIR|NAME", envvar="GAMA_MODEL", help="A folder of save_pretrained.")
@click.option("--opset", type=int, default=20, show_default=True, metavar="N", help="ONNX opset, 18 to 23.")
def instant(model: str | None, opset: int) -> None:
    """Write the graphs that answer without PyTorch into a model's own folder; they share its weights."""
    from gama.checkpoints.bundled import model_folder
    from gama.export.instant import export_instant

    folder = model_folder(model)
    export_instant(folder, opset=opset, say=console.note)
    click.echo(folder)


def _windows(names: Sequence[str]) -> list[Waveform]:
    """Clips, the long ones in windows of 10.24 s."""
    from gama import audio

    return [window for name in names for window in audio.windows(audio.load(name))]


def _generated() -> list[Waveform]:
    from gama.export.clips import generated_clips

    return generated_clips()


def _summary(report: Any) -> str:
    least = min(clip.cosine for clip in report.clips)
    most = max(clip.max_difference for clip in report.clips)
    changed = f"{report.changed_answers} of {len(report.clips)} answers changed"
    if not any(clip.answers for clip in report.clips):
        changed = "answers not compared"
    return f"{report.precision} on {report.providers[0]}: cosine ≥ {least:.7f}, difference ≤ {most:.1e}, {changed}"
