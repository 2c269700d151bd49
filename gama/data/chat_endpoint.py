"""Chat completions from any server that speaks OpenAI's protocol: one request, its answer's text."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from gama.errors import GamaError

Message = Mapping[str, str]

_LONGEST = 8 * 2**20  # bytes of a reply
_BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_LONGEST_WAIT = 60.0  # seconds


@dataclass(frozen=True)
class Endpoint:
    """A server and a model on it.

    Attributes:
        url: up to and with ``/v1``.
        model: its name there.
        key: sent as a bearer token; empty: none is sent.
        timeout: seconds for one request.
        attempts: how often a busy or absent server is asked.
        wait: seconds before the second attempt; doubled for each further one.
        sleep: what waits.
    """

    url: str
    model: str
    key: str = field(default="", repr=False)
    timeout: float = 120.0
    attempts: int = 5
    wait: float = 1.0
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise GamaError(
                f"{self.url!r} is no address of a server", "give one such as http://localhost:8000/v1 or https://…/v1"
            )

    def complete(self, messages: Sequence[Message], **options: Any) -> str:
        """The text of the first choice.

        Args:
            messages: the conversation.
            options: further fields of the request: ``temperature``, ``max_tokens``, ``seed``.

        Raises:
            GamaError: the server refuses the request, is not there, or does not speak the protocol.
        """
        body = json.dumps({"model": self.model, "messages": list(messages), **options}).encode()
        reply = self._posted(body)
        try:
            text = json.loads(reply)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            start = reply[:200].decode(errors="replace")
            raise GamaError(f"{self.url} answers with no chat completion: {start!r}") from None
        return text if isinstance(text, str) else ""

    def _posted(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        address = f"{self.url.rstrip('/')}/chat/completions"
        request = urllib.request.Request(address, body, headers)
        problem = ""
        for attempt in range(self.attempts):
            pause = 0.0
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as reply:
                    content: bytes = reply.read(_LONGEST)
                    return content
            except urllib.error.HTTPError as error:
                problem = _said(error)
                if error.code not in _BUSY:
                    raise GamaError(f"{self.url} refuses the request: {problem}") from None
                pause = _retry_after(error)
            except (OSError, HTTPException) as error:
                problem = str(getattr(error, "reason", error)) or type(error).__name__
            if attempt + 1 < self.attempts:
                self.sleep(min(_LONGEST_WAIT, max(pause, self.wait * 2**attempt)))
        raise GamaError(
            f"{self.url} gave no answer in {self.attempts} attempts: {problem}",
            "what was answered before is kept; run again when the server is there",
        )


def _said(error: urllib.error.HTTPError) -> str:
    """Status and message of a refusal."""
    with error:
        text = error.read(2000).decode(errors="replace")
    try:
        message = json.loads(text)["error"]
        text = message["message"] if isinstance(message, dict) else str(message)
    except (ValueError, LookupError, TypeError):
        text = " ".join(text.split())[:200]
    return f"{error.code} {error.reason}: {text}" if text else f"{error.code} {error.reason}"


def _retry_after(error: urllib.error.HTTPError) -> float:
    given = error.headers.get("Retry-After") or ""
    return float(given) if given.isdigit() else 0.0
