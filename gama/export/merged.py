"""LoRA added to the language model, and the language model alone as a plain transformers folder for other servers.

The folder that is written::

    language_model/   config, safetensors, tokenizer, for AutoModelForCausalLM, vLLM, TGI, llama.cpp's converter
    audio_tower/      everything else: fbank -> prefix, with GAMA's configuration and processor
    parity.json       how far the two together are from the model they came from
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from gama.checkpoints.file_hashes import record
from gama.errors import CheckpointError
from gama.export.adapter import apply, open_source
from gama.export.folders import free_name, new_folder, readable
from gama.export.language_model import LANGUAGE_MODEL, write_language_model
from gama.export.text_parity import Parity, compare, probe, write_report
from gama.inference.loading import pick_device
from gama.model.configuration import GamaConfig
from gama.model.gama import GamaForConditionalGeneration
from gama.model.processing import GamaProcessor
from gama.model.remote import README
from gama.quiet import quiet_loading
from gama.training.stages import merge_lora

AUDIO_TOWER = "audio_tower"
_WEIGHTS = "audio_tower.safetensors"  # a name that from_pretrained does not take for a whole model's weights
_FORMER_WEIGHTS = "model.safetensors"


def export_merged(
    model: str | Path | None,
    output: Path,
    *,
    adapter: Path | None = None,
    dtype: str = "auto",
    device: str = "auto",
) -> Parity:
    """Write a model's language model, LoRA added, as a plain transformers folder with the audio tower beside it.

    A model without LoRA is written as it is.

    Args:
        model: a name or a folder.
        output: the new folder.
        adapter: where the LoRA lies, if not in the model's folder.
        dtype: ``auto`` (as it is stored), ``float32``, ``bfloat16`` or ``float16``.
        device: where to add and compare.

    Raises:
        CheckpointError: for LoRA of another model, an output that exists.
    """
    free_name(output)
    source = open_source(model, adapter)
    stored = source.stored if dtype == "auto" else dtype
    gama, processor = source.load(device)
    if source.adapter is not None:
        apply(gama, source.adapter)
    probes = probe(gama, processor)
    computed = next(gama.audio_tower.parameters()).dtype
    if source.adapter is not None:
        merge_lora(gama)
    facts = {
        "kind": "merged",
        "source": str(source.folder),
        "license": gama.config.license,
    }
    facts["adapter"] = None if source.adapter is None else str(source.adapter.folder)
    with new_folder(output) as work:
        write_language_model(gama, processor, work / LANGUAGE_MODEL, getattr(torch, stored))
        write_audio_tower(gama, processor, work / AUDIO_TOWER, getattr(torch, stored))
        del gama
        again = join(work, dtype=computed).to(pick_device(device))
        parity = compare(again, probes, stored=getattr(torch, stored))
        write_report(work, parity, facts)
        record(work)
    return parity


def write_audio_tower(
    gama: GamaForConditionalGeneration, processor: GamaProcessor, folder: Path, dtype: torch.dtype
) -> None:
    """Write everything but the language model: audio tower, GAMA's configuration and processor."""
    folder.mkdir(parents=True)
    state = gama.state_dict()
    own = {n: t.to(dtype).contiguous() for n, t in state.items() if not n.startswith(f"{LANGUAGE_MODEL}.")}
    save_file(own, folder / _WEIGHTS, metadata={"format": "pt"})
    gama.config.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / README).unlink()  # it tells how to open a whole model
    readable(folder)


def load_audio_tower(
    folder: Path, *, dtype: torch.dtype = torch.float32
) -> tuple[GamaForConditionalGeneration, GamaProcessor]:
    """What stands in front of the language model: ``get_audio_features`` makes prefixes, nothing else works.

    Args:
        folder: ``audio_tower`` as :func:`export_merged` writes it.

    Raises:
        CheckpointError: for a folder with other weights.
    """
    config = GamaConfig.from_pretrained(folder, local_files_only=True)
    with torch.device("meta"):
        model = GamaForConditionalGeneration(config)
    model.language_model = nn.Identity()  # it was never given weights
    file = next((folder / n for n in (_WEIGHTS, _FORMER_WEIGHTS) if (folder / n).is_file()), folder / _WEIGHTS)
    weights = {name: tensor.to(dtype) for name, tensor in load_file(file).items()}
    expected = set(model.state_dict())
    if differing := expected ^ set(weights):
        raise CheckpointError(f"{folder}: {len(differing)} weight(s) are missing or too many: {min(differing)}")
    model.load_state_dict(weights, assign=True)
    processor = GamaProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return model.eval(), processor


def join(folder: Path, *, dtype: torch.dtype) -> GamaForConditionalGeneration:
    """The whole model of an exported folder: AutoModelForCausalLM's language model behind the audio tower."""
    from transformers import AutoModelForCausalLM

    model, _ = load_audio_tower(folder / AUDIO_TOWER, dtype=dtype)
    with quiet_loading(progress=False):
        model.language_model = AutoModelForCausalLM.from_pretrained(
            folder / LANGUAGE_MODEL, dtype=dtype, local_files_only=True, trust_remote_code=False
        )
    return model.eval()
