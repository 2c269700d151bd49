"""Good answers become rows of a manifest, as ``gama train`` reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gama.atomic import make_folder, write_bytes
from gama.audio import Waveform
from gama.audio.encoding import encoded
from gama.chat import files
from gama.chat.clips import Held, groups
from gama.chat.conversation import Exchange
from gama.errors import PromptError
from gama.text import printable

if TYPE_CHECKING:
    from gama.chat.session import Session

DATASET = "gama-chat"


def export(session: Session, target: files.Target) -> tuple[int, list[str]]:
    """Write a row for each answer marked good; one a window for a long clip.

    A row names the clip's file. A span or a window of a file is written beside the manifest, as what was heard.

    Returns:
        How many rows, and why good answers were left out.

    Raises:
        PromptError: when there is no row to write, or something else lies there.
    """
    folder = target.path.parent / f"{target.path.stem}_clips"
    rows: list[dict[str, Any]] = []
    sounds: dict[Path, Waveform] = {}
    left_out: list[str] = []
    for exchange in session.exchanges:
        if exchange.verdict != "good":
            continue
        reason = _why_not(exchange, session)
        if reason:
            left_out.append(f"{printable(exchange.question)}: {reason}")
        else:
            rows += _rows(exchange, session, target.path.parent, folder, sounds)
    if not rows:
        raise PromptError(
            "; ".join(["there is no row to write", *left_out]), "mark answers first: /good, or /good THE RIGHT ANSWER"
        )
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if target.path.suffix.lower() != ".jsonl":
        text = json.dumps(rows, ensure_ascii=False, indent=1) + "\n"
    files.write(target, text, session.shelf.paths)
    for path, waveform in sounds.items():
        _write_sound(path, waveform)
    return len(rows), left_out


def _why_not(exchange: Exchange, session: Session) -> str:
    if len(exchange.clips) > 1:
        return "it is about several clips, a row has one"
    if any(name not in session.shelf for name in exchange.clips):
        return f"its clip {exchange.clips[0]} is dropped"
    if exchange.correction and exchange.windows > 1:
        return f"one right answer for {exchange.windows} windows; add the span as a clip: /audio PATH from-to"
    if exchange.finish == "interrupted" and not exchange.correction:
        return "it was interrupted"
    return ""


def _rows(
    exchange: Exchange, session: Session, base: Path, folder: Path, sounds: dict[Path, Waveform]
) -> list[dict[str, Any]]:
    if not exchange.clips:
        return [_row("empty", exchange.question, exchange.correction or exchange.answer)]
    clip = session.shelf.named(exchange.clips[0])
    is_whole = clip.start is None and clip.end is None and session.hearing.get("channel", "mix") == "mix"
    if exchange.windows == 1 and is_whole:
        return [_row(_relative(clip.path, base), exchange.question, exchange.correction or exchange.answer)]
    rows = []
    for index, (group, part) in enumerate(zip(groups([clip]), exchange.parts, strict=True)):
        path = _sound_path(clip, folder, index)
        sounds[path] = group.windows[0]
        rows.append(_row(_relative(path, base), exchange.question, exchange.correction or part.said.text))
    return rows


def _row(audio_id: str, question: str, answer: str) -> dict[str, Any]:
    return {
        "audio_id": audio_id,
        "instruction": question,
        "input": "",
        "output": answer,
        "task": "chat",
        "dataset": DATASET,
    }


def _relative(path: Path, base: Path) -> str:
    """Relative where the clip lies below the manifest, so that they move together; absolute elsewhere."""
    path, base = path.absolute(), base.absolute()
    return str(path.relative_to(base)) if path.is_relative_to(base) else str(path)


def _sound_path(clip: Held, folder: Path, index: int) -> Path:
    return folder / f"{clip.name}-{clip.sha256[:8]}-{index + 1}.wav"


def _write_sound(path: Path, waveform: Waveform) -> None:
    make_folder(path.parent)
    write_bytes(path, encoded(waveform.samples, "WAV", "FLOAT"))


__all__ = ["DATASET", "export"]
