"""``gama doctor``: what works on this machine, and the command that mends the rest."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import click

from gama import __version__
from gama.errors import GamaError, MissingPackageError
from gama_cli import console
from gama_cli.options import json_option

Status = Literal["ok", "note", "problem"]

_PACKAGES = {
    "torch": "pip install 'gama-audio[torch]'",
    "transformers": "pip install 'gama-audio[torch]'",
    "peft": "pip install 'gama-audio[torch]'",
    "accelerate": "pip install 'gama-audio[torch]'",
    "bitsandbytes": "pip install 'gama-audio[torch]'",
    "safetensors": "pip install 'gama-audio[torch]'",
    "huggingface_hub": "pip install huggingface_hub",
    "tokenizers": "pip install tokenizers",
    "soundfile": "pip install soundfile",
    "numpy": "pip install numpy",
    "av": "pip install 'gama-audio[media]'",
}
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "bf16")
_SECONDS = 4.0  # for a program or a hub that does not answer
_7B = 20 * 10**9  # bytes that a 7B model and its sources want
_PROBE = """
import json, sys
from gama.processes import be_worker
from gama_cli.doctor import {name}
be_worker()
print(json.dumps({name}()))
"""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: what.
        status: ``ok``, ``note`` (works, or is not needed) or ``problem``.
        value: what was found.
        mend: the command that changes it; None where nothing has to be done.
    """

    check: str
    status: Status
    value: str
    mend: str | None = None


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Say what works on this machine: versions, GPU, kernels, cache and disk, the hub. Exits with 1 for a problem.

    \b
    Examples:
      gama doctor
      gama doctor --json
    """
    problems = 0
    for finding in findings():
        problems += finding.status == "problem"
        if as_json:
            console.json_line(asdict(finding))
            continue
        colour = {"ok": "green", "note": "yellow", "problem": "red"}[finding.status]
        click.echo(f"{click.style(f'{finding.status:8}', fg=colour)}{finding.check}: {finding.value}")
        if finding.mend is not None:
            click.echo(f"{'':8}  {finding.mend}")
    if problems:
        raise SystemExit(1)


def findings() -> Iterator[Finding]:
    """Everything there is to say, one by one as it is found."""
    yield Finding("gama", "ok", f"{__version__} on Python {platform.python_version()}, {platform.platform(terse=True)}")
    yield from packages()
    yield from onnxruntime()
    gpus = _nvidia()
    yield from torch_devices(gpus)
    yield processor()
    yield bitsandbytes_kernels()
    yield from storage()
    yield from the_hub()


# -- packages ----------------------------------------------------------------------------------------------------------


def installed(name: str) -> str | None:
    """The version of a package; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def packages() -> Iterator[Finding]:
    """The packages gama works with, each against the version gama asks for."""
    for name, mend in _PACKAGES.items():
        version = installed(name)
        if version is None:
            yield Finding(name, "note", "not installed", mend)
        elif wanted := _unmet(name, version):
            yield Finding(name, "problem", f"{version}, gama asks for {wanted}", f"pip install '{name}{wanted}'")
        else:
            yield Finding(name, "ok", version)


def _unmet(name: str, version: str) -> str | None:
    """What gama asks of a package, where the installed version is something else."""
    try:
        from packaging.requirements import Requirement

        asked = [Requirement(text) for text in metadata.requires("gama-audio") or []]
    except (ModuleNotFoundError, metadata.PackageNotFoundError):
        return None  # run from a checkout, or without the package that reads version numbers
    for requirement in asked:
        if requirement.name.replace("-", "_") == name and not requirement.specifier.contains(version, prereleases=True):
            return str(requirement.specifier)
    return None


def onnxruntime() -> Iterator[Finding]:
    """Which onnxruntime there is: two of them overwrite each other's files."""
    plain, gpu = installed("onnxruntime"), installed("onnxruntime-gpu")
    if plain and gpu:
        yield Finding(
            "onnxruntime",
            "problem",
            f"onnxruntime {plain} and onnxruntime-gpu {gpu} are both installed, and overwrite each other's files",
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu",
        )
    elif not plain and not gpu:
        yield Finding("onnxruntime", "note", "not installed", "pip install onnxruntime")
        return
    found = _aside("onnx_providers")
    if "error" in found:
        yield Finding("onnxruntime", "problem", found["error"], "pip install --force-reinstall onnxruntime")
        return
    providers = found["providers"]
    yield Finding("onnxruntime", "ok", f"{found['version']}, providers {', '.join(providers)}")
    if gpu and "CUDAExecutionProvider" not in providers:
        yield Finding(
            "onnxruntime on GPU", "problem", "onnxruntime-gpu has no CUDA provider", _reinstall("onnxruntime-gpu")
        )
    elif _nvidia() and not gpu:
        yield Finding(
            "onnxruntime on GPU",
            "note",
            "there is a GPU, onnxruntime computes on the CPU",
            "pip uninstall -y onnxruntime && pip install onnxruntime-gpu",
        )


def onnx_providers() -> dict[str, Any]:
    """Version and providers of onnxruntime."""
    import onnxruntime as runtime

    return {"version": runtime.__version__, "providers": list(runtime.get_available_providers())}


def _reinstall(name: str) -> str:
    return f"pip install --force-reinstall {name}"


# -- processors --------------------------------------------------------------------------------------------------------


def _nvidia() -> list[str]:
    """Name, memory and driver of each NVIDIA GPU, as the driver's own program tells them."""
    if shutil.which("nvidia-smi") is None:
        return []
    asked = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def torch_devices(gpus: list[str]) -> Iterator[Finding]:
    """GPUs, and whether PyTorch computes on them."""
    for number, gpu in enumerate(gpus):
        yield Finding(f"GPU {number}", "ok", gpu)
    if installed("torch") is None:
        if not gpus:
            yield Finding("GPU", "note", "no NVIDIA GPU")
        return
    found = _aside("torch_facts")
    if "error" in found:
        yield Finding("PyTorch", "problem", found["error"], _reinstall("torch"))
    elif gpus and not found["cuda"]:
        why = (
            f"is built for CUDA {found['built']}, and cannot use the driver"
            if found["built"]
            else "is built for the CPU"
        )
        mend = "see https://pytorch.org/get-started/locally for the wheel that fits the driver"
        yield Finding("PyTorch", "problem", f"there is a GPU, but PyTorch {found['version']} {why}", mend)
    elif found["cuda"]:
        kinds = ", bfloat16" if found["bf16"] else ", no bfloat16: give --dtype float16"
        yield Finding("PyTorch", "ok", f"CUDA {found['built']}, {found['cuda']} device(s){kinds}")
    else:
        yield Finding("PyTorch", "ok", f"on the CPU, {found['threads']} thread(s), kernels for {found['capability']}")


def torch_facts() -> dict[str, Any]:
    """What PyTorch says about itself."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {
        "version": torch.__version__,
        "built": torch.version.cuda,
        "cuda": count,
        "bf16": bool(count and torch.cuda.is_bf16_supported()),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


def cpu_flags() -> set[str] | None:
    """The instruction sets of this processor; None where the system does not tell them."""
    file = Path("/proc/cpuinfo")
    if not file.is_file():
        return None
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith(("flags", "Features")):
            return set(line.partition(":")[2].split())
    return None


def processor() -> Finding:
    """Which of the instruction sets that make a CPU fast at this are there."""
    flags = cpu_flags()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if flags is None:
        return Finding(
            "CPU", "note", f"{platform.machine()}, {cores} core(s); the system does not tell instruction sets"
        )
    there = [flag for flag in _FLAGS if flag in flags]
    absent = [flag for flag in _FLAGS[1:6] if flag not in flags] if platform.machine() in ("x86_64", "AMD64") else []
    value = f"{cores} core(s), has {', '.join(there) or 'no vector instructions known here'}"
    return Finding("CPU", "ok", value + (f"; not {', '.join(absent)}" if absent else ""))


def bitsandbytes_kernels() -> Finding:
    """Which kernel multiplies 4-bit weights on the CPU."""
    if installed("bitsandbytes") is None or installed("torch") is None:
        return Finding("4-bit and 8-bit weights", "note", "need torch and bitsandbytes", _PACKAGES["bitsandbytes"])
    found = _aside("bitsandbytes_facts")
    if "error" in found:
        return Finding("4-bit and 8-bit weights", "problem", found["error"], _reinstall("bitsandbytes"))
    if not found["native"]:
        return Finding(
            "4-bit and 8-bit weights", "problem", "bitsandbytes has no library here", _reinstall("bitsandbytes")
        )
    status, value, mend = _four_bit(found)
    return Finding("4-bit and 8-bit weights", status, f"bitsandbytes {found['version']}; on the CPU {value}", mend)


def _four_bit(found: dict[str, Any]) -> tuple[Status, str, str | None]:
    """How 4-bit weights are multiplied on the CPU: whether that is well, the words for it, and what mends it."""
    if found["gama"]:
        return "ok", f"4-bit weights are multiplied by gama's kernel for {found['gama']}", None
    mend = "install a C compiler, such as: apt install gcc" if "compiler" in found["why"] else None
    without = f"gama's own kernel, which is faster, is not there: {found['why']}"
    if found["hub"]:
        return "note", f"4-bit weights are multiplied by a kernel from a hub; {without}", mend
    if found["fused"]:
        return "note", f"4-bit weights are multiplied by bitsandbytes' AVX512-BF16 kernel; {without}", mend
    return "note", f"4-bit weights are unpacked before they are multiplied, which is slow; {without}", mend


def bitsandbytes_facts() -> dict[str, Any]:
    """What 4-bit weights are multiplied by on a CPU, when bitsandbytes is imported as gama imports it."""
    from gama.bitsandbytes_import import import_bitsandbytes

    package = import_bitsandbytes()
    from bitsandbytes.backends.cpu import ops
    from bitsandbytes.cextension import lib
    from bitsandbytes.functional import has_avx512bf16

    from gama.quantization.kernels import Missing, kernel

    native = "ErrorHandler" not in type(lib).__name__
    own = kernel()
    return {
        "version": package.__version__,
        "native": native,
        "fused": bool(native and has_avx512bf16()),
        "hub": getattr(ops, "gemm_4bit_forward_kernel", None) is not None,
        "gama": None if isinstance(own, Missing) else own.name,
        "why": own.reason if isinstance(own, Missing) else "",
    }


def _aside(name: str) -> dict[str, Any]:
    """Ask a function of this file in another process: a broken library may kill the one that imports it."""
    import json

    script = _PROBE.format(name=name)
    try:
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return {"error": "importing it takes more than two minutes"}
    lines = done.stdout.splitlines()
    if done.returncode == 0 and lines:
        return dict(json.loads(lines[-1]))
    said = done.stderr.strip().splitlines()
    return {"error": f"cannot be imported: {said[-1] if said else f'exit status {done.returncode}'}"}


# -- disk and hub ------------------------------------------------------------------------------------------------------


def storage() -> Iterator[Finding]:
    """The folders of models, and the room beside them."""
    from gama.hub.cache import size_of
    from gama.hub.disk import cache_home, free_space, human
    from gama.hub.hugging_face import cache_folder

    places: dict[str, Callable[[], Path]] = {"gama's folder": cache_home, "hub cache": cache_folder}
    for name, place in places.items():
        try:
            folder = place()
        except MissingPackageError:
            continue
        free = free_space(folder)
        held = human(size_of(folder)) if folder.is_dir() else "empty"
        value = f"{folder}: {held}, {human(free)} free"
        if not os.access(_existing(folder), os.W_OK):
            yield Finding(name, "problem", f"{value}, but it cannot be written", "export GAMA_HOME=DIR HF_HOME=DIR")
        elif free < _7B:
            mend = "gama models rm NAME, or export GAMA_HOME=DIR HF_HOME=DIR on a larger disk"
            yield Finding(name, "note", f"{value}; a 7B model wants {human(_7B)}", mend)
        else:
            yield Finding(name, "ok", value)


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def the_hub() -> Iterator[Finding]:
    """Whether the hub answers, and whether there is a token for gated models."""
    from gama.hub import hugging_face

    try:
        address, offline = hugging_face.endpoint(), hugging_face.offline()
        token = hugging_face.has_token()
    except MissingPackageError as error:
        yield Finding("hub", "note", error.message, error.hint)
        return
    if offline:
        yield Finding("hub", "note", "HF_HUB_OFFLINE is set: only what lies here is used", "unset HF_HUB_OFFLINE")
    else:
        yield _reach(address)
    if token:
        yield Finding("hub token", "ok", "there is one, for models whose licence has to be accepted")
    else:
        yield Finding("hub token", "note", "none; models whose licence has to be accepted want one", "hf auth login")


def _reach(address: str) -> Finding:
    import http.client

    from gama.hub.http import get

    mend = "check the network; for a mirror: export HF_ENDPOINT=https://…; to stay off the net: export HF_HUB_OFFLINE=1"
    try:
        with get(f"{address}/api/models?limit=1", timeout=_SECONDS) as response:
            status = response.status
    except (GamaError, OSError, http.client.HTTPException) as error:
        reason = error.message if isinstance(error, GamaError) else " ".join(str(error).split()) or type(error).__name__
        return Finding("hub", "note", f"{address} does not answer: {reason}", mend)
    if status >= 400:
        return Finding("hub", "note", f"{address} answers with status {status}", mend)
    return Finding("hub", "ok", f"{address} answers")
