"""What every benchmark shares: its options, and its rows as JSON or as a markdown table under the machine's facts."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gama.bench import machine


@dataclass(frozen=True)
class Column:
    """One column: the key in a row, what stands above it, and the format of a number."""

    key: str
    title: str = ""
    form: str = ""

    def cell(self, row: dict[str, Any]) -> str:
        value = row[self.key]
        return "" if value is None else format(value, self.form)


def parser(doc: str | None, *, repeats: int) -> argparse.ArgumentParser:
    """``--threads``, ``--repeats``, ``--json`` or ``--markdown``, ``--smoke``."""
    found = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--threads", type=int, default=machine.cores())
    found.add_argument("--repeats", type=int, default=repeats)
    shape = found.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="one JSON object")
    shape.add_argument("--markdown", action="store_true", help="a markdown table (the default)")
    found.add_argument("--smoke", action="store_true", help="sizes too small to mean anything: does it run?")
    return found


def emit(options: argparse.Namespace, name: str, columns: Sequence[Column], rows: Sequence[dict[str, Any]]) -> None:
    """Print."""
    facts = machine.facts()
    if options.json:
        print(json.dumps({"benchmark": name, "repeats": options.repeats, "machine": facts, "rows": list(rows)}))
        return
    packages = ", ".join(f"{package} {version}" for package, version in facts["packages"].items())
    print(f"{name}: {facts['cpu']}, {facts['cores']} core(s), Python {facts['python']}, {packages}; ", end="")
    print(f"medians of {options.repeats}\n")
    print("| " + " | ".join(column.title or column.key for column in columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(column.cell(row) for column in columns) + " |")
