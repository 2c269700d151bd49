"""GAMA in the hands of peft, trl and datasets, as their users write it. Tests skip only where a package is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from model import small
from model.small import WORDS, logits
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from gama.model.gama import GamaForConditionalGeneration

PLACEHOLDER = 3
CLIP = small.clip(PLACEHOLDER)
IDS = torch.tensor([CLIP + WORDS])
CONV_STEM = small.ENCODER | {"stem": "conv", "stem_channels": [4, 8, 8]}
LORA: dict[str, Any] = {"r": 2, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}

pytestmark = pytest.mark.filterwarnings("ignore:.*checkpointing:FutureWarning")  # peft asks by the old name


def folder_of(tmp_path: Path) -> Path:
    """A small model with a stem that has statistics, in a folder."""
    made = small.model("llama", audio_config=CONV_STEM, audio_token_id=PLACEHOLDER)
    made.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def few_steps(model: nn.Module) -> None:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    model.train()
    for _ in range(3):
        model(input_ids=IDS, input_features=small.fbanks(1), labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_an_adapter_reloads_as_it_was(kind: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    folder, fbank = folder_of(tmp_path), small.fbanks(1)
    config = peft.LoraConfig(**LORA, use_dora=kind == "dora")
    adapted = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config)
    before = logits(adapted, IDS, input_features=fbank)
    few_steps(adapted)
    want = logits(adapted, IDS, input_features=fbank)
    assert not torch.allclose(want, before, atol=1e-2)
    adapted.save_pretrained(tmp_path / "adapter")
    again = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter").eval()
    assert torch.equal(logits(again, IDS, input_features=fbank), want)
    merged = again.merge_and_unload()
    assert isinstance(merged, GamaForConditionalGeneration)
    torch.testing.assert_close(logits(merged, IDS, input_features=fbank), want, atol=1e-4, rtol=1e-4)


@pytest.mark.filterwarnings("ignore")  # bitsandbytes speaks about kernels of other machines
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_qlora(dtype: torch.dtype, checkpointing: bool, tmp_path: Path) -> None:
    """The usual recipe, which leaves half-precision statistics beside float32 weights in the stem."""
    peft, _ = pytest.importorskip("peft"), pytest.importorskip("bitsandbytes")
    form: dict[str, Any] = {"audio_config": CONV_STEM, "audio_token_id": PLACEHOLDER}
    made = small.model("llama", text_width=64, **form)  # rows in multiples of 32, as 4 bits on a CPU want them
    made.save_pretrained(tmp_path)
    bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=dtype)
    base = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=bits, dtype=dtype)
    prepared = peft.prepare_model_for_kbit_training(base, use_gradient_checkpointing=checkpointing)
    adapted = peft.get_peft_model(prepared, peft.LoraConfig(**LORA)).train()
    adapted(input_ids=IDS, input_features=small.fbanks(1), labels=IDS).loss.backward()
    gradients = [p.grad for n, p in adapted.named_parameters() if "lora_B" in n]
    assert len(gradients) == 4 and all(g is not None and g.abs().sum() > 0 for g in gradients)


def test_prompt_tuning_hears_the_clip(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = AutoModelForCausalLM.from_pretrained(folder_of(tmp_path))
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    tuned = peft.get_peft_model(base, config)
    few_steps(tuned)
    one, other = (logits(tuned, IDS, input_features=small.fbanks(1, seed=seed)) for seed in (1, 2))
    assert one.shape[1] == IDS.shape[1] + 4 and not torch.allclose(one, other, atol=1e-2)


def test_distributed_training_of_the_released_form(tmp_path: Path) -> None:
    """Plain DistributedDataParallel, which refuses its second step where a parameter got no gradient."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        made = small.model("llama", aggregator="released", audio_token_id=PLACEHOLDER)
        few_steps(nn.parallel.DistributedDataParallel(made.train()))
    finally:
        torch.distributed.destroy_process_group()


def rows(count: int) -> list[dict[str, Any]]:
    drawn = torch.Generator().manual_seed(0)
    return [
        {"array": torch.randn(small.FRAMES, small.BINS, generator=drawn).tolist(), "words": [*WORDS, 5 + i]}
        for i in range(count)
    ]


def collate(batch: list[dict[str, Any]]) -> dict[str, Tensor]:
    ids = torch.tensor([CLIP + row["words"] for row in batch])
    labels = ids.masked_fill(ids == PLACEHOLDER, -100)
    labels[:, len(CLIP)] = -100
    clips = torch.tensor([row["array"] for row in batch])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels, "input_features": clips}


@pytest.mark.filterwarnings("ignore")  # trl speaks about its own settings
@pytest.mark.parametrize("adapter", [False, True])
def test_sft_trainer_with_audio_rows(adapter: bool, tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    model = AutoModelForCausalLM.from_pretrained(folder_of(tmp_path))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    arguments = trl.SFTConfig(
        output_dir=str(tmp_path / "out"),
        max_steps=2,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        report_to="none",
        use_cpu=True,
        bf16=False,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        logging_steps=1,
    )
    peft_config = None
    if adapter:
        peft_config = pytest.importorskip("peft").LoraConfig(**LORA)
    trainer = trl.SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=datasets.Dataset.from_list(rows(4)),
        data_collator=collate,
        processing_class=small.tokenizer(),
        peft_config=peft_config,
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 2 and all(0 < loss < 20 for loss in losses)
    after = dict(trainer.model.named_parameters())
    if adapter:
        assert all(p.abs().sum() > 0 for n, p in after.items() if "lora_B" in n)
    else:
        moved = {n for n, p in after.items() if not torch.equal(p, before[n])}
        assert {"audio_tower.encoder.position", "language_model.lm_head.weight"} <= moved
