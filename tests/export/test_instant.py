"""Graphs that share a checkpoint's weights: grouped heads, every width of float, ids of torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from model import small

from gama.audio import Waveform
from gama.errors import CheckpointError
from gama.export import instant as exporting
from gama.export.graphs import LanguageModelGraph
from gama.export.instant import export_instant, stored_tensors
from gama.inference import engine
from gama.inference.asking import Asking, Sampling
from gama.instant.engine import FRONT_END, LANGUAGE_MODEL, Instant
from gama.model.processing import GamaFeatureExtractor, GamaProcessor


def saved(folder: Path, dtype: torch.dtype, **changes: Any) -> Path:
    model = small.model(**changes).to(dtype)
    model.generation_config.eos_token_id = 2
    model.save_pretrained(folder)
    extractor = GamaFeatureExtractor(feature_size=small.BINS, num_frames=small.FRAMES)
    processor = GamaProcessor(
        extractor, small.tokenizer(), audio_token_id=small.VOCABULARY, num_audio_tokens=small.SOFT
    )
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model in bfloat16, two heads of keys for four of queries, with its graphs."""
    place = saved(tmp_path_factory.mktemp("small"), torch.bfloat16, prefix_positions=True)
    export_instant(place)
    return place


def clip(samples: int, seed: int) -> Waveform:
    random = np.random.default_rng(seed)
    return Waveform((0.1 * random.standard_normal(samples)).astype(np.float32), f"clip {seed}", 16_000, 1)


def ids(model: Any, group: list[Waveform], question: str) -> list[int]:
    prompt = model._prompt(group, question, Asking())
    return list(model._tokens(model._read_in(prompt, group), Sampling(max_new_tokens=16)))


def test_ids_are_those_of_torch(folder: Path) -> None:
    ours, theirs = engine.load(folder), Instant(folder)
    for group in ([clip(10_000, 1)], [clip(400, 2), clip(9_000, 3)], []):
        found = ids(theirs, group, "what?")
        assert found == ids(ours, group, "what?") and len(set(found)) > 1


def test_weights_stay_where_they_are(folder: Path) -> None:
    stored = {tensor.name: tensor for tensor in stored_tensors(folder / "model.safetensors")}
    pointed: set[str] = set()
    for name in (FRONT_END, LANGUAGE_MODEL):
        graph = onnx.load(str(folder / name), load_external_data=False).graph
        for tensor in graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                source = stored[tensor.name.removeprefix("weights/")]
                place = {entry.key: entry.value for entry in tensor.external_data}
                assert place["location"] == "model.safetensors" and int(place["offset"]) == source.offset
                assert tensor.data_type == onnx.TensorProto.BFLOAT16 and tuple(tensor.dims) == source.shape
                pointed.add(source.name)
    large = {name for name, tensor in stored.items() if np.prod(tensor.shape) >= 1_000 and "tap_norms" not in name}
    assert large and large <= pointed


def test_grouped_heads_and_the_cache(tmp_path: Path) -> None:
    model = small.model("llama", seed=4)
    graph = LanguageModelGraph(model).eval()
    assert graph.groups == 2
    row, prefix = torch.tensor([small.CLIP + small.WORDS]), torch.randn(small.SOFT, 48)
    past = torch.zeros(graph.layers, 2, 1, graph.heads, 0, graph.width)
    with torch.inference_mode():
        whole, _ = graph(row, prefix, past)
        _, kept = graph(row[:, :-2], prefix, past)
        parts, _ = graph(row[:, -2:], torch.zeros(1, 48), kept)
        expected = model(input_ids=row, audio_features=prefix.unsqueeze(0)).logits[:, -1]
    torch.testing.assert_close(whole, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(parts, expected, atol=1e-4, rtol=1e-4)


def test_other_language_models_are_refused() -> None:
    with pytest.raises(CheckpointError, match="type 'qwen2'; the instant engine runs 'llama' alone.*gama export onnx"):
        LanguageModelGraph(small.model("qwen2"))


def test_several_files_of_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "load_torch", None)
    with pytest.raises(CheckpointError, match="has no model.safetensors"):
        export_instant(tmp_path)
