"""What the frozen parts of the audio tower give for a clip: computed once, kept on the disk, read in every epoch.

Where a stage trains neither encoder nor Q-Former, nearly all of the tower's work is the same in every epoch. Its
outputs are kept in shards of their own, in a folder named by what they depend on (the weights of the frozen parts,
their sizes, the front end, the precision they are computed in), each clip by the digest of its file. Other weights mean
another folder, so nothing out of date can be read. A shard appears whole or not at all; a pass that was stopped goes on
with the clips whose shards are not there.

They are kept in float32, which is what the tower gives in every precision: a step that reads them differs from one that
computes them by the rounding of a batch of another size, and by nothing else. Half precision would take half the room
and cost a relative error of 5e-4.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor, nn

from gama.atomic import write_bytes
from gama.data import shards
from gama.data.dataset import ClipDataset, EpochDataset
from gama.data.shards import ShardStore
from gama.errors import GamaError, RecipeError
from gama.model.tower import GamaAudioTower
from gama.training.held_out import Chosen
from gama.training.recipe import Recipe

VERSION = 1
"""Raise when the tower's computation changes."""
SHARD = 64
"""Clips of a shard: 18 MiB at the released sizes."""
BATCH = 8
"""Clips that go through the tower at once."""
FOLDER = "kept"
"""Below the folder of features."""

_OFF = "give data.keep_frozen=false"


@dataclass(frozen=True)
class Layout:
    """The rows of a clip's kept outputs one below the other, each as wide as the encoder.

    Attributes:
        time: pooled features of the last layer.
        taps: tapped layers, with ``time`` pooled features each; 0 where the aggregator reads none.
        queries: outputs of the Q-Former; 0 where it learns or is not there.
        width: of a row.
    """

    time: int
    taps: int
    queries: int
    width: int

    @property
    def rows(self) -> int:
        return self.time * (1 + self.taps) + self.queries

    def fits(self, values: Tensor) -> bool:
        """Whether a batch holds kept outputs, and not fbanks."""
        return values.shape[1:] == (self.rows, self.width)


def layout_of(tower: GamaAudioTower) -> Layout:
    """What can be kept of a tower.

    Raises:
        RecipeError: where its encoder learns, or gives something else every time.
    """
    encoder = tower.encoder
    if _learns(encoder):
        raise RecipeError("data.keep_frozen: the encoder learns, so its outputs change with every step", _OFF)
    if encoder.config.dropout > 0:
        raise RecipeError(
            f"data.keep_frozen: the encoder's dropout is {encoder.config.dropout}, so its outputs are never the same",
            _OFF,
        )
    taps = len(encoder.config.taps) if tower.has_qformer and tower.aggregator.reads_taps else 0
    queries = 0
    if tower.has_qformer and not _learns(tower.qformer):
        queries = tower.qformer.query_tokens.shape[1]
    return Layout(encoder.config.pooled_time, taps, queries, encoder.config.hidden_size)


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def outputs(tower: GamaAudioTower, layout: Layout, fbank: Tensor) -> Tensor:
    """fbank (B, 1024, 128) -> what is kept of it, (B, rows, width) float32."""
    encoded = tower.encoder(fbank, taps=layout.taps > 0)
    parts = [tower.encoder.pool(features) for features in (encoded.last, *encoded.taps)]
    if layout.queries:
        parts.append(tower.qformer(parts[0]))
    return torch.cat([part.float() for part in parts], dim=1)


def prefix_of(tower: GamaAudioTower, layout: Layout, kept: Tensor) -> Tensor:
    """Kept outputs (B, rows, width) -> the prefix (B, Q + T, D), by the parts of the tower that are left."""
    sizes = [layout.time] * (1 + layout.taps) + [layout.queries]
    pooled, *taps, queries = kept.to(tower.encoder.position.device).split(sizes, dim=1)
    if not tower.has_qformer:
        prefix: Tensor = tower.projector(pooled)
        return prefix
    return tower.join(queries if layout.queries else tower.qformer(pooled), tower.aggregator(pooled, taps))


def origin(tower: GamaAudioTower, layout: Layout, *, bf16: bool) -> str:
    """32 hex characters of everything but the clip that the kept outputs depend on."""
    parts: list[nn.Module] = [tower.encoder, *([tower.qformer] if layout.queries else [])]
    sizes = {k: v for k, v in tower.encoder.config.to_dict().items() if k != "transformers_version"}
    facts = [VERSION, shards.VERSION, bf16, asdict(layout), sizes]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    for part in parts:
        for name, tensor in sorted(part.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


class KeptStore:
    """The kept outputs of a list of clips: ``store[i]`` is (rows, width) float32.

    It stands in the place of the features that they are computed from.

    Args:
        features: fbanks of the clips.
        wanted: the clips that will be read, by their index; the others have nothing here.
        folder: of the shards of one :func:`origin`.
        layout: what is kept.
    """

    def __init__(self, features: ShardStore, wanted: Iterable[int], folder: Path, layout: Layout) -> None:
        self.features, self.folder, self.layout = features, folder, layout
        self.paths, self.frames, self.keys = features.paths, features.frames, features.keys
        self.wanted = sorted({int(index) for index in wanted})
        self.places: dict[str, tuple[Path, int]] = {}
        self._open: dict[Path, tuple[Any, np.ndarray]] = {}
        self.read_index()

    def read_index(self) -> None:
        """Find what is there."""
        for file in sorted(self.folder.glob("kept-*.safetensors")):
            try:
                with safe_open(file, framework="np") as opened:
                    keys, shape = opened.metadata()["keys"].split(), opened.get_slice("values").get_shape()
            except (SafetensorError, OSError):  # no whole shard: its clips are computed again
                continue
            if shape == [len(keys), self.layout.rows, self.layout.width]:
                self.places |= {key: (file, row) for row, key in enumerate(keys)}

    def missing(self) -> list[int]:
        """Wanted clips that are not there, each content once."""
        first = {self.keys[index]: index for index in reversed(self.wanted) if self.keys[index] not in self.places}
        return sorted(first.values())

    def compute(
        self,
        tower: GamaAudioTower,
        *,
        bf16: bool,
        share: tuple[int, int] = (0, 1),
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Compute what is missing, shard by shard.

        Args:
            tower: its weights must be those of the folder's origin; it computes where it lies.
            bf16: whether it computes as a step in bfloat16 does.
            share: (number of this process, how many share the work).
            progress: called with how many clips are done since its last call.
        """
        left = self.missing()
        number, count = share
        self.folder.mkdir(parents=True, exist_ok=True)
        for begin in range(number * SHARD, len(left), count * SHARD):
            clips = left[begin : begin + SHARD]
            values = list(self._values(tower, clips, bf16))
            self._write([self.keys[index] for index in clips], np.concatenate(values))
            if progress is not None:
                progress(len(clips))

    def _values(self, tower: GamaAudioTower, clips: list[int], bf16: bool) -> Iterator[np.ndarray]:
        device = tower.encoder.position.device
        training = tower.training
        tower.eval()
        try:
            for begin in range(0, len(clips), BATCH):
                fbanks = [torch.from_numpy(self.features[index]).float() for index in clips[begin : begin + BATCH]]
                with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                    yield outputs(tower, self.layout, torch.stack(fbanks).to(device)).cpu().numpy()
        finally:
            tower.train(training)

    def _write(self, keys: list[str], values: np.ndarray) -> None:
        name = hashlib.sha256("".join(keys).encode()).hexdigest()[:16]
        sums = np.array([zlib.crc32(clip.data) for clip in values], dtype=np.uint32)
        content = save({"values": values, "crc32": sums}, metadata={"keys": " ".join(keys)})
        write_bytes(self.folder / f"kept-{name}.safetensors", content)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        file, row = self.places[self.keys[index]]
        if file not in self._open:
            opened: Any = safe_open(file, framework="np")
            self._open[file] = opened.get_slice("values"), opened.get_tensor("crc32")
        values, sums = self._open[file]
        clip: np.ndarray = values[row]
        if zlib.crc32(clip.data) != sums[row]:
            raise GamaError(f"{file} is damaged", "delete it and continue with --resume: it is computed again")
        return clip

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}  # another process maps for itself


def keep(
    tower: GamaAudioTower,
    dataset: EpochDataset,
    folder: Path,
    *,
    bf16: bool,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Layout:
    """Let a dataset give the kept outputs of its clips in the place of their fbanks, after computing what is missing.

    Of several processes each computes its share. Held-out items keep their fbanks.

    Args:
        tower: as it will be trained.
        dataset: a :class:`ClipDataset`, or the part of one that is trained on.
        folder: of the features.
        bf16, progress: see :meth:`KeptStore.compute`.
        device: where the tower computes.

    Raises:
        RecipeError: where the tower, or what the dataset does to a fbank, is not the same every time.
    """
    clips, items = (dataset.whole, dataset.indices) if isinstance(dataset, Chosen) else (dataset, slice(None))
    if not isinstance(clips, ClipDataset) or clips.augmentation > 0:
        raise RecipeError("data.keep_frozen: clips without augmentation are expected", _OFF)
    layout = layout_of(tower)
    store = KeptStore(clips.store, clips.features[items], folder / FOLDER / origin(tower, layout, bf16=bf16), layout)
    if store.missing():
        home = tower.encoder.position.device
        tower.to(device)
        store.compute(tower, bf16=bf16, share=_share(), progress=progress)
        tower.to(home)
        _wait()
        store.read_index()
    clips.store = store  # type: ignore[assignment]  # it gives arrays of another shape
    return layout


def _share() -> tuple[int, int]:
    from gama.processes import count, rank

    return rank(), count()


def _wait() -> None:
    """Until every process has come here."""
    if _share()[1] > 1:
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available()).wait_for_everyone()


def is_halved(recipe: Recipe) -> bool:
    """Whether a stage holds its frozen language model in bfloat16: nothing of it is written, nor flattened by FSDP."""
    sharded = bool(recipe.training.get("fsdp") or recipe.training.get("deepspeed"))
    return bool(recipe.training.get("bf16")) and recipe.save == "adapter" and recipe.quant == "none" and not sharded


def halve(module: nn.Module) -> None:
    """Hold the frozen matrices of linear layers in bfloat16, for training under autocast to bfloat16.

    Autocast rounds them in every step, so nothing changes but the time that takes, and the memory. LoRA stays as it is,
    for it is written with what learned; so do matrices that are embeddings too: of those autocast rounds the products
    alone.
    """
    embeddings = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    for name, layer in module.named_modules():
        if not isinstance(layer, nn.Linear) or ".lora_" in name or id(layer.weight) in embeddings:
            continue
        for parameter in layer.parameters(recurse=False):
            if not parameter.requires_grad and parameter.dtype == torch.float32:
                parameter.data = parameter.data.bfloat16()
