"""What a stage minimises: one module an objective, each around the whole model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from gama.data.hearing import MOST_COUNTED
from gama.data.scenes.classes import CLASSES
from gama.data.scenes.transcript import EVENT_SLOTS
from gama.model.gama import IGNORED, GamaForConditionalGeneration
from gama.training.kept import Layout, prefix_of

_SUMMARY = 32  # soft tokens of the Q-Former, which name what a scene is as a whole
_COMMON_WEIGHT = 0.25  # weight of the words that fill most of a timeline
_TIMELINE_WEIGHT = 0.5  # its soft tokens learn early
_FACTS = 7  # soft tokens of an event: class, count, start, end, length, loudness, pitch
_CLASS_WEIGHTS = (1.0, 3.0, 3.0)  # of the first, second and third event: which sounds second is learned last
_COUNT_WEIGHT = 3.0


def keep_less(
    gama: GamaForConditionalGeneration,
    options: dict[str, Any] | None = None,
    *,
    every_n_layers: int = 1,
    offload: bool = False,
) -> None:
    """Let the language model's layers be computed again in the backward pass, in place of keeping what they computed.

    Args:
        gama: the model.
        options: of ``torch.utils.checkpoint``.
        every_n_layers: of so many layers, one is computed again.
        offload: keep the inputs of those layers in the host's memory.
    """
    enable = getattr(gama, "activation_checkpointing_enable", None) or gama.gradient_checkpointing_enable
    enable({"use_reentrant": False, **(options or {})}, every_n_layers=every_n_layers, offload=offload)


class TrainingObjective(nn.Module):
    """A model and the heads that it needs only while training.

    Args:
        gama: the model.
        learns_statistics: whether batch-norm statistics move; only where batches are large and mixed.
    """

    def __init__(self, gama: GamaForConditionalGeneration, *, learns_statistics: bool = False) -> None:
        super().__init__()
        self.gama = gama
        self.learns_statistics = learns_statistics

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: dict[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """Keep less for the backward pass (called by the Trainer): see :func:`keep_less`."""
        keep_less(self.gama, activation_checkpointing_kwargs, every_n_layers=every_n_layers, offload=offload)

    def gradient_checkpointing_enable(
        self,
        gradient_checkpointing_kwargs: dict[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """The same, as transformers before 5.20 calls it."""
        keep_less(self.gama, gradient_checkpointing_kwargs, every_n_layers=every_n_layers, offload=offload)

    def train(self, mode: bool = True) -> TrainingObjective:
        super().train(mode)
        if not self.learns_statistics:
            for module in self.gama.audio_tower.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self


class Tagging(TrainingObjective):
    """Name the classes in every time patch and in the whole crop, by logistic losses (as AST and CAV-MAE)."""

    def __init__(self, gama: GamaForConditionalGeneration) -> None:
        super().__init__(gama, learns_statistics=True)
        width = gama.config.audio_config.hidden_size
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, len(CLASSES))
        nn.init.constant_(self.head.bias, -4.0)

    def forward(self, fbank: Tensor, labels: Tensor, first_patch: int = 0) -> dict[str, Tensor]:
        """fbank (B, frames, 128), labels (B, T, C) -> loss, and ``logits`` (B, T, C)."""
        encoder = self.gama.audio_tower.encoder
        features = encoder.pool(encoder(fbank, first_patch=first_patch).last)
        logits = self.head(self.norm(features)).float()
        whole = torch.logsumexp(logits, dim=1) - torch.log(torch.tensor(float(logits.shape[1])))
        frame_loss = F.binary_cross_entropy_with_logits(logits, labels)
        clip_loss = F.binary_cross_entropy_with_logits(whole + 1.0, labels.amax(dim=1))
        return {"loss": 10.0 * frame_loss + 10.0 * clip_loss, "logits": logits}


def _summary_weights() -> Tensor:
    """How much each soft token of the summary counts, one on average: (32,)."""
    weights = torch.ones(_SUMMARY)
    for event, weight in enumerate(_CLASS_WEIGHTS):
        weights[_FACTS * event] = weight
        weights[_FACTS * event + 1] = _COUNT_WEIGHT
    return weights / weights.mean()


class Naming(nn.Module):
    """Each soft token names its word: softmax over the language model's own embeddings.

    The prefix is pulled towards the embeddings themselves, so that the language model can read it at once.
    """

    common: Tensor
    summary: Tensor
    log_scale: nn.Parameter

    def __init__(self, gama: GamaForConditionalGeneration, common: Tensor) -> None:
        super().__init__()
        embeddings = gama.get_input_embeddings().get_parameter("weight")
        self.log_scale = nn.Parameter(torch.tensor(0.0))
        self.register_buffer("common", common, persistent=False)
        self.register_buffer("summary", _summary_weights(), persistent=False)
        self.typical = float(embeddings.detach().square().mean())

    def forward(self, prefix: Tensor, words: Tensor, embeddings: Tensor) -> Tensor:
        """prefix (B, 96, D), words (B, 96), embeddings (V, D) -> loss."""
        logits = prefix.float() @ embeddings.float().T * (self.log_scale.exp() / self.typical / prefix.shape[-1] ** 0.5)
        each = F.cross_entropy(logits.flatten(0, 1), words.flatten(), reduction="none").view(words.shape)
        weight = torch.where(torch.isin(words, self.common), _COMMON_WEIGHT, 1.0)
        weight = weight / weight.mean()
        each = each * weight
        loss = (each[:, :_SUMMARY] * self.summary).mean() + _TIMELINE_WEIGHT * each[:, _SUMMARY:].mean()
        pull = (prefix.float() - embeddings[words].float()).square().mean() / self.typical
        return loss + 0.1 * pull


class Hearing(nn.Module):
    """Every time patch of the encoder says what sounds in it: see :class:`gama.data.hearing.Heard`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.sizes = (len(CLASSES), EVENT_SLOTS, 1, MOST_COUNTED, 2)
        self.head = nn.Linear(width, sum(self.sizes))

    def forward(self, pooled: Tensor, heard: dict[str, Tensor]) -> Tensor:
        """pooled (B, T, D), targets with (B, T, ...) -> loss."""
        said = self.head(self.norm(pooled)).float()
        classes, ordinal, onset, number, level = said.split(self.sizes, dim=-1)
        loss = 10.0 * F.binary_cross_entropy_with_logits(classes, heard["classes"])
        loss = loss + 2.0 * F.binary_cross_entropy_with_logits(ordinal, heard["ordinal"])
        counted = ~heard["onset"].isnan()
        loss = loss + F.binary_cross_entropy_with_logits(onset[..., 0][counted], heard["onset"][counted])
        known, single = heard["number"] != IGNORED, ~heard["level"].isnan()
        if known.any():
            loss = loss + F.cross_entropy(number[known], heard["number"][known])
        if single.any():
            loss = loss + 0.5 * F.smooth_l1_loss(level[single], heard["level"][single])
        return loss


class NamingObjective(TrainingObjective):
    """Alignment of the tower with the language model's words, the language model itself frozen."""

    def __init__(self, gama: GamaForConditionalGeneration, common: Tensor, hearing_weight: float) -> None:
        super().__init__(gama)
        self.naming = Naming(gama, common)
        self.hearing_weight = hearing_weight
        self.hearing = Hearing(gama.config.audio_config.hidden_size) if hearing_weight else None

    def forward(
        self, input_features: Tensor, words: Tensor, heard: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        tower = self.gama.hear(input_features)
        loss = self.naming(tower.prefix, words, self.gama.get_input_embeddings().weight)
        if self.hearing is not None:
            assert heard is not None  # the collator's part of the same recipe
            loss = loss + self.hearing_weight * self.hearing(tower.pooled, heard)
        return {"loss": loss}


class Answering(TrainingObjective):
    """Cross-entropy of the answers behind a clip's prefix, or behind its words where there is no sound.

    Args:
        gama: the model.
        naming_weight: weight of the naming loss beside the answers'; 0 for none.
        common: ids of the most frequent words, for the naming loss.

    Attributes:
        layout: of the kept outputs that may come in the place of fbanks; None where nothing is kept.
    """

    def __init__(self, gama: GamaForConditionalGeneration, naming_weight: float, common: Tensor) -> None:
        super().__init__(gama)
        self.layout: Layout | None = None
        self.naming_weight = naming_weight
        self.naming = Naming(gama, common) if naming_weight else None

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor,
        weights: Tensor,
        position_ids: Tensor,
        attention_mask: Tensor,
        input_features: Tensor | None = None,
        words: Tensor | None = None,
    ) -> dict[str, Tensor]:
        prefix = None if input_features is None else self.prefix(input_features)
        embeds = self.gama.embed(input_ids, None if prefix is None else self.gama.place(prefix))
        if prefix is None:
            embeds = placed_words(self.gama, embeds)
        asked = before_targets(labels)
        with head_reads(self.gama.get_output_embeddings(), asked):
            logits = self.gama(
                inputs_embeds=embeds, attention_mask=attention_mask, position_ids=position_ids, use_cache=False
            ).logits[0]
        loss = weighted_mean(logits, labels[:, 1:][asked[:, :-1]], weights[:, 1:][asked[:, :-1]])
        if self.naming is not None and prefix is not None and words is not None:
            known = words[:, 0] != IGNORED
            if known.any():
                named = self.naming(prefix[known], words[known], self.gama.get_input_embeddings().weight)
                loss = loss + self.naming_weight * named
        return {"loss": loss}

    def prefix(self, input_features: Tensor) -> Tensor:
        """The soft tokens of fbanks (B, 1024, 128), or of what is kept of the tower for them: (B, 96, D)."""
        if self.layout is not None and self.layout.fits(input_features):
            return prefix_of(self.gama.audio_tower, self.layout, input_features)
        return self.gama.hear(input_features).prefix


def placed_words(gama: GamaForConditionalGeneration, embeds: Tensor) -> Tensor:
    """Give the words that stand where a prefix would be (the first 96 of (B, T, D)) the vectors of their places."""
    length = gama.config.num_audio_tokens
    return torch.cat([gama.place(embeds[:, :length]), embeds[:, length:]], dim=1)


def before_targets(labels: Tensor) -> Tensor:
    """(B, T) bool: the positions whose logits foretell a target, each before its label."""
    asked = torch.zeros_like(labels, dtype=torch.bool)
    asked[:, :-1] = labels[:, 1:] != IGNORED
    return asked


@contextmanager
def head_reads(head: nn.Module, positions: Tensor) -> Iterator[None]:
    """Within, the language model's head sees hidden states (B, T, D) at ``positions`` (B, T) alone, as (1, N, D).

    Prefix, questions and padding are most of a row, and logits as wide as the vocabulary the largest thing of a step.
    What a language model does to its logits behind the head (a scale, a cap) is kept: it works on each of them alone.
    """

    def chosen(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (given[0][positions.to(given[0].device)].unsqueeze(0), *given[1:])

    hook = head.register_forward_pre_hook(chosen)
    try:
        yield
    finally:
        hook.remove()


def weighted_mean(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of the cross-entropy: logits (N, V), targets and weights (N,); without targets it is 0."""
    each = F.cross_entropy(logits.float(), targets.to(logits.device), reduction="none")
    weights = weights.to(logits.device)
    return (each * weights).sum() / weights.sum().clamp(min=1e-6)  # a batch without targets costs nothing


def describe(objective: TrainingObjective) -> dict[str, Any]:
    """Trainable and frozen parameters by part of the model: the ledger of a stage."""
    ledger: dict[str, Any] = {}
    for name, parameter in objective.gama.named_parameters():
        part = ".".join(name.split(".")[:2]) if name.startswith("audio_tower") else name.split(".")[0]
        entry = ledger.setdefault(part, {"trainable": 0, "frozen": 0})
        entry["trainable" if parameter.requires_grad else "frozen"] += parameter.numel()
    return ledger


@contextmanager
def attention_of(*, plain: bool) -> Iterator[None]:
    """Attention by plain matrix products, or by torch's fused kernels.

    In bfloat16 on a CPU the fused ones are slow to train: plain products take two thirds of a step's time.
    """
    if not plain:
        yield
        return
    before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)  # of the CPU's too, whatever its name says
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(before)
