"""``gama.load()``: which runtime opens a model. No torch until it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from gama.checkpoints.bundled import model_folder
from gama.errors import GamaError
from gama.inference.asking import Asker
from gama.inference.prefixes import PrefixStore
from gama.instant.engine import has_instant_graphs
from gama.packages import explained

if TYPE_CHECKING:
    from gama.inference.engine import Gama, Quantization
    from gama.instant.engine import Instant
    from gama.instant.frontend import FrontEnd

RuntimeName = Literal["auto", "onnx", "torch"]


@overload
def load(
    name_or_dir: str | Path | None = None,
    *,
    quant: Quantization = "none",
    device: str = "auto",
    dtype: str = "auto",
    runtime: Literal["torch"],
    frontend: str | Path | None = None,
    provider: str = "auto",
    threads: int | None = None,
) -> Gama: ...


@overload
def load(
    name_or_dir: str | Path | None = None,
    *,
    quant: Quantization = "none",
    device: str = "auto",
    dtype: str = "auto",
    runtime: Literal["onnx"],
    frontend: str | Path | None = None,
    provider: str = "auto",
    threads: int | None = None,
) -> Instant: ...


@overload
def load(
    name_or_dir: str | Path | None = None,
    *,
    quant: Quantization = "none",
    device: str = "auto",
    dtype: str = "auto",
    runtime: RuntimeName = "auto",
    frontend: str | Path | None = None,
    provider: str = "auto",
    threads: int | None = None,
) -> Asker: ...


def load(
    name_or_dir: str | Path | None = None,
    *,
    quant: Quantization = "none",
    device: str = "auto",
    dtype: str = "auto",
    runtime: RuntimeName = "auto",
    frontend: str | Path | None = None,
    provider: str = "auto",
    threads: int | None = None,
) -> Asker:
    """Load a model: the packaged gama-mini by default.

    Args:
        name_or_dir: a name or a folder of ``save_pretrained``.
        quant: hold the language model in 8 or 4 bits (bitsandbytes); the audio tower stays as it is.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        dtype: ``auto`` (float32 on a CPU, bfloat16 on a GPU), ``float32``, ``bfloat16`` or ``float16``.
        runtime: ``torch``; ``onnx``, which runs models that have instant graphs, in float32; or ``auto``: onnx where
            the folder has the graphs and nothing else here asks for torch.
        frontend: a folder of ``gama export onnx``, which hears in place of the model's own audio tower.
        provider: of onnxruntime; see :func:`gama.instant.providers.choose`.
        threads: that compute on a CPU. By default onnxruntime takes :func:`gama.threads.threads`, and PyTorch is left
            as it is, for it has one setting for the whole process.

    Returns:
        A :class:`~gama.instant.engine.Instant` on onnxruntime, a :class:`~gama.inference.engine.Gama` (which has the
        transformers model) on torch: both are asked in the same ways.

    Raises:
        CheckpointError: when there is no such model, or its weights or the front end do not fit.
        DeviceError: for a device or provider this machine does not have.
        MissingPackageError: where torch, or bitsandbytes, is needed and not installed.
    """
    asks = _asks_for_torch(quant, device, dtype)
    if runtime == "onnx" and asks:
        raise GamaError(f"{asks} was asked for, which onnxruntime does not do here", "--runtime torch")
    onnx = runtime == "onnx" or (runtime == "auto" and not asks and has_instant_graphs(model_folder(name_or_dir)))
    heard = _front_end(frontend, provider, threads)
    if onnx:
        from gama.instant import engine as instant

        # a model this small is faster on the CPU than a GPU is ready
        chosen = "cpu" if provider == "auto" else provider
        return instant.load(name_or_dir, provider=chosen, frontend=heard, threads=threads)
    with explained():
        import torch

        from gama.inference import engine

    if threads is not None:
        torch.set_num_threads(threads)
    return engine.load(name_or_dir, quant=quant, device=device, dtype=dtype, frontend=heard)


def open_asker(loading: dict[str, Any], cache: tuple[Path, int] | None = None) -> Asker:
    """Load a model that keeps its prefixes on disk, too.

    Args:
        loading: options of :func:`load`.
        cache: folder of the prefixes and its limit in bytes; None for no folder.

    Raises:
        GamaError: as :func:`load`; or, before anything is loaded, for a folder that can keep none.
    """
    store = None if cache is None else PrefixStore(cache[0], limit=cache[1])
    asker = load(**loading)
    if store is not None:
        asker.keep_prefixes(store)
    return asker


def _asks_for_torch(quant: str, device: str, dtype: str) -> str:
    """The option that only torch can serve, as it was given; empty where there is none."""
    if quant != "none":
        return f"quant {quant}"
    if device not in ("auto", "cpu"):
        return f"device {device}"
    return f"dtype {dtype}" if dtype not in ("auto", "float32") else ""


def _front_end(place: str | Path | None, provider: str, threads: int | None) -> FrontEnd | None:
    if place is None:
        return None
    from gama.instant.frontend import open_front_end

    return open_front_end(place, provider, num_threads=threads)


__all__ = ["load", "open_asker"]
