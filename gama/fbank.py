"""Kaldi log-mel filterbank as a torch module: batched, on any device, exportable.

The same numbers as ``torchaudio.compliance.kaldi.fbank`` with the options of the original
(``htk_compat``, hanning window, 128 bins, no energy, dither 0), which takes one clip at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import cache

import torch
from torch import Tensor, nn

from gama.errors import AudioError
from gama.products import product

SAMPLE_RATE = 16_000  # Hz
FRAME_LENGTH = 400  # samples: 25 ms
FRAME_SHIFT = 160  # samples: 10 ms
FFT_LENGTH = 512  # samples: the next power of two
PREEMPHASIS = 0.97
BAND = 32  # filters multiplied together
LOW_HZ = 20.0
LOG_FLOOR = 1.1920928955078125e-07  # epsilon of float32, Kaldi's floor before the logarithm
MEAN = -5.081  # of the log-mel over AudioSet (original: dataset mean)
DOUBLE_STD = 4.4849  # the original divides by this
PADDED = -MEAN / DOUBLE_STD  # a frame that is not there: 0 before normalisation


def _mel(hertz: Tensor) -> Tensor:
    return 1127.0 * torch.log(1.0 + hertz / 700.0)


def mel_filters(num_mel_bins: int) -> Tensor:
    """Triangular filters on Kaldi's mel scale, 20 Hz to 8 kHz: (FFT_LENGTH / 2 + 1, M) float32.

    One of 128 triangles holds no DFT bin at 16 kHz and stays empty: its log-mel is the floor, as in the original.
    """
    bins = torch.arange(FFT_LENGTH // 2, dtype=torch.float32) * (SAMPLE_RATE / FFT_LENGTH)
    low, high = (1127.0 * math.log(1.0 + f / 700.0) for f in (LOW_HZ, SAMPLE_RATE / 2))
    step = (high - low) / (num_mel_bins + 1)
    left = low + torch.arange(num_mel_bins, dtype=torch.float32).unsqueeze(1) * step
    center, right = left + step, left + 2.0 * step
    mel = _mel(bins).unsqueeze(0)
    filters = torch.minimum((mel - left) / (center - left), (right - mel) / (right - center)).clamp(min=0.0)
    return nn.functional.pad(filters, (0, 1)).T.contiguous()


def dft_matrix(window: Tensor) -> Tensor:
    """Windowed real DFT as one matrix: (FRAME_LENGTH, 2 * (FFT_LENGTH / 2 + 1)), cosines then sines, float32."""
    sample = torch.arange(FRAME_LENGTH, dtype=torch.float64).unsqueeze(1)
    frequency = torch.arange(FFT_LENGTH // 2 + 1, dtype=torch.float64).unsqueeze(0)
    phase = 2.0 * math.pi * torch.remainder(sample * frequency, FFT_LENGTH) / FFT_LENGTH
    return (torch.cat([phase.cos(), phase.sin()], dim=1) * window.double().unsqueeze(1)).float()


class KaldiFbank(nn.Module):
    """Waveform (B, N) at 16 kHz -> normalised log-mel (B, num_frames, num_mel_bins).

    The waveform's mean is removed; frames are cut (no padding at the ends), each loses its own mean, is
    pre-emphasised, windowed and transformed; the log-mel is cut or padded with 0 to ``num_frames`` **before**
    normalisation, as in the original: padding is not the value of silence.

    Args:
        num_frames: frames kept (1024: 10.24 s).
        num_mel_bins: mel bins.
    """

    window: Tensor  # followed by zeros: the frames are cut as long as the transform

    def __init__(self, num_frames: int = 1024, num_mel_bins: int = 128) -> None:
        super().__init__()
        self.num_frames = num_frames
        self.num_mel_bins = num_mel_bins
        window = torch.hann_window(FRAME_LENGTH, periodic=False, dtype=torch.float32)
        window = nn.functional.pad(window, (0, FFT_LENGTH - FRAME_LENGTH))
        self.register_buffer("window", window, persistent=False)
        self.bands: Iterable[_Band] = nn.ModuleList(_bands(mel_filters(num_mel_bins)))  # type: ignore[assignment]

    @property
    def dft(self) -> Tensor:
        """The transform as :func:`dft_matrix`, for an exported graph, which has no fast one."""
        return dft_matrix(self.window[:FRAME_LENGTH])

    @property
    def filters(self) -> Tensor:
        """See :func:`mel_filters`."""
        return mel_filters(self.num_mel_bins)

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Features of a batch.

        Args:
            waveform: (B, N) float32 in [-1, 1], N >= 400.
            lengths: (B,) true samples of each row, at most N, where rows are padded; a padded row equals the row
                alone, and a row shorter than one frame is padding alone.

        Raises:
            AudioError: for anything but (B, N) with N of at least one frame (25 ms).
        """
        if waveform.ndim != 2 or waveform.shape[1] < FRAME_LENGTH:
            raise AudioError(
                f"waveform has shape {tuple(waveform.shape)}; expected (clips, samples) "
                f"with at least {FRAME_LENGTH} samples (25 ms at 16 kHz)"
            )
        if lengths is None:
            return self._features(waveform.float())
        features = self._features(self._silenced(waveform.float(), lengths))
        frames = 1 + (lengths.to(features.device) - FRAME_LENGTH) // FRAME_SHIFT
        heard = torch.arange(self.num_frames, device=features.device) < frames.unsqueeze(1)
        return features.masked_fill(~heard.unsqueeze(-1), PADDED)

    def _silenced(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        heard = torch.arange(waveform.shape[1], device=waveform.device) < lengths.to(waveform.device).unsqueeze(1)
        return torch.where(heard, waveform, torch.zeros_like(waveform))

    def _features(self, waveform: Tensor) -> Tensor:
        """(B, N) -> (B, num_frames, M)."""
        used = FRAME_LENGTH + (self.num_frames - 1) * FRAME_SHIFT
        # on a CPU a clip at a time: what a batch needs would not stay in the cache
        clips = waveform[:, :used].split(1 if waveform.device.type == "cpu" else len(waveform))
        features = waveform.new_empty(len(waveform), self.num_frames, self.num_mel_bins)
        for part, clip in zip(features.split(len(clips[0])), clips, strict=True):
            log_mel = self._mel(clip).clamp_(min=LOG_FLOOR).log_()
            part[:, : log_mel.shape[1]] = log_mel.sub_(MEAN).div_(DOUBLE_STD)
            part[:, log_mel.shape[1] :] = PADDED
        return features

    def _mel(self, waveform: Tensor) -> Tensor:
        """(B, N) -> (B, T, M) energies."""
        parts = torch.view_as_real(torch.fft.rfft(self._frames(waveform))).flatten(2)
        return torch.cat([band.energies(parts) for band in self.bands], dim=2)

    def _frames(self, waveform: Tensor) -> Tensor:
        """(B, N) -> (B, T, FFT_LENGTH), ready for the transform.

        The clip's own mean, which Kaldi takes off first, goes with each frame's.
        """
        offset = waveform.unfold(1, FRAME_LENGTH, FRAME_SHIFT).mean(dim=2, keepdim=True)
        # once for the clip in place of once a frame; a frame's own first sample differs, and its window is 0 there
        emphasised = torch.sub(waveform[:, 1:], waveform[:, :-1], alpha=PREEMPHASIS)
        emphasised = nn.functional.pad(emphasised, (1, FFT_LENGTH - FRAME_LENGTH))
        frames = emphasised.unfold(1, FFT_LENGTH, FRAME_SHIFT) - (1.0 - PREEMPHASIS) * offset
        return frames.mul_(self.window)


class _Band(nn.Module):
    """Neighbouring filters, of the real and imaginary parts from ``first`` on, which are all that they see.

    Args:
        first: among the parts of a frame, which stand in pairs.
        weight: (filters, parts); both parts of a DFT bin have its weight, and the product adds up their squares.
    """

    weight: Tensor

    def __init__(self, first: int, weight: Tensor) -> None:
        super().__init__()
        self.seen = slice(first, first + weight.shape[1])
        self.register_buffer("weight", weight, persistent=False)

    def energies(self, parts: Tensor) -> Tensor:
        return product(parts[..., self.seen].square(), self.weight)


def _bands(filters: Tensor) -> Iterator[_Band]:
    """Filters (257, M), some at a time: the dense product would be of zeros for three quarters."""
    for weight in filters.repeat_interleave(2, dim=0).T.split(BAND):
        seen = weight.any(dim=0).nonzero().flatten().tolist() or [0]
        yield _Band(seen[0], weight[:, seen[0] : seen[-1] + 1].contiguous())


@cache
def kaldi_fbank(num_frames: int = 1024, num_mel_bins: int = 128) -> KaldiFbank:
    """The front end of these sizes on the CPU, made once a process: its matrices cost a third of a clip."""
    return KaldiFbank(num_frames, num_mel_bins)
