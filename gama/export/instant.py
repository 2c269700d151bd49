"""The whole model as two graphs for the instant engine, which share the weights of the checkpoint beside them."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gama.atomic import replacing, write_errors
from gama.checkpoints.file_hashes import record
from gama.errors import CheckpointError
from gama.export.graphs import LanguageModelGraph
from gama.export.metadata import describe, write_metadata
from gama.export.onnx import front_end_graph
from gama.export.tracing import DEFAULT_OPSET, axis, import_onnx, trace
from gama.inference.engine import Gama
from gama.inference.engine import load as load_torch
from gama.instant.engine import FRONT_END, LANGUAGE_MODEL
from gama.instant.weights import WEIGHTS, header_hash
from gama.prompt import Mark

_SMALL = 64  # values; a smaller constant is not worth pointing at a file
_ONNX_TYPES = {"F32": "FLOAT", "F16": "FLOAT16", "BF16": "BFLOAT16"}


@dataclass(frozen=True)
class StoredTensor:
    """Where a weight lies in the safetensors file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int


def export_instant(folder: Path, *, opset: int = DEFAULT_OPSET, say: Callable[[str], None] = lambda _: None) -> None:
    """Write ``front_end.onnx`` and ``language_model.onnx`` into a model's folder.

    No weight is stored twice: the graphs' weights are external data that lie in ``model.safetensors`` (16-bit ones
    are cast to float32 in the graph, once, when a session is created). So the graphs belong to that very file.

    Args:
        folder: a folder of ``save_pretrained`` with one ``model.safetensors``.
        say: called with one line a graph.

    Raises:
        CheckpointError: where the folder holds no such model, or its language model is not of the LLaMA kind.
    """
    import_onnx()
    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(f"{folder} has no {WEIGHTS}", "the instant graphs point into one file of weights")
    gama = load_torch(folder, device="cpu", dtype="float32")
    stored = _Stored(folder / WEIGHTS, gama)
    facts = {**describe(gama, folder), "gama.instant": json.dumps(_facts(gama, folder))}
    with write_errors(tempfile.gettempdir()), tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        graphs = {
            FRONT_END: front_end_graph(gama.model, place, opset=opset),
            LANGUAGE_MODEL: language_model_graph(gama, place, opset=opset),
        }
    for name, graph in graphs.items():
        inline = stored.share(graph)
        write_metadata(graph, facts)
        data = graph.SerializeToString()
        _write(folder / name, data)
        record(folder, only=(name,))
        say(f"{folder / name}: {len(data) / 1e6:.2f} MB, of them {inline / 1e6:.2f} MB weights of its own")


def language_model_graph(gama: Gama, scratch: Path, *, opset: int) -> Any:
    """The language model with its cache as an ``onnx.ModelProto``."""
    model = gama.model
    graph = LanguageModelGraph(model)
    width = model.config.text_config.hidden_size
    inputs = {
        "input_ids": torch.tensor([[model.config.audio_token_id, 1, 2, 3, 4]]),
        "prefix": torch.zeros(3, width),
        "past": torch.zeros(graph.layers, 2, 1, graph.heads, 7, graph.width),
    }
    axes = {
        "input_ids": {1: axis("tokens")},
        "prefix": {0: axis("soft_tokens")},
        "past": {4: axis("past", at_least=0)},
    }
    return trace(graph, inputs, axes, ["logits", "present"], scratch / LANGUAGE_MODEL, opset=opset)


def _facts(gama: Gama, folder: Path) -> dict[str, Any]:
    """What the instant engine would else read from transformers' configurations."""
    return {
        "weights_header": header_hash(folder / WEIGHTS),
        "audio_token_id": gama.model.config.audio_token_id,
        "num_audio_tokens": gama.num_audio_tokens,
        "hidden_size": gama.model.config.text_config.hidden_size,
        "context": gama.context,
        "stop_ids": gama.stop_ids,
        "bos_ids": gama.encode([Mark("bos")]),
        "eos_id": gama.tokenizer.eos_token_id,
        "template": gama.template,
    }


class _Stored:
    """The tensors of a safetensors file, found by their values."""

    def __init__(self, path: Path, gama: Gama) -> None:
        self.path = path
        weights = {name: tensor.detach().float().numpy() for name, tensor in gama.model.state_dict().items()}
        self._by_values: dict[tuple[tuple[int, ...], str], tuple[StoredTensor, bool]] = {}
        for tensor in stored_tensors(path):
            values = weights[tensor.name]
            if tensor.dtype in _ONNX_TYPES and values.size >= _SMALL:
                if values.ndim == 2:
                    self._by_values[_key(values.T)] = (tensor, True)
                self._by_values[_key(values)] = (tensor, False)

    def share(self, graph: Any) -> int:
        """Let the graph's weights point into the file; returns the bytes that stay in the graph."""
        kept: list[Any] = []
        casts: list[Any] = []
        for initializer in graph.graph.initializer:
            values = import_onnx().numpy_helper.to_array(initializer)
            found = self._by_values.get(_key(values)) if values.dtype == np.float32 else None
            if found is None:
                kept.append(initializer)
            else:
                kept.append(self._pointer(*found))
                casts += _restored(initializer.name, *found)
        pointers = {tensor.name: tensor for tensor in kept}  # tied weights are found twice and stored once
        nodes = list(graph.graph.node)
        del graph.graph.initializer[:], graph.graph.node[:]
        graph.graph.initializer.extend(pointers.values())
        graph.graph.node.extend([*casts, *nodes])
        return sum(len(tensor.raw_data) for tensor in pointers.values())

    def _pointer(self, stored: StoredTensor, transposed: bool) -> Any:
        onnx = import_onnx()
        pointer = onnx.TensorProto(
            name=f"weights/{stored.name}",
            data_type=getattr(onnx.TensorProto, _ONNX_TYPES[stored.dtype]),
            dims=stored.shape,
            data_location=onnx.TensorProto.EXTERNAL,
        )
        for key, value in (("location", WEIGHTS), ("offset", stored.offset), ("length", stored.length)):
            pointer.external_data.add(key=key, value=str(value))
        return pointer


def _key(values: np.ndarray) -> tuple[tuple[int, ...], str]:
    return values.shape, hashlib.sha256(np.ascontiguousarray(values, dtype=np.float32).tobytes()).hexdigest()


def _restored(name: str, stored: StoredTensor, transposed: bool) -> Iterator[Any]:
    """Nodes from the stored tensor to the float32 one of the graph; onnxruntime runs them once, at load."""
    helper = import_onnx().helper
    source, float_type = f"weights/{stored.name}", import_onnx().TensorProto.FLOAT
    target = f"{name}/stored" if transposed else name
    yield helper.make_node("Cast", [source], [target], name=f"cast/{name}", to=float_type)
    if transposed:
        yield helper.make_node("Transpose", [target], [name], name=f"transpose/{name}", perm=[1, 0])


def stored_tensors(path: Path) -> list[StoredTensor]:
    """The table of contents of a safetensors file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    found = []
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            found.append(StoredTensor(name, entry["dtype"], tuple(entry["shape"]), 8 + length + begin, end - begin))
    return found


def _write(path: Path, data: bytes) -> None:
    with replacing(path) as partial:
        partial.write_bytes(data)
        import_onnx().checker.check_model(str(partial))
