"""What is wrong with the rows of manifests, and the rows without what is wrong.

The manifests are read twice and never held: first every clip is named, then each clip is decoded once, then each row
is judged. Memory grows with the clips, not with the rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from gama.atomic import check_output
from gama.data.clips import ClipFacts, clip_facts
from gama.data.manifest import Row, Writer, entries, require_file_name, writing
from gama.data.origins import origin, side
from gama.data.parallel import mapped
from gama.data.remap import Remap, named_from
from gama.errors import ManifestError

KINDS: dict[str, tuple[str, bool]] = {
    "malformed": ("a field is missing or of the wrong kind", True),
    "missing": ("the clip is not there", True),
    "unreadable": ("the clip cannot be decoded", True),
    "too-short": ("the clip is shorter than the shortest allowed", True),
    "too-long": ("the model hears only the first seconds", False),
    "silent": ("the clip's peak lies below -80 dBFS", True),
    "over-range": ("samples lie above full scale; gama prepare audio scales such a clip down", False),
    "wrong-rate": ("the clip is resampled at every reading", False),
    "duplicate-audio": ("another file holds the same samples", False),
    "both-sides": ("the same recording is held out, or in another fold", True),
    "empty-question": ("there is nothing to answer", True),
    "empty-answer": ("there is nothing to learn", True),
    "cut": ("question and answer are longer than the limit", False),
}
"""What is looked for: what it means, and whether such a row is dropped unless told otherwise."""

DROPPED: tuple[str, ...] = tuple(kind for kind, (_, dropped) in KINDS.items() if dropped)

Sides = frozenset[str]
Key = TypeVar("Key", int, str)

_SIDES: dict[Sides, Sides] = {}  # equal sets are one object: there are few, of many clips
_EXAMPLES = 3
_PROMPT = "### Instruction:\n{instruction}\n\n### Response:\n"
_ENDS = 2  # tokens: beginning and end of sequence


@dataclass(frozen=True)
class Limits:
    """What a clip and a row may be.

    Attributes:
        min_seconds: 25 ms make one frame.
        max_seconds: the model hears 10.24 s.
        rate: Hz at which a clip is read as it is.
        tokens: longest question and answer; 108 in the released recipes.
    """

    min_seconds: float = 0.025
    max_seconds: float = 10.24
    rate: int = 16_000
    tokens: int = 108


@dataclass(frozen=True)
class Finding:
    """One thing wrong with one row."""

    kind: str
    manifest: str
    row: int
    detail: str


@dataclass
class Report:
    """What was found.

    Attributes:
        rows, clips, kept: rows read, clips they name, rows that no kind to drop was found in.
        counts: rows of each kind; a row can be of several.
        examples: the first of each kind.
        constant: rows that the original would have trained on a constant spectrogram: its loader takes one in the
            place of every clip that it cannot read.
    """

    rows: int = 0
    clips: int = 0
    kept: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Finding]] = field(default_factory=dict)
    constant: int = 0

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        found = {
            kind: {"rows": self.counts[kind], "examples": [vars(e) for e in self.examples.get(kind, [])]}
            for kind in KINDS
        }
        facts = {"rows": self.rows, "clips": self.clips, "kept": self.kept}
        return facts | {"constant_spectrogram_in_the_original": self.constant, "found": found}

    def _add(self, finding: Finding) -> None:
        self.counts[finding.kind] += 1
        examples = self.examples.setdefault(finding.kind, [])
        if len(examples) < _EXAMPLES:
            examples.append(finding)


class Checker:
    """Checks manifests.

    Args:
        manifests: what is trained on.
        held_out: what is not; a recording of theirs among ``manifests`` is on both sides.
        remap: where the clips lie.
        limits: what a clip and a row may be.
        count_tokens: how many tokens a text has; None: rows are not measured.
        drop: kinds whose rows are left out of the cleaned manifest.
        workers: processes that decode.
        progress: called with how many clips were decoded since its last call.
    """

    def __init__(
        self,
        manifests: Sequence[Path],
        *,
        held_out: Sequence[Path] = (),
        remap: Remap | None = None,
        limits: Limits | None = None,
        count_tokens: Callable[[str], int] | None = None,
        drop: Iterable[str] = DROPPED,
        workers: int = 1,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.manifests, self.held_out = manifests, held_out
        self.remap, self.limits = remap or Remap(), limits or Limits()
        self.count_tokens = count_tokens
        self.drop = frozenset(drop)
        self.workers, self.progress = workers, progress or (lambda _: None)
        self.clips: dict[str, int] = {}
        self.names: list[str] = []
        self.facts: list[ClipFacts] = []
        self.first_of: dict[str, int] = {}
        self.clip_sides: dict[int, Sides] = {}
        self.origin_sides: dict[str, Sides] = {}
        self.content_sides: dict[str, Sides] = {}

    def run(self, cleaned: Path | None = None) -> Report:
        """Check everything.

        Args:
            cleaned: written with the rows that are kept; what is dropped goes, with its reasons, into a file of the
                same name that ends in ``.dropped.jsonl``.

        Raises:
            ManifestError: for a manifest that is not there or no JSON.
            OutputError: where ``cleaned`` cannot be written, or is one of the manifests.
        """
        for path in (cleaned, dropped_beside(cleaned)) if cleaned else ():
            check_output(path, [*self.manifests, *self.held_out], make_folder=True, regular=True)
        self._name_clips()
        self._decode()
        report = Report(clips=len(self.clips))
        with ExitStack() as stack:
            kept = stack.enter_context(writing(cleaned)) if cleaned else None
            dropped = stack.enter_context(writing(dropped_beside(cleaned))) if cleaned else None
            for record, row, manifest, number in self._rows(self.manifests):
                findings = list(self._judged(record, row, manifest, number))
                report.rows += 1
                report.constant += self._constant(record, manifest)
                for finding in findings:
                    report._add(finding)
                reasons = [f for f in findings if f.kind in self.drop]
                report.kept += not reasons
                if reasons and dropped:
                    dropped.add(_dropped(record, manifest, number, reasons))
                elif kept and cleaned and not reasons:
                    self._keep(kept, cleaned, record, manifest)
        return report

    def _rows(self, manifests: Sequence[Path]) -> Iterator[tuple[Any, Row | ManifestError, Path, int]]:
        for manifest in manifests:
            for number, (record, row) in enumerate(entries(manifest), 1):
                yield record, row, manifest, number

    def _clip(self, record: Any, manifest: Path) -> Path | None:
        name = record.get("audio_id") if isinstance(record, dict) else None
        if not isinstance(name, str) or not name:
            return None
        try:
            require_file_name(name, "")
        except ManifestError:  # which the row is reported for
            return None
        return self.remap.file(name, manifest)

    def _name_clips(self) -> None:
        for held_out, manifests in ((False, self.manifests), (True, self.held_out)):
            for record, _, manifest, _ in self._rows(manifests):
                clip = self._clip(record, manifest)
                if clip is None:
                    continue
                index = self.clips.setdefault(str(clip), len(self.clips))
                where = side(record, held_out=held_out)
                _seen(self.clip_sides, index, frozenset([where]))
                if (recording := origin(record)) is not None:
                    _seen(self.origin_sides, recording, frozenset([where]))
        self.names = list(self.clips)

    def _decode(self) -> None:
        for facts in mapped(clip_facts, map(Path, self.names), workers=self.workers):
            index = len(self.facts)
            self.facts.append(facts)
            if facts.content:
                self.first_of.setdefault(facts.content, index)
                _seen(self.content_sides, facts.content, self.clip_sides[index])
            self.progress(1)

    def _constant(self, record: Any, manifest: Path) -> bool:
        clip = self._clip(record, manifest)
        return clip is not None and self.facts[self.clips[str(clip)]].problem != ""

    def _judged(self, record: Any, row: Row | ManifestError, manifest: Path, number: int) -> Iterator[Finding]:
        def found(kind: str, detail: str) -> Finding:
            return Finding(kind, str(manifest), number, detail)

        if isinstance(row, ManifestError):
            yield found("malformed", str(row))
            return
        if not row.instruction.strip():
            yield found("empty-question", repr(row.instruction))
        if not row.output.strip():
            yield found("empty-answer", repr(row.output))
        if self.count_tokens is not None:
            prompt = "\n".join(filter(None, (row.instruction, row.input)))
            tokens = _ENDS + self.count_tokens(_PROMPT.format(instruction=prompt) + row.output)
            if tokens > self.limits.tokens:
                yield found("cut", f"{tokens} tokens, the limit is {self.limits.tokens}")
        clip = self._clip(record, manifest)
        if clip is not None:
            index = self.clips[str(clip)]
            yield from (found(kind, detail) for kind, detail in self._of_clip(clip, index))
            if (other := self._other_side(record, index)) is not None:
                yield found("both-sides", other)

    def _of_clip(self, clip: Path, index: int) -> Iterator[tuple[str, str]]:
        facts, limits = self.facts[index], self.limits
        if facts.problem:
            yield facts.problem, facts.detail
            return
        if facts.seconds < limits.min_seconds:
            yield "too-short", f"{clip}: {facts.seconds:.3f} s, at least {limits.min_seconds} s is asked for"
        if facts.seconds > limits.max_seconds:
            yield "too-long", f"{clip}: {facts.seconds:.2f} s, the limit is {limits.max_seconds} s"
        if facts.silent:
            yield "silent", f"{clip}: its peak lies below -80 dBFS"
        if facts.is_over_range:
            yield "over-range", f"{clip}: its samples reach {facts.peak:.3g} times full scale"
        if facts.rate != limits.rate:
            yield "wrong-rate", f"{clip}: {facts.rate} Hz"
        first = self.first_of.get(facts.content, index)
        if first != index:
            yield "duplicate-audio", f"{clip} holds the samples of {self.names[first]}"

    def _other_side(self, record: dict[str, Any], index: int) -> str | None:
        here = side(record, held_out=False)
        if here == "held-out":
            return None
        recording = origin(record)
        found = (
            (recording, self.origin_sides.get(recording or "")),
            ("the same sound", self.content_sides.get(self.facts[index].content)),
            ("the same clip", self.clip_sides[index]),
        )
        for what, sides in found:
            others = (sides or frozenset()) - {here}
            if "held-out" in others:
                return f"{what} is held out as well"
            folds = sorted(other for other in others if other.startswith("fold"))
            if folds and here.startswith("fold"):
                return f"{what} is in {', '.join(folds)} as well"
        return None

    def _keep(self, kept: Writer, cleaned: Path, record: dict[str, Any], manifest: Path) -> None:
        clip = self._clip(record, manifest)
        kept.add(record if clip is None else record | {"audio_id": named_from(clip, cleaned.parent)})


def dropped_beside(cleaned: Path) -> Path:
    """Where the rows left out of a cleaned manifest go."""
    return cleaned.with_name(f"{cleaned.stem}.dropped.jsonl")


def _seen(sides: dict[Key, Sides], key: Key, where: Sides) -> None:
    there = sides.get(key, frozenset()) | where
    sides[key] = _SIDES.setdefault(there, there)


def _dropped(record: Any, manifest: Path, number: int, reasons: Sequence[Finding]) -> dict[str, Any]:
    return {
        "manifest": str(manifest),
        "row": number,
        "reasons": {reason.kind: reason.detail for reason in reasons},
        "record": record,
    }
