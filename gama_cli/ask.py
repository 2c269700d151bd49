"""``gama ask``: questions about one clip, about each of many, about several together, or of a manifest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from gama.checkpoints.bundled import model_folder
from gama.errors import PromptError
from gama.prompt import template_named
from gama_cli.options import (
    batch_size_option,
    cache_options,
    channel_option,
    json_option,
    model_options,
    remap_options,
    runtime_options,
    span_options,
    threads_option,
)
from gama_cli.sampling_options import generation_options


def _devices(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    names = tuple(name.strip() for name in (value or "").split(",")) if value is not None else ()
    if not all(names):
        raise click.BadParameter(f"{value!r} is not a list of devices such as cuda:0,cuda:1.", ctx, param)
    return names


@click.command(context_settings={"ignore_unknown_options": False})
@click.argument("words", nargs=-1, type=click.Path(readable=False), metavar="CLIP… QUESTION")
@click.option(
    "--question",
    "questions",
    multiple=True,
    metavar="TEXT",
    help="Ask this; all words are clips then. Repeat for more.",
)
@click.option("--together", is_flag=True, help="One question about all clips at once, in one prompt.")
@click.option("--text-only", is_flag=True, help="Ask the language model without any clip.")
@click.option(
    "--manifest",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Ask what the rows of a manifest ask; with --question, that about the clip of each row.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the answers to a manifest here, JSON lines in its order.",
)
@click.option("--resume", is_flag=True, help="Go on with --out where an earlier run broke off; ask again what failed.")
@click.option(
    "--devices",
    callback=_devices,
    metavar="A,B,…",
    help="Share a manifest among devices, one process each: cuda:0,cuda:1.",
)
@batch_size_option
@channel_option
@span_options
@remap_options
@model_options
@runtime_options
@threads_option
@cache_options
@generation_options
@json_option
def ask(
    words: tuple[str, ...],
    questions: tuple[str, ...],
    together: bool,
    text_only: bool,
    manifest: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Ask QUESTION about each CLIP and print the answers; "-" reads a clip from stdin.

    A clip longer than 10.24 s is heard in windows, and each line of the answer says which span it is about.
    The packaged model answers on onnxruntime, without PyTorch, where no option asks for more.

    \b
    Examples:
      gama ask clip.wav "what happened?"
      gama ask clip.wav --question "what happened?" --question "is there a dog?"
      gama ask *.flac "is there a dog?" --json
      gama ask before.wav after.wav "which is louder?" --together
      cat clip.ogg | gama ask - "describe the audio"
      gama ask long.mp3 "what is heard?" --from 60 --to 90
      gama ask --manifest rows.json --out answers.jsonl --resume
      gama ask clip.wav "what happened?" --frontend onnx:gama-onnx --model DIR
    """
    if manifest is not None:
        if words or together or text_only:
            raise click.UsageError("--manifest takes neither clips nor --together nor --text-only")
        _require_questions(questions)
        _check_names(options)
        from gama_cli.ask_manifest import answer

        answer(manifest, tuple(dict.fromkeys(questions)), options, as_json=as_json)
        return
    _check_alone(options)
    clips, questions = _split(words, questions, text_only)
    _require_questions(questions)
    _check_names(options)
    from gama_cli.ask_clips import Session

    Session(options, as_json=as_json).ask(clips, questions, together=together)


def _require_questions(questions: tuple[str, ...]) -> None:
    if not all(question.strip() for question in questions):
        raise PromptError("the question is empty", "ask something, for example: what happened?")


def _check_alone(options: dict[str, Any]) -> None:
    """Refuse what makes sense with a manifest only."""
    for name, given in (
        ("--out", options["out"] is not None),
        ("--resume", options["resume"]),
        ("--devices", bool(options["devices"])),
        ("--audio-root", options["audio_root"] is not None),
        ("--map", bool(options["changes"])),
    ):
        if given:
            raise click.UsageError(f"{name} belongs to --manifest")


def _split(
    words: tuple[str, ...], questions: tuple[str, ...], text_only: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Clips and questions; what cannot be told apart is a usage error."""
    if not words and not questions:
        raise click.UsageError("give a clip and a question")
    clips = words if questions else words[:-1]
    questions = questions or words[-1:]
    if not clips and not text_only:
        if words:
            _refuse_clip(words[-1])
            raise click.UsageError(
                f"no clip: {words[-1]!r} is taken for the question (--text-only asks without a clip)"
            )
        raise click.UsageError("no clip: give one, or --text-only to ask without")
    if len(clips) < len(words):
        _refuse_clip(words[-1])
    if text_only and clips:
        raise click.UsageError("--text-only takes a question and no clip")
    if clips.count("-") > 1:
        raise click.UsageError("stdin (-) can be read once only")
    return clips, questions


def _refuse_clip(question: str) -> None:
    if question == "-" or os.path.exists(question):
        raise click.UsageError(f"no question: the last argument, {question!r}, is a clip")


def _check_names(options: dict[str, Any]) -> None:
    """Refuse an unknown model or template before anything is decoded or loaded."""
    model_folder(options["model"])
    if options["template"] is not None:
        template_named(options["template"])
