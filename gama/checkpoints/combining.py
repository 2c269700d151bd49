"""Several sources into one model: which key of which source becomes which weight, and why the others do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from torch import Tensor

from gama.checkpoints.names import dropped_because, lora_slot, our_name
from gama.checkpoints.origins import TITLES, Kind, Shape, foreign_because, recognise, released_name
from gama.checkpoints.reading import Weights
from gama.errors import CheckpointError
from gama.model.configuration import AggregatorForm

Role = Literal["audio", "encoder", "qformer", "base", "clap"]
_PRECEDENCE: tuple[Role, ...] = ("encoder", "qformer", "audio", "base")
_PROJECTORS = ("audio_tower.qformer_projector.", "audio_tower.aggregator_projector.", "audio_tower.projector.")
_BRANCHES = ("audio_tower.qformer.", "audio_tower.aggregator.")
_AUDIO_NAMES = ("model.audio_", "model.Qformer.", "model.query_tokens", "model.qformer_proj_norm.")
LANGUAGE_MODEL = "language_model."


@dataclass(frozen=True, eq=False)
class Source:
    """Weights that were given, and as what.

    Attributes:
        role: the option they were given by.
        path: as given.
        weights: opened.
        kind: what they are.
        alpha: LoRA's alpha where its adapter_config.json says it.
    """

    role: Role
    path: Path
    weights: Weights
    kind: Kind
    alpha: float | None = None


@dataclass(frozen=True)
class Fate:
    """What became of one key: ``loaded`` as a weight, ``lora`` of a module, or ``dropped`` for a reason."""

    role: Role
    key: str
    what: Literal["loaded", "lora", "dropped"]
    detail: str


@dataclass(frozen=True, eq=False)
class Combination:
    """Every weight's place in the model.

    Attributes:
        weights: our name -> tensor.
        lora: module of the language model -> (A, B).
        alpha: LoRA's alpha where a source says it.
        fates: one for every key of every source.
    """

    weights: dict[str, Tensor] = field(default_factory=dict)
    lora: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    alpha: float | None = None
    fates: list[Fate] = field(default_factory=list)

    @property
    def shapes(self) -> dict[str, Shape]:
        """Our name -> shape."""
        return {name: tuple(tensor.shape) for name, tensor in self.weights.items()}

    def dropped(self) -> Counter[str]:
        """Reason -> how many keys."""
        return Counter(fate.detail for fate in self.fates if fate.what == "dropped")


def check_kinds(sources: Iterable[Source]) -> None:
    """Refuse weights that are not what their option asks for.

    Raises:
        CheckpointError: naming what was given and what was expected.
    """
    allowed: dict[Role, tuple[tuple[Kind, ...], str]] = {
        "audio": (("gama", "ltu", "lora", "base"), "a stage checkpoint of GAMA or LTU (pytorch_model.bin)"),
        "encoder": (("cavmae",), "CAV-MAE weights"),
        "qformer": (("lavis",), "a Q-Former pretraining checkpoint (LAVIS)"),
        "base": (("language model", "base", "ltu", "unknown"), "the folder of a causal language model"),
        "clap": (("clap",), "a LAION-CLAP checkpoint"),
    }
    for source in sources:
        kinds, expected = allowed[source.role]
        if source.kind not in kinds:
            raise CheckpointError(
                f"{source.path}: given as --{source.role}, which takes {expected}; it holds: {TITLES[source.kind]}",
                f"gama inspect {source.path}",
            )


def combine(sources: Sequence[Source], aggregator: AggregatorForm, *, stage1: bool = False) -> Combination:
    """Give every key its place or the reason why it has none.

    An explicit ``--encoder`` or ``--qformer`` wins over the same part of ``--audio``, and that over ``--base``; the
    audio encoder inside a Q-Former checkpoint is taken where nothing else gives one.

    Args:
        sources: what was given.
        aggregator: the form of the aggregator.
        stage1: leave projectors and LoRA out: they belong to another language model and are learned anew.

    Raises:
        CheckpointError: for unknown keys, and for two keys of one role that hold the same weight.
    """
    ledger = _Ledger(sources, aggregator, stage1)
    for source, key, name in _ordered(sources):
        ledger.enter(source, key, name)
    if ledger.unknown:
        raise CheckpointError(
            f"{len(ledger.unknown)} key(s) belong to no part of GAMA: {some(ledger.unknown)}",
            "is this another model's checkpoint?",
        )
    ledger.made.lora.update(_pairs(ledger.halves))
    alpha = next((s.alpha for s in sources if s.alpha is not None), None)
    return replace(ledger.made, alpha=alpha)


def is_ltu(made: Combination, sources: Iterable[Source]) -> bool:
    """Whether the sources make a model of LTU's form: an LTU checkpoint, and nothing of a Q-Former beside it."""
    return any(s.kind == "ltu" for s in sources) and not any(name.startswith(_BRANCHES) for name in made.weights)


@dataclass(eq=False)
class _Ledger:
    """What has been given a place so far."""

    sources: Sequence[Source]
    aggregator: AggregatorForm
    stage1: bool
    made: Combination = field(default_factory=Combination)
    holders: dict[str, Source] = field(default_factory=dict)
    halves: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def enter(self, source: Source, key: str, name: str) -> None:
        """Give a key of a source, by its name in the released code, its fate."""
        slot, ours = lora_slot(name), _ours(name, source)
        reason = self._reason(source, name, ours)
        if reason is not None:
            self.made.fates.append(Fate(source.role, key, "dropped", reason))
        elif slot is not None:
            if slot in self.halves:
                raise CheckpointError(f"two keys hold lora_{slot[1]} of {slot[0]}; one is {key} of {source.path}")
            self.halves[slot] = source.weights[key]
            self.made.fates.append(Fate(source.role, key, "lora", slot[0]))
        elif ours is None:
            self.unknown.append(key)
        else:
            if ours in self.holders:
                raise CheckpointError(f"two keys hold {ours}; one is {key} of {source.path}")
            self.holders[ours] = source
            self.made.weights[ours] = source.weights[key]
            self.made.fates.append(Fate(source.role, key, "loaded", ours))

    def _reason(self, source: Source, name: str, ours: str | None) -> str | None:
        """Why a key is dropped; None for one that is not."""
        if lora_slot(name) is not None:
            return "LoRA for the language model it was trained with; stage 1 has none" if self.stage1 else None
        reason = dropped_because(name, self.aggregator) or foreign_because(name)
        if reason is None and self.stage1 and ours is not None:
            reason = _left_out(ours, source, self.sources)
        holder = self.holders.get(ours or "")
        if reason is None and holder is not None and holder.role != source.role:
            reason = f"replaced by --{holder.role}"
        return reason


def _ordered(sources: Sequence[Source]) -> Iterator[tuple[Source, str, str]]:
    """(source, key, name in the released code) in order of precedence."""
    late: list[tuple[Source, str, str]] = []
    for role in _PRECEDENCE:
        for source in sources:
            if source.role != role:
                continue
            for key in source.weights:
                item = source, key, released_name(key, source.kind)
                if source.kind == "lavis" and item[2].startswith("model.audio_encoder."):
                    late.append(item)
                else:
                    yield item
    yield from late


def _ours(name: str, source: Source) -> str | None:
    """Our name; a language model keeps its own names behind a prefix."""
    if source.role == "base" and not name.startswith(_AUDIO_NAMES):
        return LANGUAGE_MODEL + name
    return our_name(name)


def _left_out(ours: str, source: Source, sources: Sequence[Source]) -> str | None:
    if ours.startswith(_PROJECTORS):
        return "drawn anew in the language model's width: stage 1 trains it"
    if ours.startswith(LANGUAGE_MODEL) and source.role != "base" and any(s.role == "base" for s in sources):
        return "replaced by --base"
    return None


def _pairs(halves: Mapping[tuple[str, str], Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    modules = sorted({module for module, _ in halves})
    lone = [m for m in modules if (m, "A") not in halves or (m, "B") not in halves]
    if lone:
        raise CheckpointError(f"LoRA of {some(lone)} lacks lora_A or lora_B")
    return {m: (halves[m, "A"], halves[m, "B"]) for m in modules}


def check_fit(
    made: Combination, expected: Mapping[str, Shape], tied: Iterable[str], *, drawn: bool = False
) -> list[str]:
    """Compare with the model that is to be made; returns the names of the tower that are to be drawn.

    Args:
        made: what the sources give.
        expected: our name -> shape, of the model.
        tied: names that are another weight and need no key.
        drawn: whether missing weights of the audio tower are drawn at random.

    Raises:
        CheckpointError: for missing, surplus and misshapen weights, naming them.
    """
    missing = [n for n in expected if n not in made.weights and n not in set(tied)]
    absent = [n for n in missing if n.startswith(LANGUAGE_MODEL) or not drawn]
    surplus = [n for n in made.weights if n not in expected] + [m for m in made.lora if f"{m}.weight" not in expected]
    wrong = [
        f"{_key_of(made, n)} is {shape}, expected {expected[n]}"
        for n, shape in made.shapes.items()
        if n in expected and shape != expected[n]
    ]
    wrong += list(_wrong_lora(made, expected))
    if wrong:
        raise CheckpointError(
            f"{len(wrong)} weight(s) have another shape: {some(wrong)}",
            "another base model? --stage1 starts anew with this one",
        )
    if surplus:
        raise CheckpointError(
            f"{len(surplus)} weight(s) fit no place in this model: {some(surplus)}",
            "another base model, or a kind whose weights transformers renames as it loads them",
        )
    if absent:
        raise CheckpointError(*_incomplete(absent))
    return missing


def _incomplete(absent: Sequence[str]) -> tuple[str, str]:
    language = [n for n in absent if n.startswith(LANGUAGE_MODEL)]
    if len(language) == len(absent):
        return f"the language model lacks {len(absent)} weight(s): {some(absent)}", "give its whole folder as --base"
    parts = sorted({".".join(n.split(".")[:2]) if n.startswith("audio_tower.") else "language_model" for n in absent})
    return (
        f"{len(absent)} weight(s) are in none of the sources: {', '.join(parts)}, such as {some(absent, 2)}",
        "give what holds them (--audio, --encoder, --qformer), or --stage1 to draw them for a first training stage",
    )


def _wrong_lora(made: Combination, expected: Mapping[str, Shape]) -> Iterator[str]:
    for module, (a, b) in made.lora.items():
        shape = expected.get(f"{module}.weight")
        if shape is not None and ((b.shape[0], a.shape[1]) != shape or a.shape[0] != b.shape[1]):
            yield f"LoRA of {module} is {tuple(b.shape)} x {tuple(a.shape)}, expected {shape}"
    ranks = sorted({a.shape[0] for a, _ in made.lora.values()})
    if len(ranks) > 1:
        yield f"LoRA has several ranks ({', '.join(map(str, ranks))}), expected one"


def _key_of(made: Combination, name: str) -> str:
    return next(fate.key for fate in made.fates if fate.what == "loaded" and fate.detail == name)


def some(names: Iterable[str], limit: int = 5) -> str:
    """The first few names and how many more there are."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def source(role: Role, path: Path, weights: Weights, alpha: float | None = None) -> Source:
    """A source whose kind is told from its keys."""
    shapes = {key: tuple(weights[key].shape) for key in weights}
    return Source(role, path, weights, recognise(shapes), alpha)
