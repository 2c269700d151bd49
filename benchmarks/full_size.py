"""Stages 1 to 5 of the full-size architecture with a two-layer language model, by the real recipe files.

    python benchmarks/full_size.py --folder /tmp/full-size --recipe gama

Makes a base of random weights (audio encoder, Q-Former, aggregator and projectors of the released sizes, LLaMA's
widths, two of its 32 layers), a few scenes, and runs each stage for one step of one row, from the output of the stage
before, in adapter form. Prints seconds and the peak of the process's own memory (pages of mapped files are not its own)
beside what the plan says: with ``--set gradient_accumulation_steps=2`` gradients and activations meet, as in a real
run. Needs 12 GB of memory and as much of disk. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import yaml
from plan import GAMA, own_pages

LIMITS = ("max_steps=1", "per_device_train_batch_size=1", "gradient_accumulation_steps=1")
_POLL = 0.05  # seconds


def write_base(folder: Path, aggregator: str) -> None:
    """A model of random weights with two layers, and gama-mini's tokenizer."""
    import torch

    from gama.checkpoints.bundled import model_folder
    from gama.model.configuration import GamaConfig
    from gama.model.gama import GamaForConditionalGeneration
    from gama.model.processing import GamaFeatureExtractor, GamaProcessor

    torch.manual_seed(0)
    text = GamaConfig().text_config.to_dict() | {"num_hidden_layers": 2}
    config = GamaConfig(text_config=text, aggregator=aggregator)
    tokenizer = GamaProcessor.from_pretrained(model_folder("mini")).tokenizer
    ids = {"audio_token_id": config.audio_token_id, "num_audio_tokens": config.num_audio_tokens}
    GamaProcessor(GamaFeatureExtractor(), tokenizer, **ids).save_pretrained(folder)
    GamaForConditionalGeneration(config).save_pretrained(folder)


def run(words: list[str], folder: Path) -> tuple[float, int, str]:
    """Seconds, the most memory of its own in bytes, and what it said."""
    begun, peak = time.monotonic(), 0
    process = subprocess.Popen([*GAMA, "train", *words], cwd=folder, stderr=subprocess.PIPE, text=True)
    while process.poll() is None:
        try:
            peak = max(peak, own_pages(process.pid))
        except (FileNotFoundError, ProcessLookupError):
            break
        time.sleep(_POLL)
    _, said = process.communicate()
    if process.returncode:
        raise SystemExit(said)
    return time.monotonic() - begun, peak, said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--recipe", default="gama", choices=["gama", "paper"])
    parser.add_argument("--set", dest="more", action="append", default=[], help="further settings of every stage")
    given = parser.parse_args()
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    folder = given.folder.resolve()
    folder.mkdir(parents=True)
    write_base(folder / "base", "released" if given.recipe == "gama" else "paper")
    scenes = [*GAMA, "prepare", "scenes", "--count", "4", "--seed", "1", "--out", "scenes"]
    subprocess.run(scenes, cwd=folder, check=True, capture_output=True)
    print("| stage | s | s of a step, planned | actual | GiB, planned | peak | loss |")
    print("|---|---|---|---|---|---|---|")
    for stage in range(1, 6):
        words = ["--recipe", given.recipe, "--stage", str(stage), "--data", "scenes/manifest.json"]
        words += ["--from", "base"] if stage == 1 else []
        words += [word for change in (*LIMITS, *given.more) for word in ("--set", change)]
        seconds, peak, said = run(words, folder)
        used = yaml.safe_load((folder / "runs" / given.recipe / f"stage{stage}" / "recipe.yaml").read_text())
        rows = used["per_device_train_batch_size"] * used["gradient_accumulation_steps"]
        output = folder / "runs" / given.recipe / f"stage{stage}"
        line = json.loads((output / "metrics.jsonl").read_text().splitlines()[-1])
        planned = re.search(r"memory ([\d.]+) GiB", said)
        size = planned[1] if planned else "?"
        guessed = re.search(r"([\d.]+) s a step", said)
        times = guessed[1] if guessed else "?", f"{rows / line['rows_per_s']:.1f}"
        row = (str(stage), f"{seconds:.0f}", *times, size, f"{peak / 2**30:.2f}", f"{line['loss']:.3f}")
        print(f"| {' | '.join(row)} |", flush=True)
        shutil.rmtree(output / "checkpoint-1", ignore_errors=True)  # gigabytes of optimizer states
        if missing := {"audio_tower.safetensors", "base.json"} - {file.name for file in output.iterdir()}:
            raise SystemExit(f"stage {stage} left no {', '.join(sorted(missing))}")


if __name__ == "__main__":
    main()
