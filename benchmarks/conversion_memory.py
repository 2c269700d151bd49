"""How much memory ``gama convert`` takes for the full-size model, on files of generated weights.

Writes a stage checkpoint (708 tensors, 1 GB) and a LLaMA-2-7B folder (13.5 GB, float16) into a folder, converts them to
bfloat16 while watching the process, compares every tensor of the result with its sources, and removes everything.

    python benchmarks/conversion_memory.py --folder /big/disk --dtype bf16
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from gama.checkpoints import shards
from gama.checkpoints.reading import read_shards
from gama.model.configuration import GamaConfig

KEYS = Path(__file__).resolve().parents[1] / "tests" / "parity" / "original_keys.json"
SAVED = ("lora", "audio", "qformer", "Qformer", "query_tokens")
PREFIX = "base_model.model."
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
NOISE = torch.randn(2**22, generator=torch.Generator().manual_seed(5)) * 0.02


def generated(name: str, shape: tuple[int, ...]) -> Iterator[Tensor]:
    """Rows of a tensor that depends on its name, without holding it whole."""
    width = max(1, math.prod(shape[1:]))
    step = max(1, len(NOISE) // width)
    start = sum(name.encode()) * 7919 % len(NOISE)
    noise = NOISE.roll(-start)
    for row in range(0, shape[0], step):
        count = min(step, shape[0] - row)
        needed = count * width
        flat = noise[:needed] if needed <= len(noise) else noise.repeat(math.ceil(needed / len(noise)))[:needed]
        yield flat.view(count, *shape[1:])


def write_base(folder: Path, layers: int) -> None:
    """A LLaMA-2-7B folder of float16 shards."""
    folder.mkdir(parents=True)
    config = AutoConfig.for_model(**GamaConfig().text_config.to_dict() | {"num_hidden_layers": layers})
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {word: index for index, word in enumerate(["<unk>", "<s>", "</s>", *letters])}
    tokenizer = Tokenizer(models.BPE(words, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    with torch.device("meta"):
        shapes = {n: tuple(t.shape) for n, t in AutoModelForCausalLM.from_config(config).state_dict().items()}
    shards.write(
        folder,
        [shards.Entry(n, s, torch.float16, lambda n=n, s=s: generated(n, s)) for n, s in shapes.items()],
    )


def write_stage(path: Path, layers: int) -> None:
    """A stage checkpoint with LoRA in every layer."""
    shapes = {k: tuple(s) for k, s in json.loads(KEYS.read_text()).items() if any(word in k for word in SAVED)}
    for key in [k for k in shapes if ".lora_" in k and ".layers.0." in k]:
        shapes |= {key.replace(".layers.0.", f".layers.{i}."): shapes[key] for i in range(layers)}
    torch.save({PREFIX + key: torch.cat(list(generated(key, shape))) for key, shape in shapes.items()}, path)


def watched(command: list[str]) -> dict[str, float]:
    """Run a command; peaks of its memory in GB and its seconds."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peaks = {"RssAnon": 0, "RssFile": 0}
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        for name in peaks:
            if found := re.search(rf"{name}:\s+(\d+) kB", status):
                peaks[name] = max(peaks[name], int(found.group(1)))
        time.sleep(0.02)
    if process.wait() != 0:
        raise SystemExit(f"gama convert failed with status {process.returncode}")
    return {name: kilobytes * 1024 / 1e9 for name, kilobytes in peaks.items()} | {"seconds": time.monotonic() - began}


def compare(out: Path, base: Path, stage: Path, dtype: torch.dtype) -> int:
    """Compare every tensor of the result with its sources; returns how many."""
    report = json.loads((out / "conversion.json").read_text())
    loaded = {(f["detail"]): (f["role"], f["key"]) for f in report["fates"] if f["what"] == "loaded"}
    weights = {"base": read_shards(base), "audio": torch.load(stage, weights_only=True, mmap=True)}
    made = read_shards(out)
    lora = {f["detail"] for f in report["fates"] if f["what"] == "lora"}
    assert set(made) == set(loaded)
    for name, tensor in made.items():
        role, key = loaded[name]
        source = weights[role][key]
        module = name.removesuffix(".weight")
        assert tensor.dtype == dtype and tensor.shape == source.shape, name
        if module in lora:
            root = f"{PREFIX}{module.removeprefix('language_model.')}"
            a, b = (weights["audio"][f"{root}.lora_{part}.default.weight"] for part in "AB")
            rows = slice(1000, 1064)
            want = (source[rows].float() + 2.0 * (b[rows] @ a)).to(dtype)
            torch.testing.assert_close(tensor[rows], want, atol=1e-3, rtol=1e-2)
            assert not torch.equal(tensor[rows], source[rows].to(dtype)), name
        else:
            assert all(
                torch.equal(x, y.to(dtype)) for x, y in zip(shards.rows(tensor), shards.rows(source), strict=True)
            )
    return len(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where 30 GB are free")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--layers", type=int, default=32, help="layers of the language model")
    options = parser.parse_args()
    folder = options.folder / "conversion-memory"
    folder.mkdir(parents=True)
    try:
        base, stage, out = folder / "base", folder / "pytorch_model.bin", folder / "out"
        write_base(base, options.layers)
        write_stage(stage, options.layers)
        command = [sys.executable, "-m", "gama_cli.main", "convert", "--audio", str(stage), "--base", str(base)]
        peaks = watched([*command, "-o", str(out), "--dtype", options.dtype])
        tensors = compare(out, base, stage, DTYPES[options.dtype])
        sizes = {p.name: sum(f.stat().st_size for f in p.glob("*.safetensors")) / 1e9 for p in (base, out)}
        result = {"dtype": options.dtype, "layers": options.layers, "tensors": tensors, **peaks, "gigabytes": sizes}
        print(json.dumps(result | {"stage": stage.stat().st_size / 1e9}))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
