"""What an exported graph says about itself: model, lineage, licence, shapes, precision."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gama import __version__
from gama.fbank import SAMPLE_RATE
from gama.inference.engine import Gama


def describe(gama: Gama, folder: Path) -> dict[str, str]:
    """Facts of the model that every part and precision shares."""
    config = gama.model.config
    encoder = config.audio_config
    return {
        "gama.version": __version__,
        "gama.model": gama.name,
        "gama.model_sha256": model_hash(folder),
        "gama.license": config.license or "not stated",
        "gama.lineage": json.dumps(config.lineage),
        "gama.sample_rate": str(SAMPLE_RATE),
        "gama.fbank": json.dumps([encoder.num_frames, encoder.num_mel_bins]),
        "gama.prefix": json.dumps([config.num_audio_tokens, config.text_config.hidden_size]),
        "gama.aggregator": config.aggregator,
    }


def model_hash(folder: Path) -> str:
    """SHA-256 over the model's weight files, in the order of their names."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as opened:
            while block := opened.read(2**24):
                digest.update(block)
    return digest.hexdigest()


def write_metadata(graph: Any, facts: Mapping[str, str]) -> None:
    """Put facts into an ``onnx.ModelProto``; a fact that is there is replaced."""
    merged = {**{entry.key: entry.value for entry in graph.metadata_props}, **facts}
    del graph.metadata_props[:]
    for key, value in merged.items():
        graph.metadata_props.add(key=key, value=value)
    graph.producer_name, graph.producer_version = "gama", __version__
    graph.doc_string = "Audio front end of a GAMA model" if "gama.part" in facts else ""
