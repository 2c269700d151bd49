"""What ``gama chat`` gains by keeping keys and values, and what a model loses by being told earlier turns.

    python benchmarks/chat.py speed examples/dog_then_bells.flac
    gama prepare scenes --count 60 --seed 9100 --questions 4 --out fresh
    python benchmarks/chat.py memory fresh/manifest.json

``speed`` asks two questions about a clip, again and again, and prints the median seconds until the first token: of the
first question, of the second, and of the second where nothing is kept but the clip's prefix, or nothing at all.
``memory`` asks the questions of each clip one after the other in a session and counts right answers.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Generator
from pathlib import Path

from gama import audio
from gama.chat.conversation import MEMORIES
from gama.chat.events import Answered
from gama.chat.paths import Wanted
from gama.chat.session import Session
from gama.chat.settings import Settings
from gama.evaluation.scoring import right, select
from gama.inference.asking import Asker
from gama.inference.memory import Memory
from gama.inference.opening import load
from gama.inference.turns import Said, Spoken

FIRST, SECOND = "what happened?", "is there a dog in this recording?"


def answered(speech: Generator[str, None, Said]) -> Said:
    while True:
        try:
            next(speech)
        except StopIteration as end:
            return end.value


def speed(asker: Asker, clip: Path, repeats: int) -> dict[str, float]:
    """Median seconds until the first token, and how many times sooner the second question's comes."""
    waveform = audio.load(clip)
    seconds: dict[str, list[float]] = {name: [] for name in ("first", "second", "prefix_kept", "nothing_kept")}
    reused = whole = 0
    answered(Memory(asker).say([Spoken("user", FIRST, (waveform,))]))  # warm
    for _ in range(repeats):
        memory = Memory(asker)
        asker._prefixes.clear()  # type: ignore[attr-defined]
        seconds["first"].append(answered(memory.say([Spoken("user", FIRST, (waveform,))])).first_token_s)
        said = answered(memory.say([Spoken("user", SECOND, (waveform,))]))
        seconds["second"].append(said.first_token_s)
        reused, whole = said.reused_tokens, said.prompt_tokens
        alone = Memory(asker, reuse=False)
        seconds["prefix_kept"].append(answered(alone.say([Spoken("user", SECOND, (waveform,))])).first_token_s)
        asker._prefixes.clear()  # type: ignore[attr-defined]
        seconds["nothing_kept"].append(answered(alone.say([Spoken("user", SECOND, (waveform,))])).first_token_s)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = medians["nothing_kept"] / medians["second"]
    return {**medians, "times_sooner": ratio, "reused_tokens": reused, "prompt_tokens": whole}


def memory(asker: Asker, manifest: Path) -> dict[str, dict[str, float]]:
    """Right answers to the first question about each clip and to the later ones, for each kind of memory."""
    groups = [group for group in select([manifest]) if group[0].audio is not None]
    counts: dict[str, dict[str, float]] = {}
    for kind in MEMORIES:
        hits: dict[str, list[bool]] = {"first": [], "later": []}
        for group in groups:
            session = Session(lambda model: Memory(asker), settings=Settings(memory=kind, max_new_tokens=60))
            assert group[0].audio is not None
            list(session.attach(Wanted(group[0].audio)))
            for index, row in enumerate(group):
                answers = [e.exchange.answer for e in session.ask(row.instruction) if isinstance(e, Answered)]
                hits["later" if index else "first"].append(right(row, answers[0]))
        counts[kind] = {name: round(sum(values) / max(len(values), 1), 3) for name, values in hits.items()}
        counts[kind] |= {f"n_{name}": len(values) for name, values in hits.items()}
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "memory"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--runtime", default="auto", choices=["auto", "onnx", "torch"])
    parser.add_argument("--repeats", type=int, default=20)
    given = parser.parse_args()
    asker = load(given.model, runtime=given.runtime)
    found = speed(asker, given.file, given.repeats) if given.what == "speed" else memory(asker, given.file)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
