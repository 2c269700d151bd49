"""Sources -> one folder that ``from_pretrained`` and ``gama ask --model`` take."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, GenerationConfig, PreTrainedConfig

import gama as package
from gama.checkpoints import shards
from gama.checkpoints.architecture import architecture, draw, expected_shapes, language_config
from gama.checkpoints.combining import (
    LANGUAGE_MODEL,
    Combination,
    Fate,
    Role,
    Source,
    check_fit,
    check_kinds,
    combine,
    is_ltu,
    source,
)
from gama.checkpoints.file_hashes import record
from gama.checkpoints.folders import check_output, staged
from gama.checkpoints.names import LORA_ALPHA
from gama.checkpoints.opening import adapter_alpha, opened
from gama.errors import CheckpointError
from gama.model.configuration import AggregatorForm, GamaConfig
from gama.model.processing import GamaFeatureExtractor, GamaProcessor

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
REPORT = "conversion.json"

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Request:
    """What to convert.

    Attributes:
        audio: files or folders of the released code's checkpoints, or LTU's.
        base: folder of the language model.
        encoder: CAV-MAE weights.
        qformer: a Q-Former pretraining checkpoint of LAVIS.
        tokenizer: folder of the tokenizer where it is not the base's.
        dtype: bf16, fp16 or fp32; None keeps each weight as its source has it.
        keep_adapter: write LoRA beside the weights instead of adding it to them.
        stage1: leave projectors and LoRA out and draw what no source gives.
        aggregator: the form of the aggregator.
        seed: of what is drawn.
    """

    audio: tuple[Path, ...] = ()
    base: Path | None = None
    encoder: Path | None = None
    qformer: Path | None = None
    tokenizer: Path | None = None
    dtype: str | None = None
    keep_adapter: bool = False
    stage1: bool = False
    aggregator: AggregatorForm = "released"
    seed: int = 0


@dataclass(frozen=True)
class Conversion:
    """What was done.

    Attributes:
        sources: role, name, bytes and sha256 of every file read.
        fates: of every key of every source.
        drawn: weights that were drawn at random.
        adapter: what became of LoRA.
        outputs: file of weights -> sha256.
        parameters: numbers in the model.
    """

    sources: list[dict[str, Any]]
    fates: list[Fate]
    drawn: list[str]
    adapter: str
    outputs: dict[str, str] = field(default_factory=dict)
    parameters: int = 0


def convert(request: Request, out: Path, *, advance: Advance = lambda _: None) -> Conversion:
    """Write the model folder ``out``; nothing of that name appears before everything is written.

    Args:
        request: what to convert.
        out: a folder that does not exist yet, or is empty.
        advance: told of bytes read for hashing and of bytes written.

    Raises:
        CheckpointError: for sources that do not make up a model, each with what is wrong and what to do.
    """
    if request.base is None:
        raise CheckpointError("no language model was given", "--base DIR, for example Llama-2-7b-chat-hf")
    check_output(out)
    with ExitStack() as stack:
        base = stack.enter_context(opened(request.base, out.parent))
        text = language_config(base.folder)
        tokenizer = _tokenizer(request.tokenizer or base.folder)
        sources = [source("base", request.base, base.weights)]
        for role, path in _given(request):
            given = stack.enter_context(opened(path, out.parent))
            sources.append(source(role, path, given.weights, adapter_alpha(given)))
        check_kinds(sources)
        plan = _planned(request, sources, text)
        with staged(out) as folder:
            done = _write_weights(folder, request, sources, plan, advance)
            _write_rest(folder, plan, done, tokenizer)
        return done


def _given(request: Request) -> Iterator[tuple[Role, Path]]:
    yield from (("audio", path) for path in request.audio)
    if request.encoder is not None:
        yield "encoder", request.encoder
    if request.qformer is not None:
        yield "qformer", request.qformer


@dataclass(frozen=True, eq=False)
class _Plan:
    """What is to be written: weights with their places, the configuration, the order of names, what was drawn."""

    made: Combination
    config: GamaConfig
    names: list[str]
    drawn: list[str]


def _planned(request: Request, sources: Sequence[Source], text: PreTrainedConfig) -> _Plan:
    check_kinds(sources)
    made = combine(sources, request.aggregator, stage1=request.stage1)
    config = architecture(made.shapes, text, request.aggregator, ltu=is_ltu(made, sources))
    expected, tied = expected_shapes(config)
    _drop_tied(made, tied)
    drawn = check_fit(made, expected, tied, drawn=request.stage1)
    made.weights.update(draw(drawn, config, request.seed))
    return _Plan(made, config, [name for name in expected if name in made.weights], drawn)


def _drop_tied(made: Combination, tied: set[str]) -> None:
    for index, fate in enumerate(made.fates):
        if fate.what == "loaded" and fate.detail in tied:
            del made.weights[fate.detail]
            made.fates[index] = Fate(fate.role, fate.key, "dropped", "tied to the embedding")


# -- writing -----------------------------------------------------------------------------------------------------------


def _write_weights(
    folder: Path, request: Request, sources: Sequence[Source], plan: _Plan, advance: Advance
) -> Conversion:
    dtype = None if request.dtype is None else DTYPES[request.dtype]
    made, keep = plan.made, request.keep_adapter and bool(plan.made.lora)
    entries = [_entry(name, made, dtype, keep=keep) for name in plan.names]
    adapter = _adapter_entries(made, dtype) if keep else []
    _check_room(folder, sum(entry.size for entry in (*entries, *adapter)))
    hashed = [row for s in sources for row in source_hashes(s, advance)]
    outputs = shards.write(folder, entries, advance=advance)
    if keep:
        outputs |= shards.write(folder, adapter, stem="adapter_model", advance=advance)
        _write_adapter_config(folder, made)
    state = "none" if not made.lora else "kept" if keep else "merged"
    parameters = sum(made.weights[name].numel() for name in plan.names)
    _set_dtype(plan.config, entries)
    return Conversion(hashed, made.fates, plan.drawn, state, outputs, parameters)


def _write_rest(folder: Path, plan: _Plan, done: Conversion, tokenizer: Any) -> None:
    config = plan.config
    config.lineage = [_lineage(done, plan.made)]
    config.architectures = ["GamaForConditionalGeneration"]
    config.save_pretrained(folder)
    _generation_config(config).save_pretrained(folder)
    _processor(config, tokenizer).save_pretrained(folder)
    (folder / REPORT).write_text(json.dumps(asdict(done), indent=1) + "\n", encoding="utf-8")
    record(folder, done.outputs)


def _entry(name: str, made: Combination, dtype: torch.dtype | None, *, keep: bool) -> shards.Entry:
    tensor = made.weights[name]
    pair = None if keep else made.lora.get(name.removesuffix(".weight"))
    target = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    if pair is None:
        return shards.Entry(name, tuple(tensor.shape), target, lambda: shards.rows(tensor))
    a, b = pair
    return shards.Entry(name, tuple(tensor.shape), target, lambda: _merged(tensor, a, b, made.alpha or LORA_ALPHA))


def _merged(base: Tensor, a: Tensor, b: Tensor, alpha: float) -> Iterator[Tensor]:
    """W + alpha / r * B A, in float32, rows of (out, in) at a time."""
    start = 0
    a = a.float()
    for block in shards.rows(base):
        part = b[start : start + len(block)].float()
        yield block.float() + (part @ a) * (alpha / a.shape[0])
        start += len(block)


def _adapter_entries(made: Combination, dtype: torch.dtype | None) -> list[shards.Entry]:
    halves = [
        (f"{m}.lora_{part}", tensor) for m, ab in made.lora.items() for part, tensor in zip("AB", ab, strict=True)
    ]
    return [
        shards.Entry(f"base_model.model.{name}.weight", tuple(t.shape), dtype or t.dtype, lambda t=t: shards.rows(t))  # type: ignore[misc]
        for name, t in halves
    ]


def _write_adapter_config(folder: Path, made: Combination) -> None:
    """What PEFT writes, without importing it."""
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": None,
        "task_type": None,
        "inference_mode": True,
        "r": next(iter(made.lora.values()))[0].shape[0],
        "lora_alpha": made.alpha or LORA_ALPHA,
        "lora_dropout": 0.05,
        "bias": "none",
        "target_modules": sorted(made.lora),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _set_dtype(config: GamaConfig, entries: Sequence[shards.Entry]) -> None:
    """The dtype that ``from_pretrained`` takes of itself: the language model's."""
    dtype = next(e.dtype for e in entries if e.name.startswith(LANGUAGE_MODEL))
    for part in (config, config.text_config, config.audio_config, config.qformer_config):
        if part is not None:
            part.dtype = dtype


def _generation_config(config: GamaConfig) -> GenerationConfig:
    ids = {name: getattr(config.text_config, name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return GenerationConfig(**{name: value for name, value in ids.items() if value is not None})


def _tokenizer(folder: Path) -> Any:
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{folder}: no tokenizer can be loaded: {reason}",
            "copy the base model's tokenizer files into it, or give their folder as --tokenizer",
        ) from error


def _processor(config: GamaConfig, tokenizer: Any) -> GamaProcessor:
    encoder = config.audio_config
    return GamaProcessor(
        GamaFeatureExtractor(feature_size=encoder.num_mel_bins, num_frames=encoder.num_frames),
        tokenizer,
        audio_token_id=config.audio_token_id,
        num_audio_tokens=config.num_audio_tokens,
    )


def _lineage(done: Conversion, made: Combination) -> dict[str, Any]:
    return {
        "gama": package.__version__,
        "stage": "converted",
        "sources": done.sources,
        "adapter": done.adapter,
        "dropped": dict(sorted(made.dropped().items())),
        "drawn": len(done.drawn),
    }


# -- files -------------------------------------------------------------------------------------------------------------


def source_hashes(given: Source, advance: Advance) -> list[dict[str, Any]]:
    """Role, name, bytes and sha256 of every weight file of a source: the lineage of what is written."""
    return [
        {"role": given.role, "name": f.name, "bytes": f.stat().st_size, "sha256": shards.sha256(f, advance)}
        for f in given.weights.files
    ]


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise CheckpointError(f"{needed:,} bytes are to be written, {free:,} are free in {folder.parent}")
