"""Kaldi log-mel filterbank as a torch module: batched, on any device, exportable.

The same numbers as ``torchaudio.compliance.kaldi.fbank`` with the options of the original
(``htk_compat``, hanning window, 128 bins, no energy, dither 0), which takes one clip at a time.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor, nn

from gama.errors import AudioError

SAMPLE_RATE = 16_000  # Hz
FRAME_LENGTH = 400  # samples: 25 ms
FRAME_SHIFT = 160  # samples: 10 ms
FFT_LENGTH = 512  # samples: the next power of two
PREEMPHASIS = 0.97
LOW_HZ = 20.0
LOG_FLOOR = 1.1920928955078125e-07  # epsilon of float32, Kaldi's floor before the logarithm
MEAN = -5.081  # of the log-mel over AudioSet (original: dataset mean)
DOUBLE_STD = 4.4849  # the original divides by this


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

    dft: Tensor
    filters: Tensor

    def __init__(self, num_frames: int = 1024, num_mel_bins: int = 128) -> None:
        super().__init__()
        self.num_frames = num_frames
        window = torch.hann_window(FRAME_LENGTH, periodic=False, dtype=torch.float32)
        self.register_buffer("dft", dft_matrix(window), persistent=False)
        self.register_buffer("filters", mel_filters(num_mel_bins), persistent=False)

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
        log_mel = self.log_mel(self._centred(waveform.float(), lengths))
        if lengths is not None:
            frames = 1 + (lengths.to(log_mel.device) - FRAME_LENGTH) // FRAME_SHIFT
            heard = torch.arange(log_mel.shape[1], device=log_mel.device) < frames.unsqueeze(1)
            log_mel = torch.where(heard.unsqueeze(-1), log_mel, torch.zeros_like(log_mel))
        missing = self.num_frames - log_mel.shape[1]
        log_mel = nn.functional.pad(log_mel, (0, 0, 0, missing))
        return (log_mel - MEAN) / DOUBLE_STD

    def _centred(self, waveform: Tensor, lengths: Tensor | None) -> Tensor:
        if lengths is None:
            return waveform - waveform.mean(dim=1, keepdim=True)
        lengths = lengths.to(waveform.device).unsqueeze(1)
        heard = torch.arange(waveform.shape[1], device=waveform.device) < lengths
        quiet = torch.where(heard, waveform, torch.zeros_like(waveform))
        return torch.where(heard, quiet - quiet.sum(dim=1, keepdim=True) / lengths, quiet)

    def log_mel(self, waveform: Tensor) -> Tensor:
        """(B, N) -> (B, T, M) log-mel of at most ``num_frames`` frames, not normalised."""
        used = FRAME_LENGTH + (self.num_frames - 1) * FRAME_SHIFT
        frames = waveform[:, :used].unfold(1, FRAME_LENGTH, FRAME_SHIFT)
        frames = frames - frames.mean(dim=-1, keepdim=True)
        previous = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
        spectrum = (frames - PREEMPHASIS * previous) @ self.dft
        cosine, sine = spectrum.chunk(2, dim=-1)
        mel = (cosine.square() + sine.square()) @ self.filters
        return mel.clamp(min=LOG_FLOOR).log()


@cache
def kaldi_fbank(num_frames: int = 1024, num_mel_bins: int = 128) -> KaldiFbank:
    """The front end of these sizes on the CPU, made once a process: its matrices cost a third of a clip."""
    return KaldiFbank(num_frames, num_mel_bins)
