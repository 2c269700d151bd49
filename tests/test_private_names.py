"""What gama uses of other libraries that they call private: one list, and each still there.

A name with a leading underscore may go away in any release of its library. Whatever of that kind the code uses stands
in ``PRIVATE`` with the reason; a use that is not listed fails, and so does an entry that nothing uses any more.
"""

from __future__ import annotations

import ast
import atexit
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bitsandbytes._ops
import pytest
import torch
import torch._subclasses.fake_tensor
import torch.utils._python_dispatch
import torch.utils._pytree
from torch import nn
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel, ProcessorMixin, Trainer

import gama
import gama_cli


@dataclass(frozen=True)
class Private:
    """One name.

    Attributes:
        owner: gives the object of the library that holds it.
        reason: what public interface is missing.
        arguments: parameters that our call or our override relies on.
    """

    owner: Callable[[], Any]
    reason: str
    arguments: tuple[str, ...] = ()


# names that the code reads, calls or imports
USED = {
    "_is_amx_tile_supported": Private(lambda: torch.cpu, "no public question for AMX"),
    "_is_avx512_bf16_supported": Private(lambda: torch.cpu, "no public question for AVX512-BF16"),
    "_is_mkldnn_bf16_supported": Private(lambda: torch.ops.mkldnn, "no public question for bf16 products of oneDNN"),
    "_linear_pointwise": Private(lambda: torch.ops.mkldnn, "oneDNN's linear layer with packed weights"),
    "_softmax_backward_data": Private(lambda: torch.ops.aten, "the gradient of softmax without its graph"),
    "_scaled_dot_product_flash_attention_for_cpu": Private(lambda: torch.ops.aten, "the operator that the plan counts"),
    "_scaled_dot_product_flash_attention_for_cpu_backward": Private(lambda: torch.ops.aten, "the same, backwards"),
    "_forward_hooks": Private(lambda: nn.Linear(1, 1), "whether anybody watches a layer that a kernel would skip"),
    "_forward_pre_hooks": Private(lambda: nn.Linear(1, 1), "whether anybody watches a layer that a kernel would skip"),
    "_parameters": Private(lambda: nn.Linear(1, 1), "parameters of one module, tied ones under each of their names"),
    "_buffers": Private(lambda: nn.Linear(1, 1), "buffers of one module"),
    "_modules": Private(lambda: nn.Linear(1, 1), "modules of one module"),
    "_cdata": Private(lambda: torch.zeros(1).untyped_storage(), "the identity of a storage without data"),
    "_version": Private(lambda: torch.zeros(1), "whether a weight was changed in place since it was read"),
    "_attn_implementation": Private(PreTrainedConfig, "which attention a configuration asks for"),
    "_merge_kwargs": Private(
        lambda: ProcessorMixin, "the standard arguments of processors", ("tokenizer_init_kwargs",)
    ),
    "_run_exitfuncs": Private(lambda: atexit, "exit functions of a process that a signal ends without its threads"),
    "_prepare_inputs": Private(lambda: Trainer, "moves a batch to the device as the Trainer does", ("inputs",)),
    "bitsandbytes._ops": Private(lambda: bitsandbytes, "registers the operators that a 4-bit layer calls"),
    "torch._subclasses.fake_tensor": Private(lambda: torch._subclasses, "tensors without data, for the memory plan"),
    "torch.utils._python_dispatch": Private(lambda: torch.utils, "sees every operator of a step"),
    "torch.utils._pytree": Private(lambda: torch.utils, "tensors inside nested arguments"),
}

# methods and class attributes of theirs that a class of ours overrides
OVERRIDDEN = {
    "_init_weights": Private(lambda: PreTrainedModel, "transformers' hook for drawing weights", ("module",)),
    "_supports_sdpa": Private(lambda: PreTrainedModel, "transformers' flag"),
    "_supports_flash_attn": Private(lambda: PreTrainedModel, "transformers' flag"),
    "_supports_attention_backend": Private(lambda: PreTrainedModel, "transformers' flag"),
    "_no_split_modules": Private(lambda: PreTrainedModel, "which layers stay on one device"),
    "_skip_keys_device_placement": Private(lambda: PreTrainedModel, "which arguments stay on their device"),
    "_expand_inputs_for_generation": Private(
        lambda: GenerationMixin, "rows of a beam need their clips", ("expand_size", "is_encoder_decoder", "input_ids")
    ),
    "_get_logits_processor": Private(lambda: GenerationMixin, "processors must see text alone", ("model_kwargs",)),
    "_can_compile_fullgraph": Private(lambda: PreTrainedModel, "transformers' flag"),
    "_get_candidate_generator": Private(lambda: GenerationMixin, "an assistant reads text alone"),
    "_prefill": Private(lambda: GenerationMixin, "a chunk of a prompt gets the clips that stand in it"),
    "_clip_grad_norm": Private(lambda: Trainer, "the norm of each group of parameters"),
    "_get_grad_norm": Private(lambda: Trainer, "the norm of each group of parameters"),
    "_get_train_sampler": Private(lambda: Trainer, "rows of like length together"),
    "_get_eval_sampler": Private(lambda: Trainer, "rows in order"),
    "_get_output_dir": Private(lambda: Trainer, "checkpoints lie beside the weights of the stage", ("trial",)),
    "_save_checkpoint": Private(lambda: Trainer, "a checkpoint is written whole or not at all", ("model", "trial")),
    "_save": Private(lambda: Trainer, "LoRA and audio modules apart from the frozen language model"),
    "_load_from_checkpoint": Private(lambda: Trainer, "the same, read back"),
    "_load_optimizer_and_scheduler": Private(lambda: Trainer, "a damaged file is an error of ours", ("checkpoint",)),
    "_load_rng_state": Private(lambda: Trainer, "a damaged file is an error of ours", ("checkpoint",)),
}

PRIVATE = USED | OVERRIDDEN
TREES = {
    path: ast.parse(path.read_text(encoding="utf-8"))
    for package in (gama, gama_cli)
    for path in Path(package.__file__).parent.rglob("*.py")
}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def own_names() -> set[str]:
    """Private names that our own code defines."""
    own: set[str] = set()
    for tree in TREES.values():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                own.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                own.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                own.add(node.attr)
    return own


def used_names() -> dict[str, str]:
    """Private names of others -> a place that uses them."""
    own, found = own_names() - set(OVERRIDDEN), {}
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
                found[node.attr] = f"{path}:{node.lineno}"
            elif (
                isinstance(node, ast.ImportFrom)
                and node.module
                and node.module.split(".")[0] not in ("gama", "gama_cli", "_typeshed")
            ):
                if any(is_private(part) for part in node.module.split(".")):
                    found[node.module] = f"{path}:{node.lineno}"
                for alias in node.names:
                    if is_private(alias.name):
                        found[f"{node.module}.{alias.name}"] = f"{path}:{node.lineno}"
    return found


def overridden_names() -> set[str]:
    """Private methods and class attributes that a class of ours shares with a base class of another library."""
    shared: set[str] = set()
    bases = {"PreTrainedModel": PreTrainedModel, "GamaPreTrainedModel": PreTrainedModel, "Trainer": Trainer}
    bases["GenerationMixin"] = GenerationMixin
    for tree in TREES.values():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ClassDef):
                continue
            theirs = [bases[name] for base in node.bases if (name := ast.unparse(base)) in bases]
            for statement in node.body:
                names = [statement.name] if isinstance(statement, ast.FunctionDef) else []
                if isinstance(statement, ast.Assign):
                    names = [target.id for target in statement.targets if isinstance(target, ast.Name)]
                shared.update(n for n in names if is_private(n) and any(hasattr(base, n) for base in theirs))
    return shared


def test_every_private_name_is_listed() -> None:
    unlisted = {name: place for name, place in used_names().items() if name not in PRIVATE}
    assert not unlisted, f"give each a line in {Path(__file__).name}, or use a public name: {unlisted}"
    assert overridden_names() <= set(OVERRIDDEN)


def test_every_listed_name_is_used() -> None:
    assert set(USED) <= set(used_names())
    assert set(OVERRIDDEN) <= overridden_names()


@pytest.mark.parametrize("name", PRIVATE)
def test_the_library_still_has_it(name: str) -> None:
    private = PRIVATE[name]
    found = getattr(private.owner(), name.rsplit(".", 1)[-1])
    if private.arguments:
        assert set(private.arguments) <= set(inspect.signature(found).parameters)
