"""gama-mini's tokenizer by the package tokenizers alone: segments -> ids -> text. No torch, no transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from gama.checkpoints.folder_checks import check_value
from gama.checkpoints.json_files import read_table
from gama.errors import CheckpointError
from gama.prompt import AUDIO_PLACEHOLDER, Clip, Mark, Segment


class InstantTokenizer:
    """What ``GamaProcessor.encode`` and the tokenizer's ``decode`` do.

    Args:
        path: ``tokenizer.json``.
        audio_token_id: the placeholder of a soft token.
        num_audio_tokens: placeholders a clip becomes.
        bos_ids: ids that begin a text; empty for a tokenizer that has none.
        eos_id: the id that ends an answer.

    Raises:
        CheckpointError: where the file is missing or no tokenizer.
    """

    def __init__(
        self, path: Path, *, audio_token_id: int, num_audio_tokens: int, bos_ids: Sequence[int], eos_id: int
    ) -> None:
        if not path.is_file():
            raise CheckpointError(f"no file {path}: the tokenizer is missing")
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # of the package's own, which has no class but this
            raise CheckpointError(f"{path}: no tokenizer can be read: {' '.join(str(error).split())[:200]}") from error
        self._check(path, audio_token_id, bos_ids[0] if bos_ids else None, eos_id)
        self._audio = [audio_token_id] * num_audio_tokens
        self._bos, self._eos = list(bos_ids), eos_id

    def _check(self, path: Path, audio: int, bos: int | None, eos: int) -> None:
        """The ids that the graph was exported with are those of the same tokens here."""
        processor, names = (
            read_table(file) if file.is_file() else {}
            for file in (path.with_name("processor_config.json"), path.with_name("tokenizer_config.json"))
        )
        expected = {"bos_token": (names, bos), "eos_token": (names, eos), "audio_token": (processor, audio)}
        for key, (table, there) in expected.items():
            token = table.get(key)
            token = token.get("content") if isinstance(token, dict) else token
            found = self._tokenizer.token_to_id(token) if isinstance(token, str) else None
            if found is not None and there is not None:
                check_value(str(path), f"id of {token}", found, there)
        token = processor.get("audio_token", AUDIO_PLACEHOLDER)
        if self._tokenizer.id_to_token(audio) not in (None, token):
            raise CheckpointError(
                f"{path}: {audio}, the id of {token}, is the token {self._tokenizer.id_to_token(audio)!r}"
            )

    def encode(self, segments: Sequence[Segment]) -> list[int]:
        """Segments -> ids. Control tokens written in plain text are text."""
        ids: list[int] = []
        for segment in segments:
            if isinstance(segment, Clip):
                ids += self._audio
            elif isinstance(segment, Mark):
                ids += self._bos if segment.role == "bos" else [self._eos]
            else:
                self._tokenizer.encode_special_tokens = not segment.special
                ids += self._tokenizer.encode(segment.text, add_special_tokens=False).ids
        return ids

    def decode(
        self, ids: Sequence[int], *, skip_special_tokens: bool = True, clean_up_tokenization_spaces: bool = False
    ) -> str:
        """Ids -> text, with the signature of transformers' tokenizers; spaces are never cleaned up."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens))
