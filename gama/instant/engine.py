"""The instant engine: the packaged model answers from a cold start, without torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gama.audio import Waveform
from gama.checkpoints.bundled import model_folder
from gama.checkpoints.folder_checks import check_processor, read_config
from gama.checkpoints.json_files import parse_table
from gama.errors import CheckpointError
from gama.inference.answers import Heard
from gama.inference.asking import Asker, Prompt, Runtime, Sampling, last
from gama.inference.prefixes import Stored, digest
from gama.inference.sharing import sharing
from gama.instant.frontend import Float, FrontEnd, open_front_end
from gama.instant.language import InstantLanguageModel, Past
from gama.instant.providers import session
from gama.instant.tokenizer import InstantTokenizer
from gama.instant.weights import WEIGHTS, header_hash
from gama.prompt import Segment

FRONT_END = "front_end.onnx"
LANGUAGE_MODEL = "language_model.onnx"

_IDS = ("audio_token_id", "num_audio_tokens", "hidden_size", "context", "eos_id")
_ID_LISTS = ("stop_ids", "bos_ids")
_FACTS = (*_IDS, *_ID_LISTS, "template", "weights_header")

_Inputs = tuple[list[int], Float | None, Past | None]


def has_instant_graphs(folder: Path) -> bool:
    """Whether a model folder holds the graphs of the instant engine."""
    return all((folder / name).is_file() for name in (FRONT_END, LANGUAGE_MODEL))


class Instant(Asker):
    """A model on onnxruntime: asked as :class:`~gama.inference.engine.Gama` is, with the same greedy answers.

    Args:
        folder: holds the two graphs, ``model.safetensors`` and ``tokenizer.json``.
        name: as it was asked for.
        provider: of onnxruntime; see :func:`gama.instant.providers.choose`.
        frontend: an exported front end in place of the folder's own.
        threads: that hear; :func:`gama.threads.threads` by default.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "",
        provider: str = "cpu",
        frontend: FrontEnd | None = None,
        threads: int | None = None,
    ) -> None:
        super().__init__()
        _check_files(folder)
        read_config(folder)
        self.name = name
        # one thread: its products are too small to share
        language = session(folder / LANGUAGE_MODEL, provider, num_threads=1, quick=True)
        self._facts = _facts(folder / LANGUAGE_MODEL, language.get_modelmeta().custom_metadata_map)
        if self._facts.get("weights_header") != header_hash(folder / WEIGHTS):
            raise CheckpointError(
                f"{folder / LANGUAGE_MODEL} was exported from other weights than {WEIGHTS} beside it",
                f"gama export instant --model {folder}",
            )
        self._language = InstantLanguageModel(language, self._facts["audio_token_id"], folder / LANGUAGE_MODEL)
        self._tokenizer = InstantTokenizer(
            folder / "tokenizer.json",
            audio_token_id=self._facts["audio_token_id"],
            num_audio_tokens=self._facts["num_audio_tokens"],
            bos_ids=self._facts["bos_ids"],
            eos_id=self._facts["eos_id"],
        )
        check_processor(
            folder,
            audio_token_id=self._facts["audio_token_id"],
            num_audio_tokens=self._facts["num_audio_tokens"],
        )
        self.frontend = frontend or open_front_end(folder / FRONT_END, provider, quick=True, num_threads=threads)
        self.frontend.check(self._facts["num_audio_tokens"], self._facts["hidden_size"], name or str(folder))
        self._hearing_key = ""

    # -- what Asker needs ----------------------------------------------------------------------------------------------

    @property
    def runtime(self) -> Runtime:
        """onnxruntime in float32."""
        device = self.frontend.providers[0].removesuffix("ExecutionProvider").lower()
        return Runtime("onnxruntime", device, "float32", providers=self.frontend.providers)

    @property
    def context(self) -> int:
        """Tokens the language model can attend to."""
        return int(self._facts["context"])

    @property
    def stop_ids(self) -> list[int]:
        """Ids that end an answer."""
        return list(self._facts["stop_ids"])

    @property
    def template(self) -> str:
        """The model's own prompt template."""
        return str(self._facts["template"])

    @property
    def num_audio_tokens(self) -> int:
        """Soft tokens a clip becomes."""
        return int(self._facts["num_audio_tokens"])

    @property
    def audio_token_id(self) -> int:
        """The placeholder of a soft token."""
        return int(self._facts["audio_token_id"])

    @property
    def language(self) -> InstantLanguageModel:
        """The language model's graph."""
        return self._language

    @property
    def tokenizer(self) -> InstantTokenizer:
        """The language model's tokenizer."""
        return self._tokenizer

    def encode(self, segments: Sequence[Segment]) -> list[int]:
        """Segments -> ids, ``num_audio_tokens`` placeholders for each clip."""
        return self._tokenizer.encode(segments)

    def said(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Heard]:
        """Answers to several prompts, one after the other; what they begin with in common is read once."""
        shared = sharing(prompts, self.audio_token_id, self.num_audio_tokens)
        if shared is None:
            return super().said(prompts, sampling)
        begun = [self._beginning(prompts[row], shared.length) for row in shared.leaders]
        return [
            self._after(begun[index].copy(), prompt, sampling)
            for prompt, index in zip(prompts, shared.beginning, strict=True)
        ]

    def _beginning(self, prompt: Prompt, length: int) -> Past:
        past, ids = self._language.begin(), prompt.ids[:length]
        windows = prompt.windows[: ids.count(self.audio_token_id) // self.num_audio_tokens]
        self._language.read(ids, self._prefix(windows), past)
        return past

    def _after(self, past: Past, prompt: Prompt, sampling: Sampling) -> Heard:
        left = prompt.windows[prompt.ids[: past.length].count(self.audio_token_id) // self.num_audio_tokens :]
        inputs = (list(prompt.ids), self._prefix(left), past)
        heard: Heard = last(self._said(prompt, sampling, inputs))
        return heard

    def _prefix(self, windows: Sequence[Waveform]) -> Float | None:
        return np.concatenate(list(self.hear(windows))) if windows else None

    def _read_in(self, ids: list[int], group: Sequence[Waveform]) -> _Inputs:
        return ids, self._prefix(group), None

    def _tokens(self, inputs: _Inputs, sampling: Sampling) -> Iterator[int]:
        ids, prefix, past = inputs
        return self._language.generate(ids, prefix, sampling, self.stop_ids, past)

    # -- hearing -------------------------------------------------------------------------------------------------------

    def hear(self, waveforms: Sequence[Waveform]) -> Float:
        """The prefix of each waveform of at most 10.24 s: (clips, 96, D); what was heard lately is not heard again."""
        with self._hearing_lock:
            prefixes = self.prefixes.gather(
                [w.sha256 for w in waveforms],
                lambda indices: self.frontend.prefix([waveforms[i].samples for i in indices]),
                model=self.hearing_key,
                pack=Stored,
                unpack=lambda stored: stored.values,
            )
            return np.stack(prefixes)

    def hearing_key(self) -> str:
        """Hash of the front end's graph, its weights, and what computes them."""
        if not self._hearing_key:
            self._hearing_key = digest(["onnxruntime", self.runtime.device, *self.frontend.contents()])
        return self._hearing_key


def _check_files(folder: Path) -> None:
    if not has_instant_graphs(folder):
        raise CheckpointError(
            f"{folder} holds no instant graphs ({FRONT_END}, {LANGUAGE_MODEL})",
            f"gama export instant --model {folder}, or --runtime torch",
        )


def _facts(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    facts = parse_table(metadata.get("gama.instant", "").encode(), str(path), "a graph of gama export instant")
    lists = all(_are_ids(facts.get(name)) for name in _ID_LISTS)
    if not lists or not _are_ids([facts.get(name) for name in _IDS]) or not isinstance(facts.get("template"), str):
        raise CheckpointError(f"{path}: no graph of gama export instant: {', '.join(_FACTS)} are expected in it")
    return facts


def _are_ids(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def load(
    name_or_dir: str | Path | None = None,
    *,
    provider: str = "cpu",
    frontend: FrontEnd | None = None,
    threads: int | None = None,
) -> Instant:
    """Load a model that has instant graphs: the packaged gama-mini by default.

    Raises:
        CheckpointError: when there is no such model, or it has no graphs that fit its weights.
        DeviceError: for a provider this machine does not have.
    """
    folder = model_folder(name_or_dir)
    name = str(name_or_dir or "mini")
    return Instant(folder, name=name, provider=provider, frontend=frontend, threads=threads)


__all__ = ["Instant", "has_instant_graphs", "load"]
