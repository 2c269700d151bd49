"""What a model folder says of itself, compared with its own files before anything is built of it. No torch.

transformers builds what ``config.json`` describes and then looks for weights; a configuration of a million layers, or
weights of another kind of numbers, is told here from the headers of the weight files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gama.checkpoints.file_hashes import check_files
from gama.checkpoints.json_files import read_table
from gama.checkpoints.safetensors_header import FLOATING, Place, read_header
from gama.checkpoints.stand_ins import check_stand_ins
from gama.errors import CheckpointError

SAMPLING_RATE = 16_000
"""Of every clip a model hears; the filterbank of its features is made for it."""

EMBEDDING = "language_model.model.embed_tokens.weight"
HEAD = "language_model.lm_head.weight"

_READ = (".json", ".safetensors", ".onnx", ".model", ".jinja", ".txt", ".bin")
_COUNTERS = ".num_batches_tracked"  # of batch norms: integers by their nature
_LARGEST = 2**31 - 1


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a GAMA model's folder, after what costs little has been compared.

    Raises:
        CheckpointError: for another kind of model, a pointer or a web page in place of a file, a file that was changed
            since the folder was written, and numbers that no model has.
    """
    file = folder / "config.json"
    config = read_table(file)
    kind = config.get("model_type")
    if kind != "gama":
        raise CheckpointError(f"{folder}: holds a model of type {str(kind)[:40]!r}, 'gama' was expected")
    check_stand_ins(folder, _READ)
    check_files(folder)
    _check_numbers(config, file, "")
    return config


def _check_numbers(value: Any, file: Path, name: str) -> None:
    """No size is negative or beyond 31 bits."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_numbers(inner, file, str(key))
    elif isinstance(value, list):
        for inner in value:
            _check_numbers(inner, file, name)
    elif type(value) is int and abs(value) > _LARGEST:
        raise CheckpointError(f"{file}: {name} is a number of {len(str(value))} digits, which no model has")


def check_weights(folder: Path, config: Mapping[str, Any], files: Iterable[Path], *, quantized: bool) -> None:
    """Compare a configuration with the headers of its weight files.

    Args:
        folder: of the model, for messages.
        config: its configuration.
        files: of weights, safetensors all of them.
        quantized: whether the language model's layers are stored in few bits.

    Raises:
        CheckpointError: for a configuration of more layers or weights than the files hold, weights stored as integers,
            and a head of its own beside one that is tied to the embedding.
    """
    places = {name: (file, place) for file in files for name, place in read_header(file).items()}
    for name, (file, place) in places.items():
        free = name.endswith(_COUNTERS) or (quantized and name.startswith("language_model.") and ".layers." in name)
        if place.dtype not in FLOATING and not free:
            raise CheckpointError(
                f"{file}: {name} is stored as {place.dtype}, floating-point numbers were expected",
                "convert the model again from its source",
            )
    stored = sum(place.count * (2 if place.dtype == "U8" else 1) for _, place in places.values())
    _check_size(folder, config, len(places), stored)
    _check_head(folder, config, places)


def _check_size(folder: Path, config: Mapping[str, Any], tensors: int, stored: int) -> None:
    parts = {name: part for name, part in config.items() if name.endswith("_config") and isinstance(part, Mapping)}
    for name, part in parts.items():
        layers = _whole(part, "num_hidden_layers")
        if layers > tensors:
            raise CheckpointError(
                f"{folder}: config.json describes {layers:,} layers ({name}), its weights are {tensors:,} tensors",
                "the configuration is another model's: get it again",
            )
    described = sum(map(_least, parts.values()))
    if described > stored:
        raise CheckpointError(
            f"{folder}: config.json describes a model of at least {described:,} weights, its files hold {stored:,}",
            "the configuration is another model's: get it again",
        )


def _least(part: Mapping[str, Any]) -> int:
    """How many weights a transformer of these sizes has at least: embedding, attention, feed-forward layers."""
    width, deep = _whole(part, "hidden_size"), _whole(part, "intermediate_size")
    queries = _whole(part, "num_attention_heads")
    each = _whole(part, "head_dim") or width // max(1, queries)
    heads = each * (queries + _whole(part, "num_key_value_heads"))
    patch = _whole(part, "patch_size") or 1
    patches = (_whole(part, "num_frames") // patch) * (_whole(part, "num_mel_bins") // patch)
    rows = _whole(part, "vocab_size") + _whole(part, "num_query_tokens") + patches
    return width * (rows + _whole(part, "num_hidden_layers") * (deep + heads)) + _stem(part)


def _stem(part: Mapping[str, Any]) -> int:
    channels = part.get("stem_channels")
    widths = [n for n in channels if type(n) is int] if isinstance(channels, list) else []
    return sum(a * b for a, b in zip(widths, widths[1:], strict=False))


def _whole(part: Mapping[str, Any], name: str) -> int:
    value = part.get(name)
    return value if type(value) is int and value > 0 else 0


def _check_head(folder: Path, config: Mapping[str, Any], places: Mapping[str, tuple[Path, Place]]) -> None:
    text = config.get("text_config")
    tied = config.get("tie_word_embeddings", text.get("tie_word_embeddings") if isinstance(text, Mapping) else None)
    if tied is not True or HEAD not in places or EMBEDDING not in places:
        return
    if _bytes(*places[HEAD]) != _bytes(*places[EMBEDDING]):
        raise CheckpointError(
            f"{folder}: holds {HEAD}, and config.json ties the head to the embedding, which has other numbers",
            "leave the head out, or set tie_word_embeddings to false",
        )


def _bytes(file: Path, place: Place) -> bytes:
    with file.open("rb") as opened:
        opened.seek(place.begin)
        return opened.read(place.end - place.begin)


def check_processor(folder: Path, *, audio_token_id: int, num_audio_tokens: int) -> None:
    """Compare ``processor_config.json`` with what the model reads.

    Raises:
        CheckpointError: naming the value that differs.
    """
    file = folder / "processor_config.json"
    if not file.is_file():
        return
    table = read_table(file)
    extractor = table.get("feature_extractor")
    given = {**(extractor if isinstance(extractor, Mapping) else {}), **table}
    expected = {"sampling_rate": SAMPLING_RATE, "audio_token_id": audio_token_id, "num_audio_tokens": num_audio_tokens}
    for name, value in expected.items():
        check_value(str(file), name, given.get(name, value), value)


def check_value(where: str, name: str, given: Any, expected: Any) -> None:
    """Refuse a value that is not what the model reads.

    Raises:
        CheckpointError: naming both.
    """
    if given != expected or isinstance(given, bool):
        raise CheckpointError(
            f"{where}: {name} is {str(given)[:60]}, the model reads {expected}",
            "the file is another model's: get it again",
        )
