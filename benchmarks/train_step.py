"""A training step of the full-size audio tower: the original's way and ours, by turns, and the memory of each.

    python benchmarks/train_step.py --stage 1 --markdown            # encoder and Q-Former frozen, their outputs kept
    python benchmarks/train_step.py --stage 2 --markdown            # all audio modules and LoRA, as in stages 2 to 5
    python benchmarks/train_step.py --stage 1 --memory --markdown   # peak memory, every way in a process of its own

The original's step is benchmarks/plain_model.py. Ours is the objective that ``gama train`` trains, in its settings:
kept outputs of what is frozen (stage 1), attention by one kernel, logits where there is a target, and in bf16 the
frozen matrices of the language model held in bf16. Same shapes, weights, batch and trainable parameters; before
anything is timed the losses of all ways are compared, dropout off.

The language model has two layers of LLaMA-7B's width. By default the rest of it is that of the reference run (inner
width 1024, 256 ids); ``--inner 11008 --vocabulary 32000`` are LLaMA's own. ``--questions 2`` has every clip asked
twice, as the data of stages 2 to 5 does many times over: two rows in the original, one packed row in ours.

A step is forward and backward of one micro-batch, as the recipes accumulate 64 or more of them; ``--optimizer`` times
what AdamW adds to the last of them.

Time is that of the clock on the wall, for a quiet machine. ``--clock cpu`` counts what the process itself used: with
``--threads 1`` it means something on a busy one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from plain_model import DEAD, PlainGama
from torch import Tensor, nn

from gama.data.packing import Example, pack
from gama.model.configuration import GamaConfig, GamaEncoderConfig, GamaQFormerConfig
from gama.model.gama import GamaForConditionalGeneration
from gama.products import quicken
from gama.training import kept, stages
from gama.training.objectives import Answering, attention_of
from gama.training.recipe import Lora

WAYS = ("original fp32", "ours fp32", "original bf16", "ours bf16")
TRAINED = {1: ("aggregator", "projectors"), 2: ("encoder", "aggregator", "qformer", "projectors")}
TOLERANCE = {"fp32": 1e-4, "bf16": 3e-2}  # of the loss


@dataclass(frozen=True)
class Case:
    """What is measured: the recipe's trainable set and the shapes."""

    stage: int
    batch: int
    questions: int
    text: int
    width: int
    inner: int
    vocabulary: int
    encoder: int
    encoder_layers: int
    frames: int

    def config(self) -> GamaConfig:
        text = {"model_type": "llama", "vocab_size": self.vocabulary, "hidden_size": self.width}
        text |= {"intermediate_size": self.inner, "num_hidden_layers": 2, "tie_word_embeddings": False}
        text |= {"num_attention_heads": max(1, self.width // 128), "num_key_value_heads": max(1, self.width // 128)}
        sizes = {"hidden_size": self.encoder, "intermediate_size": 4 * self.encoder}
        sizes |= {"num_hidden_layers": self.encoder_layers, "num_attention_heads": max(1, self.encoder // 64)}
        taps = [self.encoder_layers // 3, 2 * self.encoder_layers // 3]
        encoder = GamaEncoderConfig(**sizes, taps=taps, num_frames=self.frames)
        return GamaConfig(text_config=text, audio_config=encoder, qformer_config=GamaQFormerConfig(**sizes))

    def inputs(self) -> tuple[Tensor, Tensor]:
        """Fbanks (B / questions, frames, 128) and ids of the text (B, T); all from the third on are targets."""
        chance = torch.Generator().manual_seed(1)
        ids = torch.randint(3, self.vocabulary, (self.batch, self.text), generator=chance)
        ids[:, 0] = 1
        return torch.randn(self.batch // self.questions, self.frames, 128, generator=chance), ids


Step = Callable[[], Tensor]


def our_model(case: Case) -> GamaForConditionalGeneration:
    torch.manual_seed(0)
    gama = GamaForConditionalGeneration(case.config())
    if case.stage > 1:
        stages.add_lora(gama, Lora())
    stages.set_trainable(gama, TRAINED[case.stage])
    quicken(gama)
    return gama


def ours(case: Case, precision: str) -> tuple[nn.Module, Step]:
    gama = our_model(case)
    if precision == "bf16":
        kept.halve(gama.language_model)
    objective = Answering(gama, 0.0, torch.tensor([])).train()
    fbank, ids = case.inputs()
    clip = [gama.config.audio_token_id] * gama.config.num_audio_tokens
    asked = [Example([row[1]], row[2:], [1.0] * (case.text - 2)) for row in ids.tolist()]
    packed = [asked[n : n + case.questions] for n in range(0, case.batch, case.questions)]
    batch = pack([[*clip, 1] for _ in packed], packed, pad_id=0)
    values = fbank
    if case.stage == 1:
        objective.layout = kept.layout_of(gama.audio_tower)
        with torch.no_grad(), autocast(precision):
            values = kept.outputs(gama.audio_tower, objective.layout, fbank)
    return objective, lambda: objective(**vars(batch), input_features=values)["loss"]


def original(case: Case) -> tuple[nn.Module, Step]:
    """The plain model with the weights that ours begins with."""
    plain = PlainGama(case.config(), lora=case.stage > 1)
    missing, unexpected = plain.load_state_dict(our_model(case).state_dict(), strict=False)
    wrong = [name for name in missing if not any(part in name for part in DEAD)]
    if wrong or [name for name in unexpected if "rotary" not in name]:
        raise SystemExit(f"the two models differ: {wrong[:3]} {unexpected[:3]}")
    learning = ("aggregator", "projector") if case.stage == 1 else ("audio_tower", "lora_")
    for name, parameter in plain.named_parameters():
        parameter.requires_grad_(any(part in name for part in learning))
    plain.train()
    fbank, ids = case.inputs()
    fbank, labels = fbank.repeat_interleave(case.questions, 0), ids.clone()
    labels[:, :2] = -100
    return plain, lambda: plain(fbank, ids, labels)


def autocast(precision: str) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")


@contextlib.contextmanager
def settings(way: str) -> Any:
    """What surrounds a step: autocast, and in ours the attention that the trainer chooses."""
    whose, precision = way.split()
    chosen = attention_of(plain=precision == "bf16")
    with chosen if whose == "ours" else contextlib.nullcontext():
        yield precision


def step(way: str, run: Step) -> float:
    """Forward and backward; the loss."""
    with settings(way) as precision:
        with autocast(precision):
            loss = run()
        loss.backward()
    return loss.item()


def built(case: Case, way: str, models: dict[str, tuple[nn.Module, Step]]) -> tuple[nn.Module, Step]:
    """The model of a way; the original's is the same in both precisions."""
    whose, precision = way.split()
    key = whose if whose == "original" else way
    if key not in models:
        models[key] = original(case) if whose == "original" else ours(case, precision)
    return models[key]


def compared(case: Case, ways: Sequence[str], models: dict[str, tuple[nn.Module, Step]]) -> dict[str, float]:
    """The loss of every way without dropout; ends where they are not the same."""
    found: dict[str, float] = {}
    for way in ways:
        model, run = built(case, way, models)
        model.eval()
        with torch.no_grad(), settings(way) as precision, autocast(precision):
            found[way] = run().item()
        model.train()
        if abs(found[way] / found[ways[0]] - 1) > TOLERANCE[precision]:
            raise SystemExit(f"the losses differ: {found}")
    return found


def timed(
    case: Case, ways: Sequence[str], repeats: int, clock: Callable[[], float], *, optimizer: bool
) -> dict[str, Any]:
    """Median seconds of every way, one step of each by turns, after one to warm up."""
    models: dict[str, tuple[nn.Module, Step]] = {}
    losses = compared(case, ways, models)
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(repeats + 1):
        for way in ways:
            model, run = built(case, way, models)
            begun = clock()
            step(way, run)
            if turn:
                taken[way].append(clock() - begun)
            if not (optimizer and turn == repeats):
                model.zero_grad(set_to_none=True)
    found = {way: {"seconds": statistics.median(times), "loss": losses[way]} for way, times in taken.items()}
    if optimizer:
        for way in ways[1::2]:
            del models[way]  # room for the moments
        found["optimizer"] = moved(models["original"][0], repeats, clock)
    return found


def moved(model: nn.Module, repeats: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of AdamW's step: parameter by parameter, and as one kernel."""
    parameters = [p for p in model.parameters() if p.requires_grad and p.grad is not None]
    found = {}
    for name, choice in {"original": {"foreach": False}, "ours": {"fused": True}}.items():
        adamw = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.0, **choice)
        times = []
        for _ in range(repeats + 1):
            begun = clock()
            adamw.step()
            times.append(clock() - begun)
        found[name] = statistics.median(times[1:])
    return found


# -- memory ------------------------------------------------------------------------------------------------------------


def peak_mib() -> float:
    """The most memory this process ever held."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise SystemExit("/proc/self/status names no VmHWM; the memory is measured on Linux alone")


def memory_of(case: Case, way: str) -> dict[str, float]:
    """Peak of two steps whose gradients are added up, from the weights on: what building them took is forgotten."""
    models: dict[str, tuple[nn.Module, Step]] = {}
    _, run = built(case, way, models)
    with contextlib.suppress(OSError):  # not allowed everywhere; then the peak of the beginning counts too
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    step(way, run)
    step(way, run)
    return {"peak_mib": peak_mib()}


def memories(ways: Sequence[str], words: list[str]) -> dict[str, Any]:
    found = {}
    for way in ways:
        command = [sys.executable, __file__, *words, "--measure", way]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        found[way] = json.loads(done.stdout.splitlines()[-1])
    return found


# -- what is printed ---------------------------------------------------------------------------------------------------


def table(case: Case, found: dict[str, Any], *, optimizer: bool) -> str:
    """Each way against the original in the same precision and in float32, or the one precision there is."""
    first_way = next(iter(found))
    what = "seconds" if "seconds" in found[first_way] else "peak_mib"
    head, digits = {"seconds": ("step, s", 2), "peak_mib": ("peak, MiB", 0)}[what]
    lines = [
        f"| stage {case.stage} | {head} | original / this, same precision | {first_way} / this |",
        "|---|---|---|---|",
    ]
    for way in [way for way in WAYS if way in found]:
        value, same = found[way][what], found[f"original {way.split()[1]}"][what]
        lines.append(f"| {way} | {value:.{digits}f} | {same / value:.2f} | {found[first_way][what] / value:.2f} |")
    if optimizer:
        first, last = found["optimizer"]["original"], found["optimizer"]["ours"]
        lines.append(f"\nAdamW on its own: original {first:.3f} s, ours {last:.3f} s ({first / last:.2f})")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--stage", type=int, choices=[1, 2], default=1, help="2 stands for stages 2 to 5")
    made.add_argument("--batch", type=int, default=2, help="rows of a micro-batch")
    made.add_argument("--questions", type=int, default=1, help="rows about the same clip; ours packs them behind it")
    made.add_argument("--text", type=int, default=32, help="ids of a row's text")
    made.add_argument("--width", type=int, default=4096, help="of the language model")
    made.add_argument("--inner", type=int, default=1024, help="of its feed-forward")
    made.add_argument("--vocabulary", type=int, default=256)
    made.add_argument("--encoder", type=int, default=768, help="width of the audio tower")
    made.add_argument("--encoder-layers", type=int, default=12, help="of encoder and Q-Former")
    made.add_argument("--frames", type=int, default=1024)
    made.add_argument("--repeats", type=int, default=5)
    made.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    made.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    made.add_argument("--precision", choices=["fp32", "bf16"], help="this one alone, which takes less memory")
    made.add_argument("--optimizer", action="store_true", help="time AdamW's own step as well")
    made.add_argument("--memory", action="store_true", help="peak memory instead of time")
    made.add_argument("--json", action="store_true")
    made.add_argument("--markdown", action="store_true", help="a table (the default)")
    made.add_argument("--measure", choices=WAYS, help=argparse.SUPPRESS)
    return made


def main() -> None:
    given = parser().parse_args()
    if given.batch % given.questions:
        parser().error("--batch must be a multiple of --questions")
    torch.set_num_threads(given.threads)
    case = Case(**{name: getattr(given, name) for name in Case.__dataclass_fields__})
    if given.measure:
        print(json.dumps(memory_of(case, given.measure)))
        return
    ways = [way for way in WAYS if given.precision in (None, way.split()[1])]
    clock = time.perf_counter if given.clock == "wall" else time.process_time
    optimizer = given.optimizer and not given.memory
    found = (
        memories(ways, sys.argv[1:]) if given.memory else timed(case, ways, given.repeats, clock, optimizer=optimizer)
    )
    print(json.dumps(found, indent=2) if given.json else table(case, found, optimizer=optimizer))


if __name__ == "__main__":
    main()
