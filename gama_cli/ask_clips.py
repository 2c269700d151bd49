"""Clips of the command line are answered on stdout: one streamed, several in batches and in order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gama.errors import AudioError
from gama.text import printable
from gama_cli import console
from gama_cli.options import DEFAULT_CACHE

if TYPE_CHECKING:
    from gama.audio import Waveform
    from gama.inference.asking import Answer, Asker
    from gama.inference.hearing import Request

SAMPLING = ("max_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty", "seed", "template")
_HEARING = ("channel", "start", "end", "max_duration")
_LOADING = ("quant", "device", "dtype", "runtime", "frontend", "provider", "threads")


def how_of(options: dict[str, Any]) -> dict[str, Any]:
    """Of a command's options, those of :func:`gama.inference.hearing.asking`."""
    return {key: options[key] for key in (*SAMPLING, *_HEARING)}


def loading_of(options: dict[str, Any]) -> dict[str, Any]:
    """Of a command's options, those of :func:`gama.inference.opening.load`."""
    return {"name_or_dir": options["model"], **{key: options[key] for key in _LOADING}}


def cache_of(options: dict[str, Any]) -> tuple[Path, int] | None:
    """Folder and limit of the kept prefixes; None for none."""
    if not options["cache"]:
        return None
    if options["cache"] != DEFAULT_CACHE:
        return Path(options["cache"]), options["cache_size"]
    from gama.hub.disk import cache_home

    return cache_home() / "prefixes", options["cache_size"]


@dataclass(frozen=True)
class Session:
    """The questions of one command; the model is loaded when the first clip has been read."""

    options: dict[str, Any]
    as_json: bool

    @cached_property
    def gama(self) -> Asker:
        from gama.inference.opening import open_asker

        return open_asker(loading_of(self.options), cache_of(self.options))

    def ask(self, clips: Sequence[str], questions: Sequence[str], *, together: bool) -> None:
        """Print the answer to every question about every clip (about all of them together, about none).

        Raises:
            SystemExit: with 1 where a clip of several could not be read.
        """
        from gama.inference.hearing import Request

        heard: list[Any] = [list(clips)] if together and clips else list(clips) or [None]
        requests = [Request(clip, question) for clip in heard for question in questions]
        if len(requests) > 1:
            self._many(requests, named=len(heard) > 1, questioned=len(questions) > 1)
        elif self.as_json:
            self._line(requests[0], self._read(requests[0]))
        else:
            self._streamed(requests[0])

    # -- one ---------------------------------------------------------------------------------------------------------

    def _heard(self, request: Request) -> tuple[Any, dict[str, Any]]:
        """The clips of a request, decoded before the model is loaded, and how to ask about them."""
        from gama.inference.hearing import asking, read

        how = how_of(self.options)
        waveforms = read(request.clips, asking(**how))
        _warn(waveforms)
        sampling = {key: how[key] for key in SAMPLING}
        if request.clips is None:
            return None, sampling
        return (waveforms if isinstance(request.clips, list) else waveforms[0]), sampling

    def _read(self, request: Request) -> Answer:
        clips, how = self._heard(request)
        return self.gama.ask(clips, request.question, **how)

    def _streamed(self, request: Request) -> None:
        clips, how = self._heard(request)
        for piece in self.gama.stream(clips, request.question, **how):
            click.echo(_shown(piece), nl=False)
        click.echo()

    # -- several -----------------------------------------------------------------------------------------------------

    def _many(self, requests: Sequence[Request], *, named: bool, questioned: bool) -> None:
        """What is wrong with one clip does not stop the others."""
        from gama.inference.batches import replies
        from gama.inference.hearing import asking

        how = asking(**how_of(self.options))
        failed: set[str] = set()
        warned: list[Any] = []
        found = replies(lambda: self.gama, requests, how, batch_size=self.options["batch_size"])
        for request, reply in zip(requests, found, strict=True):
            if reply.answer is not None:
                if request.clips not in warned:
                    _warn(reply.answer.clips)
                    warned.append(request.clips)
                self._put(request, reply.answer, named=named, questioned=questioned)
            elif not named and isinstance(reply.error, AudioError):  # nothing is left to answer
                raise reply.error
            else:
                text = str(reply.error)
                if named and not isinstance(reply.error, AudioError):  # which names its clip itself
                    text = f"{request.clips!s}: {text}"
                self._fail(request, text, failed)
        if failed:
            raise SystemExit(1)

    def _fail(self, request: Request, error: str, failed: set[str]) -> None:
        """Report what is wrong with one clip or question; once where it concerns several questions."""
        if error not in failed:
            console.fail(error)
            failed.add(error)
        if self.as_json:
            console.json_line({"clip": request.clips, "question": request.question, "error": error})

    def _put(self, request: Request, answer: Answer, *, named: bool, questioned: bool) -> None:
        if self.as_json:
            self._line(request, answer)
            return
        label = f"{printable(str(request.clips))}: " if named else ""
        asked = f"{printable(request.question)} " if questioned else ""
        click.echo(label + asked + _shown(answer))

    def _line(self, request: Request, answer: Answer) -> None:
        told = {"clip": request.clips, "question": request.question, "answer": str(answer)}
        console.json_line({**told, **facts(answer, self.gama, self.options)})


def _warn(clips: Sequence[Waveform]) -> None:
    """Say of which clips the samples were never scaled to full scale: the answer is about a sound far too loud."""
    for clip in clips:
        if clip.level_warning:
            console.warn(clip.level_warning)


def _shown(text: str) -> str:
    """Text for a terminal: control characters escaped, line ends kept."""
    return "\n".join(printable(line) for line in text.split("\n"))


def facts(answer: Answer, gama: Asker, options: dict[str, Any]) -> dict[str, Any]:
    """What a program may want to know: clip, windows, model, timings, tokens."""
    told: dict[str, Any] = {}
    if len(answer.clips) == 1:
        told = _clip_facts(answer.clips[0])
    elif answer.clips:
        told["clips"] = [{"clip": c.source, **_clip_facts(c)} for c in answer.clips]
    if answer.clips:
        told["channel"] = options["channel"]
    if len(answer.clips) == 1:
        told["windows"] = [
            {"start": round(h.start, 3), "end": round(h.end, 3), "answer": h.text, "finish": h.finish}
            for h in answer.heard
        ]
    told["finish"] = answer.heard[-1].finish
    told["model"] = _model_facts(gama)
    told["timings"] = {
        "encode_s": round(sum(h.encode_s for h in answer.heard), 4),
        "first_token_s": round(answer.heard[0].first_token_s, 4),
        "total_s": round(sum(h.total_s for h in answer.heard), 4),
    }
    told["tokens"] = {
        "prompt": sum(h.prompt_tokens for h in answer.heard),
        "audio": sum(h.audio_tokens for h in answer.heard),
        "new": sum(h.new_tokens for h in answer.heard),
    }
    return told


def _model_facts(gama: Asker) -> dict[str, Any]:
    runtime = gama.runtime
    return {
        "name": gama.name,
        "quantization": runtime.quantization,
        **({"weight_bytes": runtime.weight_bytes} if runtime.weight_bytes else {}),
        "device": runtime.device,
        "dtype": runtime.dtype,
        "runtime": runtime.name,
        **({"providers": list(runtime.providers)} if runtime.providers else {}),
    }


def _clip_facts(clip: Waveform) -> dict[str, Any]:
    return {
        "duration_s": round(clip.duration, 3),
        "start_s": round(clip.start, 3),
        "sample_rate": clip.original_rate,
        "channels": clip.channels,
        "peak_db": _finite(clip.peak_db),
        "rms_db": _finite(clip.rms_db),
        "silent": clip.is_silent,
        "over_range": clip.over_range,
    }


def _finite(decibels: float) -> float | None:
    return round(decibels, 1) if math.isfinite(decibels) else None


__all__ = ["SAMPLING", "Session", "cache_of", "facts", "how_of", "loading_of"]
