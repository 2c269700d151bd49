"""Rows kept out of training tell how well it goes: the loss on them, and some of their questions answered."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from gama.atomic import write_errors, write_text
from gama.data.collator import AnswerCollator
from gama.data.dataset import ClipDataset, Item
from gama.training.held_out import Chosen
from gama.training.objectives import Answering, TrainingObjective

SAMPLES = "samples.jsonl"
_NEW_TOKENS = 64  # of a sampled answer


@dataclass(frozen=True)
class Sample:
    """A question of the held-out rows, answered at a step of the training."""

    step: int
    audio: str
    question: str
    expected: str
    answer: str


Show = Callable[[Sample], None]
"""Called with every sampled answer."""


class Validation(TrainerCallback):
    """Writes each evaluation's loss into its step's line of metrics, and answers some questions.

    Args:
        metrics: the run's ``metrics.jsonl``.
        rows: what is kept out.
        collator: of the stage.
        objective: what is trained.
        count: questions answered; 0 for none.
        bf16: whether the model computes in bfloat16.
        show: called with each answer.
    """

    def __init__(
        self,
        metrics: Path,
        rows: Chosen | ClipDataset,
        collator: Any,
        objective: TrainingObjective,
        *,
        count: int,
        bf16: bool,
        show: Show | None = None,
    ) -> None:
        self.metrics, self.rows, self.collator, self.objective = metrics, rows, collator, objective
        self.count = count if isinstance(objective, Answering) else 0
        self.bf16, self.show = bf16, show

    @property
    def _file(self) -> Path:
        return self.metrics.with_name(SAMPLES)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero and self._file.exists():
            lines = self._file.read_text(encoding="utf-8").splitlines(keepends=True)
            write_text(self._file, "".join(line for line in lines if _step(line) <= state.global_step))

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Mapping[str, float] | None = None, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        add_to_step(self.metrics, state.global_step, {"eval_loss": float((metrics or {})["eval_loss"])})
        if args.fsdp or args.deepspeed:
            return  # their weights lie in pieces in all processes: an answer would need all of them
        for sample in self._samples(state.global_step):
            with write_errors(self._file), self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(sample), ensure_ascii=False) + "\n")
            if self.show is not None:
                self.show(sample)

    def _samples(self, step: int) -> list[Sample]:
        training = self.objective.training
        self.objective.eval()
        try:
            every = range(0, len(self.rows), max(1, len(self.rows) // max(1, self.count)))
            return [self._sample(step, index) for index in list(every)[: self.count]]
        finally:
            self.objective.train(training)

    def _sample(self, step: int, index: int) -> Sample:
        item = self.rows[index]
        question = item.questions[0]
        audio = self.rows.audio(index)
        assert isinstance(self.objective, Answering)
        answer = said(self.objective, self.collator, item, bf16=self.bf16)
        return Sample(step, "" if audio is None else str(audio), question.instruction, question.output, answer)


def said(objective: Answering, collator: AnswerCollator, item: Item, *, bf16: bool) -> str:
    """The likeliest answer to the first question of an item."""
    assert item.fbank is not None
    gama, question = objective.gama, item.questions[0]
    prompt = collator.example(question.instruction, question.output).prompt
    clip = [collator.processor.audio_token_id] * collator.processor.num_audio_tokens
    ids = torch.tensor([[*clip, *collator.bos, *prompt]], device=gama.device)
    with torch.no_grad(), torch.autocast(gama.device.type, dtype=torch.bfloat16, enabled=bf16):
        out = gama.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            audio_features=gama.place(objective.prefix(item.fbank.unsqueeze(0).to(gama.device))),
            max_new_tokens=_NEW_TOKENS,
            do_sample=False,
            pad_token_id=collator.tokenizer.pad_token_id or 0,
            eos_token_id=collator.tokenizer.eos_token_id,
            use_cache=True,
        )
    text: str = collator.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    return text.strip()


def add_to_step(metrics: Path, step: int, values: Mapping[str, float]) -> None:
    """Put more numbers into the last line of a file of metrics, which is that of ``step``; one line is left a step."""
    lines = metrics.read_text(encoding="utf-8").splitlines()
    if lines and _step(lines[-1]) == step:
        lines[-1] = json.dumps(json.loads(lines[-1]) | dict(values))
        write_text(metrics, "".join(f"{line}\n" for line in lines))


def _step(line: str) -> float:
    """The step of a line; infinity for one that was cut short."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return float("inf")
