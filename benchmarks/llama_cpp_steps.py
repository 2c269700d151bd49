"""Seconds of CPU that llama.cpp takes for a prompt and for a token, on a LLaMA-2-7B shape of random Q4_0 weights.

Run by :mod:`four_bit` with the Python that has llama-cpp-python, gguf and numpy; prints one JSON object. Two models are
made, of one layer and of several, so that the time of a layer and of the rest come apart.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import time
from pathlib import Path

import gguf
import numpy as np

WIDTH, FEED, HEADS, VOCABULARY = 4096, 11008, 32, 32000
MATRICES = {
    **dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (WIDTH, WIDTH)),
    **dict.fromkeys(("ffn_gate", "ffn_up"), (FEED, WIDTH)),
    "ffn_down": (WIDTH, FEED),
}
Q4_0 = gguf.GGMLQuantizationType.Q4_0


def random_q4_0(rows: int, columns: int, seed: int) -> np.ndarray:
    """Blocks of 32 weights: a scale in float16 and 16 bytes of codes."""
    blocks = np.random.default_rng(seed).integers(0, 256, (rows, columns // 32, 18), dtype=np.uint8)
    blocks[..., :2] = np.frombuffer(np.float16(0.003).tobytes(), np.uint8)
    return blocks.reshape(rows, -1)


def write(path: Path, layers: int) -> None:
    """A GGUF file of LLaMA-2-7B's sizes without a tokenizer."""
    file = gguf.GGUFWriter(str(path), "llama")
    file.add_context_length(2048)
    file.add_embedding_length(WIDTH)
    file.add_block_count(layers)
    file.add_feed_forward_length(FEED)
    file.add_head_count(HEADS)
    file.add_head_count_kv(HEADS)
    file.add_layer_norm_rms_eps(1e-5)
    file.add_rope_dimension_count(WIDTH // HEADS)
    file.add_vocab_size(VOCABULARY)
    file.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    file.add_tokenizer_model("no_vocab")
    for seed, name in enumerate(("token_embd", "output")):
        file.add_tensor(f"{name}.weight", random_q4_0(VOCABULARY, WIDTH, seed), raw_dtype=Q4_0)
    file.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    for layer in range(layers):
        for seed, (name, shape) in enumerate(MATRICES.items()):
            file.add_tensor(f"blk.{layer}.{name}.weight", random_q4_0(*shape, 100 * layer + seed), raw_dtype=Q4_0)
        for name in ("attn_norm", "ffn_norm"):
            file.add_tensor(f"blk.{layer}.{name}.weight", np.ones(WIDTH, np.float32))
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


def measured(path: Path, rows: int, threads: int, repeats: int) -> dict[str, float]:
    """Least seconds of CPU of a prompt of that many tokens, and of one token behind it."""
    import llama_cpp as lib

    model = lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params())
    asked = lib.llama_context_default_params()
    asked.n_ctx = asked.n_batch = asked.n_ubatch = 512
    asked.n_threads = asked.n_threads_batch = threads
    context = lib.llama_init_from_model(model, asked)
    if not context:
        raise SystemExit(f"llama.cpp cannot open {path}")

    def step(tokens: list[int]) -> float:
        ids = (lib.llama_token * len(tokens))(*tokens)  # the batch points into it
        batch = lib.llama_batch_get_one(ids, len(tokens))
        begun = time.process_time()
        if lib.llama_decode(context, batch):
            raise SystemExit("llama_decode failed")
        lib.llama_get_logits_ith(context, -1)
        return time.process_time() - begun

    prefill, decode = [], []
    for _ in range(repeats):
        lib.llama_memory_clear(lib.llama_get_memory(context), True)
        prefill.append(step([3 + 37 * i % 31000 for i in range(rows)]))
        decode += [step([5 + i]) for i in range(4)]
    lib.llama_free(context)
    lib.llama_model_free(model)
    return {"prefill_s": min(prefill), "decode_s": min(decode)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--layers", type=int, required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--repeats", type=int, required=True)
    options = parser.parse_args()
    backends = os.environ.get("LLAMA_CPP_LIB_PATH")
    if backends and (found := next(Path(backends).glob("libggml.so*"), None)):
        library = ctypes.CDLL(str(found), mode=ctypes.RTLD_GLOBAL)
        library.ggml_backend_load_all_from_path(backends.encode())  # prebuilt: one library for each processor
    result = {}
    for layers in (1, options.layers):
        path = options.folder / f"q4_0-{layers}.gguf"
        if not path.is_file():
            write(path, layers)
        result[layers] = measured(path, options.rows, options.threads, options.repeats)
    import llama_cpp

    print(json.dumps({"version": llama_cpp.__version__, "layers": result}))


if __name__ == "__main__":
    main()
