"""Memory and time of a full-size 7B model in few bits: quantized while loading, stored, and read again.

Writes a model of generated weights (14 GB in bfloat16), then watches four processes, each of which ends when the model
is ready: loading with ``--quant``, ``gama quantize``, loading what that wrote, and an empty one to compare with. The
memory that counts is anonymous (RssAnon); mapped files can be dropped by the system at any time.

    python benchmarks/quantized_loading.py --folder /big/disk --quant 4bit
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import torch
from conversion_memory import generated, watched

from gama.checkpoints import shards
from gama.checkpoints.architecture import expected_shapes
from gama.checkpoints.bundled import model_folder
from gama.model.configuration import GamaConfig

_BESIDE = ("tokenizer.json", "tokenizer_config.json", "processor_config.json", "generation_config.json")
_LOAD = """
import sys
from gama.inference.loading import load_model
from gama.quantization.settings import weight_bytes
model, _ = load_model(sys.argv[1], quant=sys.argv[2], device="cpu", dtype=sys.argv[3])
open(sys.argv[4], "w").write(str(weight_bytes(model)))
"""
_NOTHING = "from gama.inference.loading import load_model; import bitsandbytes, peft"


def write_model(folder: Path, layers: int) -> None:
    """A GAMA of the released sizes in bfloat16; tokenizer and processor are gama-mini's."""
    folder.mkdir(parents=True)
    config = GamaConfig()
    config.text_config.num_hidden_layers = layers
    config.architectures = ["GamaForConditionalGeneration"]
    for part in (config, config.text_config, config.audio_config, config.qformer_config):
        if part is not None:
            part.dtype = torch.bfloat16
    shapes, tied = expected_shapes(config)
    shards.SHARD = 2 * 10**9
    entries = [
        shards.Entry(n, s, torch.bfloat16, lambda n=n, s=s: generated(n, s))  # type: ignore[misc]
        for n, s in shapes.items()
        if n not in tied
    ]
    shards.write(folder, entries)
    config.save_pretrained(folder)
    for name in _BESIDE:
        shutil.copy(model_folder() / name, folder)


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where 20 GB are free")
    parser.add_argument("--quant", choices=["4bit", "8bit"], default="4bit")
    parser.add_argument("--dtype", default="auto", help="precision of what is not quantized")
    parser.add_argument("--layers", type=int, default=32, help="layers of the language model")
    options = parser.parse_args()
    folder = options.folder / "quantized-loading"
    folder.mkdir(parents=True)
    try:
        whole, few, told = folder / "whole", folder / "few", folder / "bytes"
        write_model(whole, options.layers)
        load = [sys.executable, "-c", _LOAD]
        found = {"nothing": watched([sys.executable, "-c", _NOTHING])}
        found["load, quantizing"] = watched([*load, str(whole), options.quant, options.dtype, str(told)])
        held = int(told.read_text())
        command = [sys.executable, "-m", "gama_cli.main", "quantize", str(whole), "-o", str(few)]
        found["gama quantize"] = watched([*command, "--quant", options.quant])
        found["load what is stored"] = watched([*load, str(few), "none", options.dtype, str(told)])
        sizes = {"before": size(whole), "stored": size(few), "held": held, "held, read": int(told.read_text())}
        shard = max(file.stat().st_size for file in whole.glob("*.safetensors"))
        print(json.dumps({"quant": options.quant, "layers": options.layers, **found, "bytes": sizes, "shard": shard}))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
