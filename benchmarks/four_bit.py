"""LLaMA-2-7B's shape in 4 bits on a CPU: gama, plain bitsandbytes and llama.cpp Q4_0, in one run on one machine.

Times are of the CPU, the least of several. Models of one layer and of ``--layers`` layers with random weights are
measured, and the time of a layer times 31 is added to that of the first. The limit of a token is the time in which its
weights can be read, the limit of a prompt the time of its products at this machine's best rate, both measured here.

    python benchmarks/four_bit.py --layers 3 --markdown
    python benchmarks/four_bit.py --llama-python /path/to/env/bin/python   # with llama-cpp-python and gguf
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM
from transformers.cache_utils import Cache

from gama.bitsandbytes_import import import_bitsandbytes
from gama.model.key_values import CACHE, RoomyLayer
from gama.quantization.kernels import Kernel, kernel
from gama.quantization.linear import matrix_dtype, settle

bitsandbytes = import_bitsandbytes()

LAYERS = 32
SIZES = {"hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32, "vocab_size": 32000}
MATRICES = ((4096, 4096, 4), (11008, 4096, 2), (4096, 11008, 1))  # outputs, inputs, how many in a layer
WEIGHTS = sum(n * k * times for n, k, times in MATRICES)


def least(run: Callable[[], object], repeats: int) -> float:
    """Least seconds of CPU of several runs, after one that does not count."""
    run()
    times = []
    for _ in range(repeats):
        begun = time.process_time()
        run()
        times.append(time.process_time() - begun)
    return min(times)


# -- the machine -------------------------------------------------------------------------------------------------------


def bandwidth() -> float:
    """Bytes a second that are read from memory."""
    numbers = torch.ones(2**26, dtype=torch.int64)
    return numbers.numel() * 8 / least(numbers.sum, 5)


def rate(dtype: torch.dtype, rows: int) -> float:
    """Operations a second of a product of that many rows with a matrix of the layers."""
    x, weight = torch.randn(rows, 4096).to(dtype), torch.randn(11008, 4096).to(dtype)
    return 2 * rows * weight.numel() / least(lambda: F.linear(x, weight), 4)


# -- gama and bitsandbytes ---------------------------------------------------------------------------------------------


def random_layer(inputs: int, outputs: int) -> nn.Module:
    """A 4-bit layer with random codes and scales, doubly quantized."""
    functional = bitsandbytes.functional
    count = inputs * outputs // 64
    scales = functional.QuantState(
        absmax=torch.full((-(-count // 256),), 0.01),
        code=functional.create_dynamic_map(),
        blocksize=256,
        dtype=torch.float32,
    )
    state = functional.QuantState(
        absmax=torch.randint(0, 256, (count,), dtype=torch.uint8),
        shape=torch.Size((outputs, inputs)),
        code=functional.get_4bit_type("nf4", device="cpu"),
        blocksize=64,
        quant_type="nf4",
        dtype=torch.float32,
        offset=torch.tensor(0.02),
        state2=scales,
    )
    with torch.device("meta"):
        layer = bitsandbytes.nn.Linear4bit(inputs, outputs, bias=False, quant_type="nf4")
    codes = torch.randint(0, 256, (inputs * outputs // 2, 1), dtype=torch.uint8)
    layer.weight = bitsandbytes.nn.Params4bit(
        codes, requires_grad=False, quant_state=state, quant_type="nf4", bnb_quantized=True, module=layer
    )
    return layer


def as_stored(shape: torch.Size) -> Tensor:
    """Weights as a checkpoint in bfloat16 gives them, in float32."""
    return (torch.randn(shape) * 0.02).bfloat16().float()


def language_model(layers: int) -> LlamaForCausalLM:
    """LLaMA-2-7B's sizes with few layers: 4-bit matrices, the rest in float32."""
    config = LlamaConfig(**SIZES, num_hidden_layers=layers)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    for name, module in list(model.model.named_modules()):
        if isinstance(module, nn.Linear):
            model.model.set_submodule(name, random_layer(module.in_features, module.out_features))
    for module in model.modules():
        for key, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_meta:
                setattr(module, key, nn.Parameter(as_stored(parameter.shape), requires_grad=False))
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    return model.eval()


@torch.inference_mode()
def steps(model: LlamaForCausalLM, rows: int, repeats: int, new_cache: Callable[[], Cache]) -> dict[str, float]:
    """Least seconds of CPU of a prompt of that many tokens, and of one token behind it."""
    ids = torch.arange(3, 3 + rows)[None]
    prefill, decode = [], []
    for _ in range(repeats):
        cache = new_cache()
        begun = time.process_time()
        model(input_ids=ids, **{CACHE: cache}, logits_to_keep=1)
        prefill.append(time.process_time() - begun)
        for token in range(4):
            begun = time.process_time()
            model(input_ids=torch.tensor([[token]]), **{CACHE: cache})
            decode.append(time.process_time() - begun)
    return {"prefill_s": min(prefill), "decode_s": min(decode)}


def ours_and_theirs(layers: int, rows: int, repeats: int) -> dict[str, dict[int, dict[str, float]]]:
    """Times by gama, then by bitsandbytes alone, on the same weights."""
    found: dict[str, dict[int, dict[str, float]]] = {"gama": {}, "bitsandbytes": {}}
    for count in (1, layers):
        model = language_model(count)
        settle(model, torch.float32)
        found["gama"][count] = steps(model, rows, repeats, lambda: Cache(layer_class_to_replicate=RoomyLayer))
        for module in model.modules():
            if isinstance(module, bitsandbytes.nn.Linear4bit):
                module.__class__ = bitsandbytes.nn.Linear4bit
        model.lm_head = model.lm_head.to(torch.float32)
        model.lm_head.__class__ = nn.Linear
        steps(model, 1, 1, DynamicCache)  # it repacks its weights the first time
        found["bitsandbytes"][count] = steps(model, rows, repeats, DynamicCache)
    return found


# -- other ways to multiply --------------------------------------------------------------------------------------------


def nf4(rows: int, repeats: int, *, ours: bool) -> float:
    """A layer's products by gama, or by bitsandbytes alone."""
    total = 0.0
    for outputs, inputs, times in MATRICES:
        layers = nn.Sequential(random_layer(inputs, outputs), random_layer(inputs, outputs)).eval()
        if ours:
            settle(layers, torch.float32)
        x = torch.randn(rows, inputs)
        with torch.inference_mode():
            seconds = least(lambda all=layers, x=x: [layer(x) for layer in all], repeats)  # type: ignore[misc]
        total += seconds / len(layers) * times
    return total


def torch_int4(rows: int, repeats: int) -> float:
    """A layer's products by the operator that torchao's int4 weights use on a CPU: levels at equal distances."""
    total = 0.0
    for outputs, inputs, times in MATRICES:
        packed = [
            torch.ops.aten._convert_weight_to_int4pack_for_cpu(
                torch.randint(0, 16, (outputs, inputs), dtype=torch.int32), 1
            )
            for _ in range(2)
        ]
        scales = torch.full((inputs // 64, outputs, 2), 0.01, dtype=torch.bfloat16)
        x = torch.randn(rows, inputs, dtype=torch.bfloat16)
        seconds = least(lambda w=packed, x=x, s=scales: _each(w, x, s), repeats)  # type: ignore[misc]
        total += seconds / len(packed) * times
    return total


def _each(packed: Sequence[Tensor], x: Tensor, scales: Tensor) -> None:
    for weight in packed:
        torch.ops.aten._weight_int4pack_mm_for_cpu(x, weight, 64, scales)


def onnx_4bit(rows: int, repeats: int, threads: int) -> float:
    """A layer's products by onnxruntime's MatMulNBits with products in int8: levels at equal distances."""
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    total = 0.0
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    random = np.random.default_rng(0)
    for outputs, inputs, times in MATRICES:
        blocks = inputs // 64
        weights = [
            numpy_helper.from_array(random.integers(0, 256, (outputs, blocks, 32), dtype=np.uint8), "w"),
            numpy_helper.from_array(np.full(outputs * blocks, 0.01, np.float32), "s"),
        ]
        sides = {"K": inputs, "N": outputs, "bits": 4, "block_size": 64, "accuracy_level": 4}
        node = helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", **sides)
        kind = TensorProto.FLOAT
        graph = helper.make_graph(
            [node],
            "layer",
            [helper.make_tensor_value_info("x", kind, [rows, inputs])],
            [helper.make_tensor_value_info("y", kind, [rows, outputs])],
            weights,
        )
        sets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=sets, ir_version=10).SerializeToString()
        sessions = [onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]) for _ in range(2)]
        x = {"x": random.standard_normal((rows, inputs), dtype=np.float32)}
        seconds = least(lambda all=sessions, x=x: [s.run(None, x) for s in all], repeats)  # type: ignore[misc]
        total += seconds / len(sessions) * times
    return total


# -- llama.cpp ---------------------------------------------------------------------------------------------------------


def llama_cpp(python: str, layers: int, rows: int, threads: int, repeats: int) -> dict[str, Any] | str:
    """Its times, or why there are none."""
    script = Path(__file__).with_name("llama_cpp_steps.py")
    with tempfile.TemporaryDirectory(prefix="gama-llama-") as folder:
        asked = {"folder": folder, "layers": layers, "rows": rows, "threads": threads, "repeats": repeats}
        command = [python, str(script), *(word for k, v in asked.items() for word in (f"--{k}", str(v)))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        said = done.stderr.strip().splitlines()
        return said[-1] if said else f"exit status {done.returncode}"
    return dict(json.loads(lines[-1]))


# -- one run -----------------------------------------------------------------------------------------------------------


def whole(found: dict[Any, dict[str, float]], layers: int, what: str) -> float:
    """Seconds of the whole model: one layer with head and embedding, and 31 more layers."""
    few, many = (found.get(n) or found[str(n)] for n in (1, layers))
    return few[what] + (LAYERS - 1) * (many[what] - few[what]) / (layers - 1)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, as one table for ``--json``."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    compiled = kernel()
    speed, fastest = bandwidth(), rate(matrix_dtype(), options.rows)
    bits = {"gama": 4 + 8 / 64 + 32 / 64 / 256, "bitsandbytes": 4 + 16 / 64, "llama.cpp": 4.5}
    head = {"gama": 16 if isinstance(compiled, Kernel) else 32, "bitsandbytes": 32, "llama.cpp": 4.5}
    found: dict[str, Any] = dict(ours_and_theirs(options.layers, options.rows, options.repeats))
    theirs = llama_cpp(options.llama_python, options.layers, options.rows, options.threads, options.repeats)
    missing = theirs if isinstance(theirs, str) else None
    if isinstance(theirs, dict):
        found["llama.cpp"] = theirs["layers"]
    table = {}
    for name, times in found.items():
        decode, prefill = (whole(times, options.layers, what) for what in ("decode_s", "prefill_s"))
        size = (WEIGHTS * LAYERS * bits[name] + 4096 * 32000 * head[name]) / 8
        products = 2 * options.rows * WEIGHTS * LAYERS
        table[name] = {
            "decode_s": decode,
            "of_bandwidth": size / speed / decode,
            "prefill_s": prefill,
            "of_matrix_rate": products / fastest / prefill,
        }
    return {
        "machine": _processor(),
        "threads": options.threads,
        "layers": options.layers,
        "rows": options.rows,
        "kernel": compiled.name if isinstance(compiled, Kernel) else f"none: {compiled.reason}",
        "bandwidth": speed,
        "matrix_rate": fastest,
        "matrix_dtype": str(matrix_dtype()),
        "whole": table,
        "without_llama_cpp": missing,
        "layer": others(options) if options.others else {},
    }


def others(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Seconds of one layer's seven products; the levels of the last two lie at equal distances, NF4's do not."""
    made: dict[str, Callable[[int], float]] = {
        "gama": lambda rows: nf4(rows, options.repeats, ours=True),
        "bitsandbytes": lambda rows: nf4(rows, options.repeats, ours=False),
        "torch int4 (torchao)": lambda rows: torch_int4(rows, options.repeats),
        "onnxruntime MatMulNBits": lambda rows: onnx_4bit(rows, options.repeats, options.threads),
    }
    return {name: {"decode_s": run(1), "prefill_s": run(options.rows)} for name, run in made.items()}


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    return next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), platform.processor())


def markdown(found: dict[str, Any]) -> str:
    """The tables of four_bit.md."""
    rows = [
        f"{found['machine']}, {found['threads']} thread(s), {found['bandwidth'] / 1e9:.1f} GB/s read, "
        f"{found['matrix_rate'] / 1e9:.0f} GFLOP/s in {found['matrix_dtype'].removeprefix('torch.')}; "
        f"gama's kernel: {found['kernel']}; {found['layers']} layers measured",
        "",
        f"| | s a token | of the bandwidth limit | s for {found['rows']} tokens | of the matrix limit |",
        "|---|---|---|---|---|",
    ]
    for name, row in found["whole"].items():
        rows.append(
            f"| {name} | {row['decode_s']:.3f} | {row['of_bandwidth']:.2f} "
            f"| {row['prefill_s']:.2f} | {row['of_matrix_rate']:.2f} |"
        )
    if found["without_llama_cpp"]:
        rows.append(f"\nllama.cpp was not measured: {found['without_llama_cpp']}")
    if found["layer"]:
        rows += ["", f"| one layer's products | ms a token | ms for {found['rows']} tokens |", "|---|---|---|"]
        rows += [
            f"| {n} | {1e3 * row['decode_s']:.2f} | {1e3 * row['prefill_s']:.1f} |" for n, row in found["layer"].items()
        ]
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=3, help="layers of the larger model, 2 or more")
    parser.add_argument("--rows", type=int, default=126, help="tokens of the prompt")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--llama-python", default=sys.executable, help="the Python that has llama-cpp-python and gguf")
    parser.add_argument("--others", action="store_true", help="also torch's int4 and onnxruntime's MatMulNBits")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))
    found = run(options)
    print(json.dumps(found) if options.json else markdown(found))


if __name__ == "__main__":
    main()
