"""The exported audio front end: samples -> prefix, by onnxruntime. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gama.errors import CheckpointError
from gama.instant.providers import session

if TYPE_CHECKING:
    import onnxruntime

FILE = "prefix.onnx"
_WEIGHTS = (".data", ".safetensors")  # external data of a graph
MIN_SAMPLES = 400  # one frame of 25 ms at 16 kHz

Float = NDArray[np.float32]


@dataclass(frozen=True)
class FrontEnd:
    """A graph from ``waveform`` (B, N) and ``lengths`` (B,) to ``prefix`` (B, P, D), opened.

    Attributes:
        path: its file.
        opened: the session.
    """

    path: Path
    opened: onnxruntime.InferenceSession

    def prefix(self, clips: Sequence[Float]) -> Float:
        """Clips of float32 samples at 16 kHz, each of at least 400 -> (clips, P, D) float32."""
        lengths = np.array([len(clip) for clip in clips], dtype=np.int64)
        waveform = np.zeros((len(clips), max(MIN_SAMPLES, int(lengths.max()))), dtype=np.float32)
        for row, clip in zip(waveform, clips, strict=True):
            row[: len(clip)] = clip
        (prefix,) = self.opened.run(["prefix"], {"waveform": waveform, "lengths": lengths})
        return np.asarray(prefix)

    @property
    def size(self) -> tuple[int, int]:
        """(P, D): soft tokens of a clip and their width."""
        _, tokens, width = self.opened.get_outputs()[0].shape
        return int(tokens), int(width)

    @property
    def providers(self) -> tuple[str, ...]:
        """onnxruntime's providers, the one that computes first."""
        return tuple(self.opened.get_providers())

    def contents(self) -> Iterator[bytes]:
        """The graph, and the files of weights beside it."""
        yield self.path.read_bytes()
        for file in sorted(self.path.parent.iterdir()):
            if file.suffix in _WEIGHTS:
                yield file.read_bytes()

    @property
    def metadata(self) -> dict[str, str]:
        """What the export wrote into the graph: model, lineage, licence, precision."""
        return dict(self.opened.get_modelmeta().custom_metadata_map)

    def check(self, tokens: int, width: int, name: str) -> None:
        """The prefix must fit the language model it stands in front of.

        Raises:
            CheckpointError: where soft tokens or width differ.
        """
        if self.size != (tokens, width):
            raise CheckpointError(
                f"{self.path} makes prefixes of {self.size[0]} x {self.size[1]}, {name} needs {tokens} x {width}",
                "export the front end of that model: gama export onnx --model DIR",
            )


def open_front_end(
    place: str | Path, provider: str = "auto", *, quick: bool = False, num_threads: int | None = None
) -> FrontEnd:
    """Open ``prefix.onnx`` of a folder, or the file itself; the rest is that of :func:`session`.

    Raises:
        CheckpointError: no such file, or a graph of another kind.
        DeviceError: see :func:`gama.instant.providers.session`.
    """
    path = Path(place)
    path = path / FILE if path.is_dir() else path
    opened = session(path, provider, quick=quick, num_threads=num_threads)
    inputs, outputs = ([v.name for v in side] for side in (opened.get_inputs(), opened.get_outputs()))
    if inputs != ["waveform", "lengths"] or outputs != ["prefix"]:
        raise CheckpointError(
            f"{path} goes from {', '.join(inputs)} to {', '.join(outputs)}; "
            "a front end goes from waveform, lengths to prefix",
            "gama export onnx --part prefix",
        )
    return FrontEnd(path, opened)
