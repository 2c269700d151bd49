"""``gama.load()`` on torch: the packaged model and every other, one engine under every command."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from gama.audio import Waveform
from gama.inference.asking import (
    Answer,
    Asker,
    Asking,
    Heard,
    Prompt,
    Runtime,
    Sampling,
    Span,
    TextStream,
    asking,
    span,
)
from gama.inference.decoding import decode
from gama.inference.loading import load_model
from gama.inference.prefixes import Stored, digest
from gama.inference.sharing import Sharing, sharing
from gama.inference.steps import new_cache
from gama.instant.frontend import FrontEnd
from gama.model.gama import GamaForConditionalGeneration
from gama.model.key_values import CACHE
from gama.model.processing import GamaProcessor
from gama.prompt import Segment, Turn
from gama.quantization.settings import held, weight_bytes

Quantization = Literal["none", "8bit", "4bit"]

_PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class Gama(Asker):
    """A model ready to be asked.

    Attributes:
        model: the transformers model.
        processor: text and clips to its inputs.
        name: as it was asked for.
        quantization: ``none``, ``8bit``, ``4bit`` or ``gptq``.
        frontend: an exported audio front end that hears in place of the model's own tower.
    """

    def __init__(
        self,
        model: GamaForConditionalGeneration,
        processor: GamaProcessor,
        *,
        name: str = "",
        quantization: str = "none",
        frontend: FrontEnd | None = None,
    ) -> None:
        super().__init__()
        if frontend is not None:
            config = model.config
            frontend.check(config.num_audio_tokens, config.text_config.hidden_size, name or "the language model")
        self.model = model
        self.processor = processor
        self.name = name
        self.quantization = quantization
        self.frontend = frontend
        self._tower_state: tuple[tuple[int, int], ...] = ()
        self._hearing_key = ""

    # -- hearing -----------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def hear(self, waveforms: Sequence[Waveform]) -> torch.Tensor:
        """The prefix of each waveform of at most 10.24 s: (clips, 96, D); what was heard lately is not heard again."""
        with self._hearing_lock:
            self._notice_changes()
            prefixes = self.prefixes.gather(
                [w.sha256 for w in waveforms],
                lambda indices: self._heard([waveforms[i] for i in indices]),
                model=self.hearing_key,
                pack=_stored,
                unpack=self._restored,
            )
            return torch.stack(prefixes)

    def hearing_key(self) -> str:
        """Hash of the tower's weights, their precision, the device's kind and the settings of the front end."""
        self._notice_changes()
        if not self._hearing_key:
            config = self.model.config.to_dict()
            facts = {key: config.get(key) for key in ("audio_config", "qformer_config", "aggregator")}
            facts |= {"front end": self.processor.feature_extractor.to_dict(), "device": self.model.device.type}
            heard_by = list(self._weights()) if self.frontend is None else list(self.frontend.contents())
            self._hearing_key = digest([json.dumps(facts, sort_keys=True, default=str), *heard_by])
        return self._hearing_key

    def _notice_changes(self) -> None:
        """Forget what was heard where the tower was trained on, or moved to another device."""
        state = tuple((p.data_ptr(), p._version) for p in self._hearing())
        if state != self._tower_state:
            self.prefixes.clear()
            self._tower_state, self._hearing_key = state, ""

    def _weights(self) -> Iterator[bytes | memoryview | str]:
        state = self.model.state_dict()
        for name in sorted(name for name in state if not name.startswith("language_model.")):
            tensor = state[name].detach().cpu().contiguous()
            yield f"{name} {tensor.dtype} {tuple(tensor.shape)}"
            yield tensor.reshape(-1).view(torch.uint8).numpy().data

    def _restored(self, stored: Stored) -> torch.Tensor:
        dtype = _PRECISIONS[stored.precision]
        values = torch.from_numpy(np.array(stored.values))  # a copy: what was read cannot be written to
        return (values.view(dtype) if dtype == torch.bfloat16 else values).to(self.model.device)

    def _hearing(self) -> Iterator[torch.Tensor]:
        """The weights that a prefix depends on."""
        yield from self.model.audio_tower.parameters()
        if self.model.prefix_positions is not None:
            yield from self.model.prefix_positions.parameters()

    def _heard(self, waveforms: list[Waveform]) -> torch.Tensor:
        if self.frontend is not None:
            prefix = torch.from_numpy(self.frontend.prefix([w.samples for w in waveforms]))
            return prefix.to(self.model.device)
        values = self.processor.feature_extractor(waveforms)["input_features"]
        return self.model.audio_prefix(values.to(self.model.device))

    # -- what Asker needs ----------------------------------------------------------------------------------------------

    @property
    def runtime(self) -> Runtime:
        """PyTorch, and onnxruntime where it runs the audio tower."""
        dtype = str(self.model.audio_tower.encoder.position.dtype).removeprefix("torch.")
        providers = () if self.frontend is None else self.frontend.providers
        return Runtime("torch", str(self.model.device), dtype, self.quantization, providers, weight_bytes(self.model))

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
    def audio_token_id(self) -> int:
        """The placeholder of a soft token."""
        return self.model.config.audio_token_id

    @property
    def tokenizer(self) -> Any:
        """The language model's tokenizer."""
        return self.processor.tokenizer

    def encode(self, segments: Sequence[Segment]) -> list[int]:
        """Segments -> ids, ``num_audio_tokens`` placeholders for each clip."""
        return self.processor.encode(segments)

    def segments(self, turns: Sequence[Turn], template: str | None = None) -> Sequence[Segment]:
        """Turns -> segments, by the template of that name, or else the model's own chat template where it has one."""
        if template is not None or self.processor.has_own_prompt:
            return super().segments(turns, template)
        messages = [{"role": turn.role, "content": _parts(turn)} for turn in turns]
        return self.processor.render_template(messages)

    def _read_in(self, ids: list[int], group: Sequence[Waveform]) -> dict[str, Any]:
        return self._with_sound(self._inputs([ids]), group)

    def _tokens(self, inputs: dict[str, Any], sampling: Sampling) -> Iterator[int]:
        for token in decode(self.model, inputs, sampling, self.stop_ids):
            yield int(token)

    # -- several at a time ---------------------------------------------------------------------------------------------

    def said(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Heard]:
        """Answers to several prompts, each as if it were alone; what they begin with in common is read once."""
        begun = time.perf_counter()
        if windows := list({w.sha256: w for prompt in prompts for w in prompt.windows}.values()):
            self.hear(windows)
        encoded = time.perf_counter()
        shared = sharing(prompts, self.audio_token_id, self.num_audio_tokens)
        inputs = self._together(prompts) if shared is None else self._continued(prompts, shared)
        limits = [self.limited(sampling, len(prompt.ids)).max_new_tokens for prompt in prompts]
        stops = set(self.stop_ids)
        rows: list[list[int]] = [[] for _ in prompts]
        finish = ["length"] * len(prompts)
        first = 0.0
        for tokens in decode(self.model, inputs, sampling, self.stop_ids, limits, [p.ids for p in prompts]):
            first = first or time.perf_counter()
            for row, token in enumerate(tokens.tolist()):
                if finish[row] == "length" and len(rows[row]) < limits[row]:
                    rows[row].append(token)
                    finish[row] = "stop" if token in stops else "length"
        times = (encoded - begun, (first or encoded) - begun, time.perf_counter() - begun)
        return [
            Span(*span(p.windows), len(p.ids), len(p.windows) * self.num_audio_tokens).heard(
                self.whole(i for i in ids if i not in stops), end, len(ids), times
            )
            for p, ids, end in zip(prompts, rows, finish, strict=True)
        ]

    def _together(self, prompts: Sequence[Prompt]) -> dict[str, Any]:
        return self._with_sound(self._inputs([p.ids for p in prompts]), [w for p in prompts for w in p.windows])

    @torch.inference_mode()
    def _continued(self, prompts: Sequence[Prompt], shared: Sharing) -> dict[str, Any]:
        """Read the shared beginnings, and give what is left of each prompt to be read after its own."""
        leaders = [prompts[row] for row in shared.leaders]
        inputs = self._with_sound(
            self._inputs([p.ids[: shared.length] for p in leaders]),
            [w for p in leaders for w in p.windows[: self._clips_in(p.ids[: shared.length])]],
        )
        if CACHE not in inputs:
            return self._together(prompts)
        positions = torch.arange(shared.length, device=self.model.device).unsqueeze(0)
        cache = self.model(**inputs, position_ids=positions, use_cache=True, logits_to_keep=1)[CACHE]
        cache.batch_select_indices(torch.tensor(shared.beginning, device=self.model.device))
        rest = self._inputs([p.ids[shared.length :] for p in prompts])
        read = rest["attention_mask"].new_ones(len(prompts), shared.length)
        rest |= {"attention_mask": torch.cat([read, rest["attention_mask"]], dim=1), CACHE: cache}
        left = [w for p in prompts for w in p.windows[self._clips_in(p.ids[: shared.length]) :]]
        return self._with_sound(rest, left)

    def _clips_in(self, ids: Sequence[int]) -> int:
        return ids.count(self.audio_token_id) // self.num_audio_tokens

    def _with_sound(self, inputs: dict[str, Any], windows: Sequence[Waveform]) -> dict[str, Any]:
        return inputs | {"audio_features": self.hear(windows)} if windows else inputs

    def _inputs(self, prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
        longest = max(map(len, prompts))
        fill = self.processor.tokenizer.pad_token_id or 0
        device = self.model.device
        inputs: dict[str, Any] = {
            "input_ids": torch.tensor([[fill] * (longest - len(p)) + list(p) for p in prompts], device=device),
            "attention_mask": torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device),
        }
        cache = new_cache(self.model)
        return inputs if cache is None else inputs | {CACHE: cache}


def _parts(turn: Turn) -> list[dict[str, str]]:
    return [{"type": "audio"}] * turn.clips + [{"type": "text", "text": turn.text}]


def _stored(prefix: torch.Tensor) -> Stored:
    name = str(prefix.dtype).removeprefix("torch.")
    values = prefix.detach().cpu()
    bits = values.view(torch.uint16) if name == "bfloat16" else values
    return Stored(bits.numpy(), "bfloat16" if name == "bfloat16" else "float16" if name == "float16" else "float32")


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
    return Gama(model, processor, name=str(name_or_dir or "mini"), quantization=held(model), frontend=frontend)


__all__ = ["Answer", "Asking", "Gama", "Heard", "Sampling", "TextStream", "asking", "load"]
