"""``/model`` and ``/stats``: what is loaded, and what it has cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gama.chat.events import Shown
from gama.text import printable

if TYPE_CHECKING:
    from gama.chat.session import Session


def model(session: Session) -> Shown:
    """Which model answers."""
    voice = session.voice
    data = {"name": voice.name, "quantization": voice.quantization, "device": voice.device, "context": voice.context}
    return Shown(
        f"{printable(voice.name)} on {voice.device}, quantization {voice.quantization}, context {voice.context} tokens",
        {"model": data},
    )


def stats(session: Session) -> Shown:
    """Tokens and seconds of this session."""
    said = [part.said for exchange in session.exchanges for part in exchange.parts]
    prompt, reused = sum(s.prompt_tokens for s in said), sum(s.reused_tokens for s in said)
    new = sum(s.new_tokens for s in said)
    writing = sum(s.total_s - s.first_token_s for s in said)
    data: dict[str, Any] = {
        "turns": len(session.exchanges),
        "clips": len(session.shelf.names),
        "memory": session.settings.memory,
        "tokens": {"prompt": prompt, "reused": reused, "new": new},
        "first_token_s": [round(s.first_token_s, 4) for s in said],
        "tokens_per_s": round((new - len(said)) / writing, 1) if writing > 0 and new > len(said) else None,
    }
    lines = [
        f"{data['turns']} turn(s), {data['clips']} clip(s), memory {data['memory']}",
        f"{prompt} prompt tokens, {reused} of them reused; {new} written"
        + (f", {data['tokens_per_s']} a second" if data["tokens_per_s"] else ""),
    ]
    if said:
        first, latest = said[0].first_token_s, said[-1].first_token_s
        lines.append(f"first token after {first:.2f} s at the beginning, after {latest:.2f} s in the last answer")
    if session.is_loaded:
        data["context"], data["kept"] = session.voice.context, session.voice.kept
        lines.append(f"{data['kept']} positions kept, context {data['context']}")
    return Shown("\n".join(lines), {"stats": data})


__all__ = ["model", "stats"]
