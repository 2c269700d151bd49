"""A plan as lines for people and as plain values for programs. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gama.training.planning import Plan

_GIB = 2**30


def plan_lines(plan: Plan) -> list[str]:
    """A plan in five lines."""
    learning = [f"{part.name} {_count(part.trainable)}" for part in plan.parts if part.trainable]
    every = sum(part.trainable + part.frozen for part in plan.parts)
    total = sum(part.trainable for part in plan.parts)
    return [
        f"{plan.name}: {_count(total)} of {_count(every)} parameters learn ({', '.join(learning) or 'nothing'})",
        _memory_line(plan),
        _fit_line(plan),
        _steps_line(plan),
        _hours_line(plan),
    ]


def _memory_line(plan: Plan) -> str:
    memory = plan.memory
    kinds = {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "optimizer": memory.optimizer,
        f"activations of {plan.micro_batch} row(s)": memory.activations,
        "program": memory.program,
    }
    inside = ", ".join(f"{name} {_size(size)}" for name, size in kinds.items())
    beside = f"; {_size(memory.mapped)} of frozen weights stay in their file, mapped" if memory.mapped else ""
    return f"memory {_size(memory.total)}: {inside}{beside}"


def _fit_line(plan: Plan) -> str:
    where = f"{_size(plan.available)} ({plan.where})"
    if plan.largest == 0:
        return f"fits not into {where}: not even a micro-batch of 1"
    batch = plan.micro_batch * plan.accumulation
    if plan.largest >= plan.micro_batch:
        return f"fits into {where}: micro-batch {plan.micro_batch}, up to {plan.largest} would; batch {batch}"
    change = f"per_device_train_batch_size={plan.largest} gradient_accumulation_steps={plan.kept_accumulation}"
    return f"does not fit into {where}: keep the batch of {batch} with --set {' --set '.join(change.split())}"


def _steps_line(plan: Plan) -> str:
    if plan.steps is None or plan.tokens is None:
        return "steps: not known before the data is there (--data MANIFEST, or --set max_steps=N)"
    length = "" if plan.tokens_counted else " at most (no tokenizer to count with)"
    rows = f"{plan.rows:,} rows an epoch" if plan.rows is not None else "rows not counted"
    batch = plan.micro_batch * plan.accumulation
    return f"{plan.steps:,} steps of {batch} rows ({rows}), {_count(plan.tokens)} tokens{length}"


def _hours_line(plan: Plan) -> str:
    speed = plan.speed
    how = "a step was timed" if speed.tried else f"computed from {speed.rate / 1e9:.0f} GFLOP/s of products"
    work = f"{_figure(plan.flops_a_step / 1e12)} TFLOP and {_figure(plan.seconds_a_step)} s a step"
    hours = "" if plan.hours is None else f"{_hours(plan.hours)} on this machine's {speed.device}: "
    return f"{hours}{work} ({how})"


def plan_values(plan: Plan) -> dict[str, Any]:
    """A plan as plain values; bytes, seconds, hours."""
    memory = plan.memory
    return {
        "stage": plan.name,
        "parameters": {p.name: {"trainable": p.trainable, "frozen": p.frozen} for p in plan.parts},
        "memory": {
            "weights": {p.name: p.weights for p in plan.parts},
            "gradients": memory.gradients,
            "optimizer": memory.optimizer,
            "activations": memory.activations,
            "program": memory.program,
            "total": memory.total,
            "mapped": memory.mapped,
            "available": plan.available,
            "where": plan.where,
        },
        "micro_batch": plan.micro_batch,
        "largest_micro_batch": plan.largest,
        "gradient_accumulation_steps": plan.accumulation,
        "gradient_accumulation_steps_at_largest": plan.kept_accumulation,
        "rows": plan.rows,
        "steps": plan.steps,
        "tokens": plan.tokens,
        "tokens_counted": plan.tokens_counted,
        "flops_a_step": plan.flops_a_step,
        "seconds_a_step": plan.seconds_a_step,
        "processor_seconds_a_step": plan.seconds_a_step * plan.speed.busy,
        "timed": plan.speed.tried,
        "device": plan.speed.device,
        "hours": plan.hours,
    }


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _count(number: int) -> str:
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


def _size(size: int) -> str:
    return f"{size / _GIB:.3g} GiB" if size >= _GIB / 10 else f"{size / 2**20:.3g} MiB"


def _hours(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"
