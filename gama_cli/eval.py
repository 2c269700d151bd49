"""``gama eval``: answer a manifest and score the answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gama_cli import console
from gama_cli.options import fold_list, json_option, model_options

if TYPE_CHECKING:
    from gama.inference.engine import Quantization


@click.command("eval")
@click.argument("manifests", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="MANIFEST…")
@click.option("--folds", callback=fold_list, metavar="1,2,…", help="Only recordings of these folds.")
@click.option("--labels", metavar="A,B,…|esc10|esc18", help="Only clips whose first event is one of these classes.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Ask about the first N clips.")
@click.option("--answers", type=click.Path(path_type=Path, dir_okay=False), help="Write every answer here, JSON lines.")
@model_options
@json_option
def evaluate(
    manifests: tuple[Path, ...],
    folds: tuple[int, ...] | None,
    labels: str | None,
    limit: int | None,
    answers: Path | None,
    model: str | None,
    quant: Quantization,
    device: str,
    dtype: str,
    as_json: bool,
) -> None:
    """Answer every row of each MANIFEST and count the right answers, task by task.

    \b
    Examples:
      gama prepare scenes --count 500 --seed 9000 --questions 6 --out fresh
      gama eval fresh/manifest.json
      gama eval real/manifest.json --folds 4 --labels esc10
    """
    import json
    import os

    from gama.data.scenes.classes import ESC10, ESC18
    from gama.evaluation.scoring import Result, answered, select, summary
    from gama.inference.opening import load

    named = {"esc10": ESC10, "esc18": ESC18}
    chosen = None if labels is None else named.get(labels) or tuple(labels.split(","))
    groups = select(manifests, folds=folds, labels=chosen, limit=limit)  # before the model is loaded
    gama = load(model, quant=quant, device=device, dtype=dtype)
    results: list[Result] = []
    with console.progress(len(groups), "asking") as advance:
        for result in answered(gama, groups, advance):
            results.append(result)
    if answers is not None:
        partial = answers.with_name(f"{answers.name}.tmp")
        with partial.open("w", encoding="utf-8") as file:
            for r in results:
                row: dict[str, object] = {"clip": str(r.row.audio), "task": r.task, "question": r.row.instruction}
                row |= {"answer": r.answer, "expected": r.row.output, "right": r.right}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        os.replace(partial, answers)
    table = summary(results)
    if as_json:
        console.json_line(table)
        return
    rows = [(task, e["n"], e["right"], f"{100 * e['accuracy']:.1f} %") for task, e in table.items()]
    click.echo(console.table(("TASK", "N", "RIGHT", "SHARE"), rows))
