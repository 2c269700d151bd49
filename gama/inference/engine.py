"""``gama.load()`` on torch: the packaged model and every other, one engine under every command."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from gama.audio import Waveform
from gama.inference.asking import Answer, Asker, Asking, Heard, Runtime, Sampling, Span, TextStream, asking, span
from gama.inference.decoding import decode
from gama.inference.loading import load_model
from gama.instant.frontend import FrontEnd
from gama.model.gama import GamaForConditionalGeneration
from gama.model.processing import GamaProcessor
from gama.prompt import Segment

Quantization = Literal["none", "8bit", "4bit"]

_KEPT_PREFIXES = 64  # clips whose prefix is remembered


class Gama(Asker):
    """A model ready to be asked.

    Attributes:
        model: the transformers model.
        processor: text and clips to its inputs.
        name: as it was asked for.
        quantization: ``none``, ``8bit`` or ``4bit``.
        frontend: an exported audio front end that hears in place of the model's own tower.
    """

    def __init__(
        self,
        model: GamaForConditionalGeneration,
        processor: GamaProcessor,
        *,
        name: str = "",
        quantization: Quantization = "none",
        frontend: FrontEnd | None = None,
    ) -> None:
        if frontend is not None:
            config = model.config
            frontend.check(config.num_audio_tokens, config.text_config.hidden_size, name or "the language model")
        self.model = model
        self.processor = processor
        self.name = name
        self.quantization = quantization
        self.frontend = frontend
        self._prefixes: dict[str, torch.Tensor] = {}
        self._tower_state: tuple[tuple[int, int], ...] = ()

    # -- hearing -----------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def hear(self, waveforms: Sequence[Waveform]) -> torch.Tensor:
        """The prefix of each waveform of at most 10.24 s: (clips, 96, D); what was heard lately is not heard again."""
        state = tuple((p.data_ptr(), p._version) for p in self._hearing())
        if state != self._tower_state:  # trained on, or moved to another device
            self._prefixes, self._tower_state = {}, state
        new = {w.sha256: w for w in waveforms if w.sha256 not in self._prefixes}
        if new:
            for key, prefix in zip(new, self._heard(list(new.values())), strict=True):
                self._prefixes[key] = prefix
        prefixes = torch.stack([self._prefixes[w.sha256] for w in waveforms])
        for key in list(self._prefixes)[:-_KEPT_PREFIXES]:
            del self._prefixes[key]
        return prefixes

    def _hearing(self) -> Iterator[torch.Tensor]:
        """The weights that a prefix depends on."""
        yield from self.model.audio_tower.parameters()
        if self.model.prefix_positions is not None:
            yield from self.model.prefix_positions.parameters()

    def _heard(self, waveforms: list[Waveform]) -> torch.Tensor:
        if self.frontend is not None:
            prefix = torch.from_numpy(self.frontend.prefix([w.samples for w in waveforms]))
            return prefix.to(self.model.device)
        values = self.processor.feature_extractor(waveforms)["audio_values"]
        return self.model.get_audio_features(values.to(self.model.device))

    # -- what Asker needs ----------------------------------------------------------------------------------------------

    @property
    def runtime(self) -> Runtime:
        """PyTorch, and onnxruntime where it runs the audio tower."""
        dtype = str(self.model.audio_tower.encoder.position.dtype).removeprefix("torch.")
        providers = () if self.frontend is None else self.frontend.providers
        return Runtime("torch", str(self.model.device), dtype, self.quantization, providers)

    @property
    def context(self) -> int:
        """Tokens the language model can attend to."""
        return int(getattr(self.model.config.text_config, "max_position_embeddings", 4096))

    @property
    def stop_ids(self) -> list[int]:
        """Ids that end an answer."""
        configured = self.model.generation_config.eos_token_id
        ids = configured if isinstance(configured, list) else [configured]
        return [i for i in {*ids, self.processor.tokenizer.eos_token_id} if i is not None]

    @property
    def template(self) -> str:
        """The model's own prompt template."""
        return self.processor.template

    @property
    def num_audio_tokens(self) -> int:
        """Soft tokens a clip becomes."""
        return self.model.config.num_audio_tokens

    @property
    def tokenizer(self) -> Any:
        """The language model's tokenizer."""
        return self.processor.tokenizer

    def encode(self, segments: Sequence[Segment]) -> list[int]:
        """Segments -> ids, ``num_audio_tokens`` placeholders for each clip."""
        return self.processor.encode(segments)

    def _read_in(self, ids: list[int], group: Sequence[Waveform]) -> dict[str, Any]:
        inputs = self._inputs([ids])
        if group:
            inputs["audio_features"] = self.hear(group)
        return inputs

    def _tokens(self, inputs: dict[str, Any], sampling: Sampling) -> Iterator[int]:
        for token in decode(self.model, inputs, sampling, self.stop_ids):
            yield int(token)

    # -- several at a time ---------------------------------------------------------------------------------------------

    def _batch(self, jobs: Sequence[tuple[int, list[Waveform]]], questions: Sequence[str], how: Asking) -> list[Heard]:
        begun = time.perf_counter()
        prompts = [self._prompt(group, questions[index], how) for index, group in jobs]
        inputs = self._inputs(prompts)
        inputs["audio_features"] = self.hear([window for _, group in jobs for window in group])
        encoded = time.perf_counter()
        limits = [min(how.sampling.max_new_tokens, self.context - len(p)) for p in prompts]
        rows: list[list[int]] = [[] for _ in jobs]
        finish = ["length"] * len(jobs)
        first = 0.0
        for tokens in decode(self.model, inputs, how.sampling, self.stop_ids, limits):
            first = first or time.perf_counter()
            for row, token in enumerate(tokens.tolist()):
                if finish[row] == "length" and len(rows[row]) < limits[row]:
                    rows[row].append(token)
                    finish[row] = "stop" if token in self.stop_ids else "length"
        times = (encoded - begun, (first or encoded) - begun, time.perf_counter() - begun)
        tokenizer = self.processor.tokenizer
        heard = []
        for (_, group), prompt, ids, end in zip(jobs, prompts, rows, finish, strict=True):
            text = tokenizer.decode(
                [i for i in ids if i not in self.stop_ids], skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
            facts = Span(*span(group), len(prompt), len(group) * self.num_audio_tokens)
            heard.append(facts.heard(text, end, len(ids), times))
        return heard

    def _inputs(self, prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
        longest = max(map(len, prompts))
        fill = self.processor.tokenizer.pad_token_id or 0
        device = self.model.device
        return {
            "input_ids": torch.tensor([[fill] * (longest - len(p)) + list(p) for p in prompts], device=device),
            "attention_mask": torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device),
        }


def load(
    name_or_dir: str | Path | None = None,
    *,
    quant: Quantization = "none",
    device: str = "auto",
    dtype: str = "auto",
    frontend: FrontEnd | None = None,
) -> Gama:
    """Load a model: the packaged gama-mini by default.

    Args:
        name_or_dir: a name or a folder of ``save_pretrained``.
        quant: hold the language model in 8 or 4 bits (bitsandbytes); the audio tower stays as it is.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        dtype: ``auto`` (float32 on a CPU, bfloat16 on a GPU), ``float32``, ``bfloat16`` or ``float16``.
        frontend: an exported front end (:func:`gama.instant.frontend.open_front_end`) in place of the audio tower.

    Raises:
        CheckpointError: when there is no such model, or its weights or the front end do not fit.
        DeviceError: for a device this machine does not have.
        MissingPackageError: when quantization is asked for without bitsandbytes.
    """
    model, processor = load_model(name_or_dir, quant=quant, device=device, dtype=dtype)
    return Gama(model, processor, name=str(name_or_dir or "mini"), quantization=quant, frontend=frontend)


__all__ = ["Answer", "Asking", "Gama", "Heard", "Sampling", "TextStream", "asking", "load"]
