"""``gama ask``: a question about one clip, about each of many, or about several together."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

from gama.checkpoints.bundled import model_folder
from gama.errors import AudioError, PromptError
from gama.prompt import template_named
from gama.text import printable
from gama_cli import console
from gama_cli.options import generation_options, json_option, model_options, runtime_options, span_options

if TYPE_CHECKING:
    from gama.audio import Waveform
    from gama.inference.asking import Answer, Asker


def _channel(ctx: click.Context, param: click.Parameter, value: str) -> str | int:
    if value == "mix":
        return value
    if value.isdecimal():
        return int(value)
    raise click.BadParameter(f"{value!r} is neither 'mix' nor a channel number such as 0.", ctx, param)


@click.command(context_settings={"ignore_unknown_options": False})
@click.argument("words", nargs=-1, type=click.Path(), metavar="CLIP… QUESTION")
@click.option("--together", is_flag=True, help="One question about all clips at once, in one prompt.")
@click.option("--text-only", is_flag=True, help="Ask the language model without any clip.")
@click.option(
    "--channel",
    default="mix",
    show_default=True,
    metavar="mix|N",
    callback=_channel,
    help="Mix all channels, or hear one (the released code hears 0).",
)
@span_options
@model_options
@runtime_options
@generation_options
@json_option
def ask(words: tuple[str, ...], together: bool, text_only: bool, as_json: bool, **options: Any) -> None:
    """Ask QUESTION about each CLIP and print the answers; "-" reads a clip from stdin.

    A clip longer than 10.24 s is heard in windows, and each line of the answer says which span it is about.
    The packaged model answers on onnxruntime, without PyTorch, where no option asks for more.

    \b
    Examples:
      gama ask clip.wav "what happened?"
      gama ask *.flac "is there a dog?" --json
      gama ask before.wav after.wav "which is louder?" --together
      cat clip.ogg | gama ask - "describe the audio"
      gama ask long.mp3 "what is heard?" --from 60 --to 90
      gama ask clip.wav "what happened?" --frontend onnx:gama-onnx --model DIR
    """
    clips, question = _split(words, text_only)
    if not question.strip():
        raise PromptError("the question is empty", "ask something, for example: what happened?")
    _check_names(options)
    session = _Session(question, options)
    if text_only:
        session.put(None, None, as_json, named=False)
    elif together:
        session.put(clips, [session.read(clip) for clip in clips], as_json, named=False)
    else:
        failed = [clip for clip in clips if not session.try_one(clip, as_json, named=len(clips) > 1)]
        if failed:
            raise SystemExit(1)


def _split(words: tuple[str, ...], text_only: bool) -> tuple[tuple[str, ...], str]:
    """Clips and question; what cannot be told apart is a usage error."""
    if not words:
        raise click.UsageError("give a clip and a question")
    *clips, question = words
    if question == "-" or os.path.exists(question):
        raise click.UsageError(f"no question: the last argument, {question!r}, is a clip")
    if text_only and clips:
        raise click.UsageError("--text-only takes a question and no clip")
    if not clips and not text_only:
        raise click.UsageError(f"no clip: {question!r} is taken for the question (--text-only asks without a clip)")
    if clips.count("-") > 1:
        raise click.UsageError("stdin (-) can be read once only")
    return tuple(clips), question


def _check_names(options: dict[str, Any]) -> None:
    """Refuse an unknown model or template before anything is decoded or loaded."""
    model_folder(options["model"])
    if options["template"] is not None:
        template_named(options["template"])


@dataclass(frozen=True)
class _Session:
    """One question with its options; the model is loaded when the first clip has been read."""

    question: str
    options: dict[str, Any]

    @cached_property
    def gama(self) -> Asker:
        from gama.inference.opening import load

        return load(**{k: self.options[v] for k, v in _LOADING.items()})

    def read(self, clip: str) -> Waveform:
        from gama import audio

        chosen = {k: self.options[k] for k in ("channel", "start", "end", "max_duration")}
        return audio.load(clip, **chosen)

    def try_one(self, clip: str, as_json: bool, *, named: bool) -> bool:
        """Answer about one clip; where several are asked about, what is wrong with it does not stop the others."""
        try:
            self.put(clip, self.read(clip), as_json, named=named)
        except AudioError as error:
            if not named:
                raise
            console.fail(str(error))
            return False
        return True

    def put(
        self,
        name: str | Sequence[str] | None,
        heard: Waveform | list[Waveform] | None,
        as_json: bool,
        *,
        named: bool,
    ) -> None:
        """Print one answer: streamed after the name, or as a JSON line that gives the name (a list: of each clip)."""
        sampling = {k: self.options[k] for k in ("max_new_tokens", "temperature", "top_p", "seed", "template")}
        if as_json:
            answer = self.gama.ask(heard, self.question, **sampling)
            console.json_line({"clip": name, "answer": str(answer), **_facts(answer, self.gama, self.options)})
            return
        stream = self.gama.stream(heard, self.question, **sampling)
        first = next(stream, "")  # an error comes before the name is printed
        if named and isinstance(name, str):
            click.echo(printable(name) + ": ", nl=False)
        for piece in _pieces(first, stream):
            click.echo(_shown(piece), nl=False)
        click.echo()


_LOADING = {
    "name_or_dir": "model",
    **{name: name for name in ("quant", "device", "dtype", "runtime", "frontend", "provider")},
}


def _pieces(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _shown(text: str) -> str:
    """Text for a terminal: control characters escaped, line ends kept."""
    return "\n".join(printable(line) for line in text.split("\n"))


def _facts(answer: Answer, gama: Asker, options: dict[str, Any]) -> dict[str, Any]:
    """What a program may want to know: clip, windows, model, timings, tokens."""
    facts: dict[str, Any] = {}
    if len(answer.clips) == 1:
        facts = _clip_facts(answer.clips[0])
    elif answer.clips:
        facts["clips"] = [{"clip": c.source, **_clip_facts(c)} for c in answer.clips]
    if answer.clips:
        facts["channel"] = options["channel"]
    if len(answer.clips) == 1:
        facts["windows"] = [
            {"start": round(h.start, 3), "end": round(h.end, 3), "answer": h.text, "finish": h.finish}
            for h in answer.heard
        ]
    facts["finish"] = answer.heard[-1].finish
    runtime = gama.runtime
    facts["model"] = {
        "name": gama.name,
        "quantization": runtime.quantization,
        "device": runtime.device,
        "dtype": runtime.dtype,
        "runtime": runtime.name,
        **({"providers": list(runtime.providers)} if runtime.providers else {}),
    }
    facts["timings"] = {
        "encode_s": round(sum(h.encode_s for h in answer.heard), 4),
        "first_token_s": round(answer.heard[0].first_token_s, 4),
        "total_s": round(sum(h.total_s for h in answer.heard), 4),
    }
    facts["tokens"] = {
        "prompt": sum(h.prompt_tokens for h in answer.heard),
        "audio": sum(h.audio_tokens for h in answer.heard),
        "new": sum(h.new_tokens for h in answer.heard),
    }
    return facts


def _clip_facts(clip: Waveform) -> dict[str, Any]:
    return {
        "duration_s": round(clip.duration, 3),
        "start_s": round(clip.start, 3),
        "sample_rate": clip.original_rate,
        "channels": clip.channels,
        "peak_db": _finite(clip.peak_db),
        "rms_db": _finite(clip.rms_db),
        "silent": clip.is_silent,
    }


def _finite(decibels: float) -> float | None:
    return round(decibels, 1) if math.isfinite(decibels) else None
