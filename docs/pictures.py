"""Draws the pictures of the model card; run it from the root of a checkout (needs matplotlib: ``pip install .[plot]``).

gama eval … --answers answers.jsonl
python docs/pictures.py confusion answers.jsonl --out docs/pictures/confusion.png
python docs/pictures.py stages stage1.json stage2.json … --out docs/pictures/stages.png
python docs/pictures.py clip examples/dog_then_bells.flac "What happened?" --out docs/pictures/clip.png
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot

from gama.data.scenes.answers import named

NOTHING = "nothing"


def confusion(answers: list[Path], out: Path) -> None:
    """True class against the class first named in the answer, from files written by ``gama eval --answers``."""
    rows = [json.loads(line) for path in answers for line in path.read_text(encoding="utf-8").splitlines()]
    pairs: Counter[tuple[str, str]] = Counter()
    for row in rows:
        true = named(row["expected"])
        if len(true) == 1:
            said = named(row["answer"])
            # an answer that names the class among others counts for it, as in the figures
            pairs[true[0], true[0] if true[0] in said else said[0] if said else NOTHING] += 1
    labels = sorted({label for pair in pairs for label in pair} - {NOTHING}) + [NOTHING]
    counts = np.array([[pairs[true, said] for said in labels] for true in labels])
    figure, axes = pyplot.subplots(figsize=(9, 8))
    axes.imshow(np.where(counts.any(1, keepdims=True), counts / np.maximum(1, counts.sum(1, keepdims=True)), 0))
    for (y, x), count in np.ndenumerate(counts):
        if count:
            axes.text(x, y, count, ha="center", va="center", fontsize=7, color="black" if x == y else "white")
    axes.set_xticks(range(len(labels)), labels, rotation=90)
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="named in the answer", ylabel="recording", title=f"{sum(pairs.values())} recordings")
    _save(figure, out)


def stages(tables: list[Path], out: Path) -> None:
    """Share of right answers after each stage, from files written by ``gama eval --json``, named by the stage."""
    read = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in tables}
    tasks = [task for task in next(reversed(read.values())) if task != "false refusals"]
    figure, axes = pyplot.subplots(figsize=(9, 5))
    axes.set_prop_cycle(color=pyplot.get_cmap("tab20").colors)  # type: ignore[attr-defined]
    for task in tasks:
        at = [(i, t[task]["accuracy"]) for i, t in enumerate(read.values()) if task in t]
        axes.plot([i for i, _ in at], [100 * share for _, share in at], marker="o", label=task)
    axes.set_xticks(range(len(read)), list(read))
    axes.set(ylabel="right answers, %", ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _save(figure, out)


def clip(path: Path, questions: list[str], out: Path) -> None:
    """The log-mel spectrogram of a clip with questions and the packaged model's answers under it."""
    import torch

    import gama
    from gama import audio
    from gama.fbank import kaldi_fbank

    waveform = audio.load(path)
    frames = 1 + (len(waveform.samples) - 400) // 160
    fbank = kaldi_fbank()(torch.from_numpy(waveform.samples).unsqueeze(0))[0][:frames]
    model = gama.load()
    said = [f"Q: {question}\nA: {model.ask(path, question)}" for question in questions]
    figure, axes = pyplot.subplots(figsize=(9, 4.5))
    axes.imshow(fbank.T.numpy(), origin="lower", aspect="auto", extent=(0, frames / 100, 0, 128), cmap="magma")
    axes.set(xlabel="seconds", ylabel="mel band", title=path.name)
    figure.text(0.1, -0.02, "\n".join(said), va="top", fontsize=11)
    _save(figure, out)


def _save(figure: pyplot.Figure, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110, bbox_inches="tight")
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="picture", required=True)
    for name in ("confusion", "stages"):
        command = commands.add_parser(name)
        command.add_argument("files", nargs="+", type=Path)
        command.add_argument("--out", type=Path, required=True)
    command = commands.add_parser("clip")
    command.add_argument("file", type=Path)
    command.add_argument("questions", nargs="+")
    command.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    if given.picture == "clip":
        clip(given.file, given.questions, given.out)
    else:
        (confusion if given.picture == "confusion" else stages)(given.files, given.out)


if __name__ == "__main__":
    main()
