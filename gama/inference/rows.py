"""Questions of a manifest and the lines that answer them. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gama.data.manifest import records, require_file_name, require_text
from gama.data.remap import Remap
from gama.errors import ManifestError
from gama.inference.batches import Reply
from gama.inference.hearing import Request
from gama.prompt import instruction
from gama.text import json_text, shown

_BESIDE = Remap()
_PASSED_ON = ("input", "output", "task", "dataset")

_MOST_WAITING = 1000  # malformed rows at the head of a manifest

Key = tuple[int, str]
"""What tells a line from another: the manifest's row, from 1, and the question."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One question of a manifest.

    Attributes:
        row: of the manifest, from 1.
        audio_id: as it stands there; ``empty`` for no clip.
        clip: the file; None for no clip.
        instruction: the question.
        facts: what of the row is passed on to its answer.
        error: what is wrong with a malformed row; it is passed on in the place of an answer.
    """

    row: int
    audio_id: str
    clip: Path | None
    instruction: str
    facts: dict[str, Any]
    error: ManifestError | None = None

    @property
    def key(self) -> Key:
        return self.row, self.instruction

    @property
    def request(self) -> Request:
        """The question as it is put to a model."""
        if self.error is not None:
            return Request(None, self.instruction, self.error)
        return Request(self.clip, instruction(self.instruction, input=self.facts.get("input") or ""))

    def line(self, reply: Reply) -> dict[str, Any]:
        """The line that answers it: JSON's values."""
        told = {"row": self.row, "audio_id": self.audio_id, "instruction": self.instruction, **self.facts}
        if reply.answer is None:
            return told | {"error": str(reply.error)}
        answer = reply.answer
        return told | {
            "answer": str(answer),
            "finish": answer.heard[-1].finish,
            "duration_s": round(sum(clip.duration for clip in answer.clips), 3),
            "tokens": {
                "prompt": sum(h.prompt_tokens for h in answer.heard),
                "new": sum(h.new_tokens for h in answer.heard),
            },
        }


def asked(manifest: Path, questions: Sequence[str] = (), remap: Remap = _BESIDE) -> Iterator[Asked]:
    """The questions of a manifest, in order; those of a malformed row carry what is wrong with it.

    Args:
        manifest: rows with ``audio_id`` and ``instruction``, and whatever else; relative clips lie beside it.
        questions: asked about each clip in place of the row's instruction; a row may then be a clip's name alone.
        remap: where the clips lie.

    Raises:
        ManifestError: for a file that is not there or is not JSON, or where none of the first 1000 rows can be used;
            naming file, row and field.
    """
    waiting: list[Asked] | None = []  # malformed rows before the first that can be used
    for number, record in enumerate(records(manifest), 1):
        try:
            found = list(_row(record, number, manifest, questions, remap))
        except ManifestError as error:
            found = _malformed(record, number, questions, error)
            if waiting is not None:
                waiting += found
                if number >= _MOST_WAITING:  # another kind of file; its rows would fill the memory
                    break
                continue
        yield from waiting or ()
        waiting = None
        yield from found
    if waiting:
        raise waiting[0].error or ManifestError(f"{manifest}: no row can be used")


def _row(record: Any, number: int, manifest: Path, questions: Sequence[str], remap: Remap) -> Iterator[Asked]:
    where = f"{manifest}: row {number}"
    row = {"audio_id": record} if isinstance(record, str) and questions else record
    if not isinstance(row, dict):
        raise ManifestError(f"{where} is {type(row).__name__}, expected an object")
    clip = _text(row, "audio_id", where)
    require_file_name(clip, where)
    facts = {} if questions else {key: row[key] for key in _PASSED_ON if row.get(key)}
    if not isinstance(facts.get("input", ""), str):
        raise ManifestError(f"{where}: 'input' is {shown(facts['input'])}, expected text")
    for key, value in facts.items():
        _require_json(value, f"{where}: {key!r}")
    for question in questions or [_text(row, "instruction", where)]:
        require_text(question, f"{where}: 'instruction'")
        yield Asked(number, clip, remap.file(clip, manifest), question, facts)


def _malformed(record: Any, number: int, questions: Sequence[str], error: ManifestError) -> list[Asked]:
    row = record if isinstance(record, dict) else {}
    clip, own = (text if isinstance(text, str) else "" for text in (row.get("audio_id"), row.get("instruction")))
    return [Asked(number, clip, None, question, {}, error) for question in questions or [own]]


def _text(row: dict[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise ManifestError(
            f"{where}: {name!r} is {shown(value)}, expected text",
            "a row needs audio_id and instruction; with --question, audio_id alone",
        )
    return value


def _require_json(value: Any, what: str) -> None:
    """Refuse what could not be written into the line of the answer."""
    if isinstance(value, str):
        require_text(value, what)
        return
    try:
        json_text(value).encode()
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{what} is {shown(value)}: {shown(str(error))}", "expected a value of JSON") from None


__all__ = ["Asked", "Key", "asked"]
