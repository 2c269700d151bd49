"""What is measured in a process of its own: ``python -m gama.bench.child '{"what": …}'`` prints one JSON object."""

from __future__ import annotations

import importlib
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gama.processes import be_worker

QUESTIONS = ("what happened?", "describe the audio in detail.")
NEEDED = {
    "onnx": ("numpy", "soundfile", "tokenizers", "onnxruntime"),
    "torch": ("numpy", "soundfile", "torch", "transformers"),
}
"""The packages without which a runtime cannot answer: what its import is held against."""
NOISE_SECONDS = 10.0
_MODULES = {"onnx": "gama.instant.engine", "torch": "gama.inference.engine"}


def packages(runtime: str) -> dict[str, float]:
    """Seconds to import the packages a runtime needs, and nothing of gama."""
    begun = time.perf_counter()
    for name in NEEDED[runtime]:
        importlib.import_module(name)
    if runtime == "torch":
        from transformers import AutoModelForCausalLM, PreTrainedModel  # noqa: F401  what makes it slow
    return {"import": time.perf_counter() - begun}


def cold(runtime: str, loading: dict[str, Any], clip: str) -> dict[str, float]:
    """Import, load, and answer once: seconds of each, and the peak of memory in bytes."""
    begun = time.perf_counter()
    importlib.import_module(_MODULES[runtime])
    imported = time.perf_counter()
    asker = _load(runtime, loading)
    loaded = time.perf_counter()
    asker.ask(clip, QUESTIONS[0])
    answered = time.perf_counter()
    peak = peak_memory()
    found = {"import": imported - begun, "load": loaded - imported, "first answer": answered - loaded}
    return found if peak is None else {**found, "memory": float(peak)}


def warm(runtime: str, loading: dict[str, Any], clip: str, repeats: int, tokens: int) -> dict[str, Any]:
    """Every stage of an answer, again and again, on a clip that is never quite the same; seconds of each."""
    from gama import audio

    asker = _load(runtime, loading)
    taken: dict[str, list[float]] = {}
    heard = None
    for turn in range(repeats + 1):
        begun = time.perf_counter()
        decoded = audio.load(clip)
        stages = {"decode": time.perf_counter() - begun}
        waveform = audio.load(decoded.samples * (1.0 - 0.001 * turn), sampling_rate=16_000)  # nothing is kept of it
        stages |= _tower_stages(asker, waveform)
        begun = time.perf_counter()
        heard = asker.ask(waveform, QUESTIONS[1], max_new_tokens=tokens).heard[0]
        stages |= {"hear": heard.encode_s, "prefill": heard.first_token_s - heard.encode_s}
        stages["first token"] = heard.first_token_s
        if heard.new_tokens > 1:
            stages["token"] = (heard.total_s - heard.first_token_s) / (heard.new_tokens - 1)
        begun = time.perf_counter()
        asker.ask(waveform, QUESTIONS[0], max_new_tokens=tokens)
        stages["second question"] = time.perf_counter() - begun
        if turn:
            for name, seconds in stages.items():
                taken.setdefault(name, []).append(seconds)
    assert heard is not None
    return {"seconds": taken, "prompt_tokens": heard.prompt_tokens, "runtime": asdict(asker.runtime)}


def _tower_stages(asker: Any, waveform: Any) -> dict[str, float]:
    """Filterbank and audio tower apart, where torch runs both."""
    if asker.runtime.name != "torch" or asker.runtime.providers:
        return {}
    import torch

    with torch.inference_mode():
        begun = time.perf_counter()
        values = asker.processor.feature_extractor([waveform])["input_features"]
        fbank = time.perf_counter()
        asker.model.audio_prefix(values.to(asker.model.device)).sum().item()
        return {"fbank": fbank - begun, "tower": time.perf_counter() - fbank}


def _load(runtime: str, loading: dict[str, Any]) -> Any:
    from gama.inference.opening import load

    return load(**{**loading, "runtime": runtime})


def peak_memory() -> int | None:
    """The most bytes this process has held; None where the system does not tell."""
    status = Path("/proc/self/status")
    if status.is_file():  # Linux counts what the parent held before it started this process into ru_maxrss
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ModuleNotFoundError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def machine(threads: int, quick: bool) -> dict[str, Any]:
    """See :func:`gama.bench.machine.rates`."""
    from gama.bench.machine import rates

    return asdict(rates(threads, side=128, turns=1, read=2**22) if quick else rates(threads))


def noise(path: str) -> dict[str, str]:
    """Write the clip that is asked about: noise at 16 kHz, the same every time."""
    import numpy as np
    import soundfile

    samples = 0.1 * np.random.default_rng(0).standard_normal(int(NOISE_SECONDS * 16_000))
    soundfile.write(Path(path), samples.astype(np.float32), 16_000, subtype="PCM_16")
    return {"path": path}


def main() -> None:
    be_worker()
    given = json.loads(sys.argv[1])
    known: dict[str, Any] = {"packages": packages, "cold": cold, "warm": warm, "machine": machine, "noise": noise}
    found = known[given.pop("what")](**given)
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main()
