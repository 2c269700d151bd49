"""GPTQ: 4 bits chosen by what the language model reads (arXiv:2210.17323), by transformers' GPTQConfig and optimum."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from gama.checkpoints.file_hashes import record
from gama.checkpoints.folders import check_output, staged
from gama.data import manifest
from gama.errors import DeviceError, GamaError, MissingPackageError
from gama.model.configuration import GamaConfig
from gama.model.gama import GamaForConditionalGeneration
from gama.model.processing import GamaProcessor
from gama.prompt import Turn, instruction, plain, render
from gama.quantization.storing import Stored, check_source

PASSAGES = 128
"""Passages that are read, as in the paper."""

_LONGEST = 2048  # tokens of a passage
_BLOCKS = "language_model.model.layers"
_BEFORE = ["language_model.model.embed_tokens"]
_MANIFESTS = (".json", ".jsonl")


def check_packages() -> None:
    """Refuse GPTQ where what it needs is not installed.

    Raises:
        MissingPackageError: naming the package.
    """
    for name in ("optimum", "gptqmodel"):
        if find_spec(name) is None:
            raise MissingPackageError(f"GPTQ needs the package {name}", "pip install 'gama-audio[gptq]'")


def quantize_gptq(folder: Path, out: Path, *, calibration: Path) -> Stored:
    """Write the model of ``folder`` to ``out`` with its language model in 4 bits of GPTQ.

    Args:
        folder: a model in 16 or 32 bits; it has to fit the GPU.
        out: a folder that does not exist yet, or is empty.
        calibration: what the language model reads meanwhile; see :func:`passages`.

    Raises:
        CheckpointError: for a folder that cannot be quantized.
        MissingPackageError: without optimum and gptqmodel.
        DeviceError: without a GPU.
        GamaError: for a calibration file without text.
    """
    check_source(folder)
    check_output(out)
    texts = passages(calibration)
    check_packages()
    if not torch.cuda.is_available():
        raise DeviceError("GPTQ quantizes on a GPU, and PyTorch sees none", "--quant 4bit does without")
    processor = GamaProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    model = _quantized(folder, texts, processor.tokenizer)
    with staged(out) as made:
        model.save_pretrained(made, max_shard_size="1GB")
        processor.save_pretrained(made)
        record(made)
        files = sorted(made.glob("*.safetensors"))
        written = sum(file.stat().st_size for file in files)
    read = sum(file.stat().st_size for file in folder.glob("model*.safetensors"))
    layers = sum(hasattr(module, "qweight") for module in model.modules())
    return Stored("gptq", layers, read, written, tuple(file.name for file in files))


def passages(calibration: Path) -> list[str]:
    """At most :data:`PASSAGES` texts: the questions and answers of a manifest as prompts, or the lines of a text file.

    Raises:
        GamaError: for a file without any.
        ManifestError: for a manifest that is none.
    """
    if calibration.suffix in _MANIFESTS:
        texts = [_spoken(row) for row in manifest.read(calibration)[:PASSAGES]]
    else:
        lines = calibration.read_text(encoding="utf-8", errors="replace").splitlines()
        texts = [line.strip() for line in lines if line.strip()][:PASSAGES]
    if not texts:
        raise GamaError(f"{calibration}: holds no text to calibrate with", "give a manifest, or lines of text")
    return texts


def _spoken(row: manifest.Row) -> str:
    return plain(render([Turn("user", instruction(row.instruction, input=row.input))])) + row.output


def _quantized(folder: Path, texts: list[str], tokenizer: Any) -> GamaForConditionalGeneration:
    from transformers import GPTQConfig

    config = GamaConfig.from_pretrained(folder, local_files_only=True)
    config.use_cache = False  # optimum reads it from the outer configuration
    recipe = GPTQConfig(
        bits=4,
        tokenizer=tokenizer,
        dataset=texts,
        group_size=128,
        block_name_to_quantize=_BLOCKS,
        module_name_preceding_first_block=_BEFORE,
        model_seqlen=min(_LONGEST, config.text_config.max_position_embeddings),
    )
    model = GamaForConditionalGeneration.from_pretrained(
        folder,
        config=config,
        quantization_config=recipe,
        dtype=torch.float16,
        device_map={"": torch.device("cuda", torch.cuda.current_device())},
        local_files_only=True,
        use_safetensors=True,
    )
    made = model.config.quantization_config
    made.dataset = made.tokenizer = None  # what it was calibrated with is nobody else's
    return model
