"""``gama eval``: answer a manifest and score the answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gama.atomic import check_output, open_text
from gama.errors import PromptError
from gama_cli import console
from gama_cli.ask_clips import SAMPLING, cache_of, loading_of
from gama_cli.left_out import LeftOut
from gama_cli.options import (
    batch_size_option,
    cache_options,
    channel_option,
    fold_list,
    json_option,
    max_duration_option,
    model_options,
    runtime_options,
    threads_option,
)
from gama_cli.sampling_options import generation_options

if TYPE_CHECKING:
    from gama.data.manifest import Row
    from gama.inference.hearing import Request


@click.command("eval")
@click.argument("manifests", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="MANIFEST…")
@click.option("--folds", callback=fold_list, metavar="1,2,…", help="Only recordings of these folds.")
@click.option("--labels", metavar="A,B,…|esc10|esc18", help="Only clips whose first event is one of these classes.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Ask about the first N clips.")
@click.option("--answers", type=click.Path(path_type=Path, dir_okay=False), help="Write every answer here, JSON lines.")
@batch_size_option
@channel_option
@max_duration_option
@model_options
@runtime_options
@threads_option
@cache_options
@generation_options
@json_option
def evaluate(
    manifests: tuple[Path, ...],
    folds: tuple[int, ...] | None,
    labels: str | None,
    limit: int | None,
    answers: Path | None,
    batch_size: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Answer every row of each MANIFEST and count the right answers, task by task.

    A malformed row, or one whose clip or question cannot be used, is reported and not counted; the exit status is 1.

    \b
    Examples:
      gama prepare scenes --count 500 --seed 9000 --questions 6 --out fresh
      gama eval fresh/manifest.json
      gama eval real/manifest.json --folds 4 --labels esc10
      gama eval rows.json --model DIR --preset gama-paper --seed 1
    """

    from gama.data.scenes.classes import ESC10, ESC18
    from gama.evaluation.scoring import Result, right, select, summary
    from gama.inference.opening import open_asker
    from gama.text import json_text

    named = {"esc10": ESC10, "esc18": ESC18}
    chosen = None if labels is None else named.get(labels) or tuple(labels.split(","))
    left_out, failed = LeftOut(), 0
    groups = select(
        manifests, folds=folds, labels=chosen, limit=limit, malformed=left_out
    )  # before the model is loaded
    rows = [row for group in groups for row in group]
    if answers is not None:
        check_output(answers, [*manifests, *(row.audio for row in rows if row.audio is not None)])
    how = {key: options[key] for key in (*SAMPLING, "channel", "max_duration")}
    gama = open_asker(loading_of(options), cache_of(options))
    results: list[Result] = []
    with console.progress(len(rows), "asking") as advance:
        for row, reply in zip(rows, gama.replies(map(_request, rows), batch_size=batch_size, **how), strict=True):
            advance(1)
            if reply.answer is None:
                failed += 1
                console.fail(str(reply.error))
                continue
            answer = str(reply.answer)
            results.append(Result(row, answer, right(row, answer)))
    if answers is not None:
        with open_text(answers, errors="backslashreplace", durable=True) as file:
            for r in results:
                line: dict[str, object] = {"clip": str(r.row.audio), "task": r.task, "question": r.row.instruction}
                line |= {"answer": r.answer, "expected": r.row.output, "right": r.right}
                file.write(json_text(line) + "\n")
    table = summary(results)
    if as_json:
        console.json_line(table)
    else:
        shown = [(task, e["n"], e["right"], f"{100 * e['accuracy']:.1f} %") for task, e in table.items()]
        click.echo(console.table(("TASK", "N", "RIGHT", "SHARE"), shown))
    if failed:
        console.fail(f"{failed} of {len(rows)} row(s) have no answer and are not counted")
    if left_out.close() or failed:
        raise SystemExit(1)


def _request(row: Row) -> Request:
    from gama.inference.hearing import Request
    from gama.prompt import instruction

    try:
        return Request(row.audio, instruction(row.instruction, input=row.input))
    except PromptError as error:
        return Request(row.audio, row.instruction, PromptError(f"{row.audio}: {error.message}", error.hint))
