"""Keys and values in place, batches, shared beginnings, kept prefixes, bfloat16: each beside what it replaces.

    python benchmarks/generation.py [--rounds 5] [--only steps,batches,questions,prefixes,bfloat16,text]

Pairs are measured in turn in one process, on one thread, in seconds of CPU time (other work on the machine then counts
little); medians are printed as Markdown.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

import gama
from gama.audio import Waveform
from gama.inference import decoding
from gama.inference.asking import Asker
from gama.inference.decoding import decode
from gama.inference.prefixes import PrefixStore
from gama.inference.sampling import Sampling
from gama.inference.steps import FixedStep, GraphSteps, new_cache
from gama.inference.streaming import TextStream
from gama.model.configuration import GamaConfig
from gama.model.gama import GamaForConditionalGeneration
from gama.model.key_values import CACHE

QUESTIONS = ("what happened?", "is there a dog?", "describe the audio", "how loud is it?", "is there rain?", "when?")
PROMPT, NEW = 128, 64


def medians(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of CPU time of each way, measured in turn; the first round is thrown away."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            begun = time.process_time()
            way()
            times[name].append(time.process_time() - begun)
    return {name: statistics.median(each[1:]) for name, each in times.items()}


def table(title: str, found: dict[str, float], unit: str, factor: float = 1.0) -> None:
    """One Markdown table; the first row is what the others are compared with."""
    print(f"\n{title}\n\n| | {unit} | times as fast |\n|---|---|---|")
    first = next(iter(found.values()))
    for name, seconds in found.items():
        print(f"| {name} | {seconds * factor:.3g} | {first / seconds:.2f} |")


def clip(seed: int, seconds: float = 5.0) -> Waveform:
    samples = 0.1 * np.random.default_rng(seed).standard_normal(round(16_000 * seconds))
    return Waveform(samples.astype(np.float32), f"{seed}", 16_000, 1)


# -- one token at a time -----------------------------------------------------------------------------------------------


def language_model(width: int, layers: int) -> GamaForConditionalGeneration:
    """A LLaMA of random weights behind the smallest tower."""
    text = {
        "model_type": "llama",
        "vocab_size": 2048,
        "hidden_size": width,
        "intermediate_size": 11 * width // 4,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
        "max_position_embeddings": 1024,
    }
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(0)
    return GamaForConditionalGeneration(
        GamaConfig(text_config=text, audio_config={**small, "taps": [0, 1]}, qformer_config=small)
    ).eval()


def steps(rounds: int) -> None:
    for name, model in (
        ("256 wide, 4 layers", language_model(256, 4)),
        ("1024 wide, 8 layers", language_model(1024, 8)),
    ):
        for rows in (1, 8):
            ids = torch.randint(5, 2000, (rows, PROMPT))

            def said(cache: Any, rows: Any = ids, model: Any = model) -> None:
                given = {"input_ids": rows, "attention_mask": torch.ones_like(rows), CACHE: cache}
                for _ in decode(model, given, Sampling(NEW), []):
                    pass

            def fixed(model: Any = model, said: Any = said) -> None:
                plain = decoding.steps_for
                decoding.steps_for = lambda m, cache, mask, most: GraphSteps(
                    FixedStep(m, cache, len(mask), PROMPT + NEW + 64), cache, mask
                )
                try:
                    said(new_cache(model))
                finally:
                    decoding.steps_for = plain

            found = medians(
                {
                    "grown by concatenation (DynamicCache)": lambda said=said: said(DynamicCache()),
                    "room made before (RoomyLayer)": lambda said=said, model=model: said(new_cache(model)),
                    "fixed addresses, no graph (FixedStep)": fixed,
                },
                rounds,
            )
            table(f"{name}, {rows} row(s), prompt of {PROMPT}, {NEW} new", found, "ms a token", 1000 / NEW)


# -- many prompts ------------------------------------------------------------------------------------------------------


def askers() -> list[Asker]:
    return [gama.load(runtime="torch", threads=1), gama.load(runtime="onnx", threads=1)]


def batches(rounds: int) -> None:
    clips = [clip(i) for i in range(16)]
    for asker in askers():

        def alone(asker: Asker = asker) -> None:
            asker.prefixes.clear()
            for each in clips:
                asker.ask(each, QUESTIONS[2])

        def together(size: int, asker: Asker = asker) -> None:
            asker.prefixes.clear()
            asker.batch(clips, QUESTIONS[2], batch_size=size)

        ways: dict[str, Callable[[], object]] = {"one after the other": alone}
        ways |= {f"batches of {size}": lambda size=size, t=together: t(size) for size in (4, 8, 16)}
        table(f"16 clips, gama-mini, {asker.runtime.name}", medians(ways, rounds), "ms a clip", 1000 / 16)


def questions(rounds: int) -> None:
    for asker in askers():
        sound = clip(0)
        found = medians(
            {
                "asked one after the other": lambda a=asker, s=sound: [a.ask(s, q) for q in QUESTIONS],
                "ask_many": lambda a=asker, s=sound: a.ask_many(s, QUESTIONS),
            },
            rounds,
        )
        title = f"{len(QUESTIONS)} questions about one clip (its prefix is known), gama-mini, {asker.runtime.name}"
        table(title, found, "ms a question", 1000 / len(QUESTIONS))


# -- prefixes ----------------------------------------------------------------------------------------------------------


def prefixes(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for asker in askers():
            sound = clip(0)

            def hear(kept: bool, asker: Asker = asker, sound: Waveform = sound) -> None:
                asker.prefixes.clear()
                asker.prefixes.store = PrefixStore(Path(folder)) if kept else None
                asker.hear([sound])

            hear(True)
            found = medians({"heard": lambda h=hear: h(False), "read from disk": lambda h=hear: h(True)}, rounds)
            table(f"prefix of a clip of 5 s, gama-mini, {asker.runtime.name}", found, "ms", 1000)


def bfloat16(rounds: int) -> None:
    whole, half = gama.load(runtime="torch", threads=1), gama.load(dtype="bfloat16", threads=1)
    clips = [clip(i) for i in range(8)]
    example = gama.audio.load(Path(__file__).parents[1] / "examples" / "dog_then_bells.flac")
    one, other = (asker.hear([*clips, example]).float() for asker in (whole, half))
    print(f"\nprefix in bfloat16 against float32: relative L2 {float((one - other).norm() / one.norm()):.4f}")
    same = [whole.ask(c, q) == half.ask(c, q) for c in (*clips, example) for q in QUESTIONS]
    print(f"answers that are the same: {sum(same)} of {len(same)}")

    def hear(asker: Asker) -> None:
        asker.prefixes.clear()
        asker.hear(clips)

    found = medians({"float32": lambda: hear(whole), "bfloat16": lambda: hear(half)}, rounds)
    table("tower of gama-mini with its fbank, 8 clips", found, "ms a clip", 1000 / 8)


# -- text --------------------------------------------------------------------------------------------------------------


def text(rounds: int) -> None:
    tokenizer = gama.load(runtime="onnx").tokenizer
    words = "A dog is barking from one to three seconds, then church bells are ringing. " * 25
    ids = tokenizer._tokenizer.encode(words, add_special_tokens=False).ids[:400]

    def whole() -> None:
        for end in range(1, len(ids) + 1):
            tokenizer.decode(ids[:end])

    def streamed() -> None:
        stream = TextStream(tokenizer)
        for token in ids:
            stream.push(token)

    found = medians({"the whole answer decoded at every id": whole, "TextStream": streamed}, rounds)
    table(f"text of {len(ids)} ids as it grows", found, "ms", 1000)


PARTS: dict[str, Callable[[int], None]] = {
    "steps": steps,
    "batches": batches,
    "questions": questions,
    "prefixes": prefixes,
    "bfloat16": bfloat16,
    "text": text,
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(PARTS))
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    for name in given.only.split(","):
        PARTS[name](given.rounds)


if __name__ == "__main__":
    main()
