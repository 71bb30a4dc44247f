"""Keeps a key out of what is shown, in whatever pieces it comes."""

from __future__ import annotations

from attrs import evolve

from gemproxy.chat.errors import ChatError
from gemproxy.chat.jsontext import dumps, loads

# Shorter keys are placeholders such as "none", or ordinary words.
_SHORTEST = 8
_MASK = b"[secret]"


class SecretMask:
    """
    Replaces a secret in a text by a mask of the same length, so that the text keeps its length.
    """

    def __init__(self, secret: str | None) -> None:
        """@param secret: None, or fewer than 8 characters, for one that is not masked."""
        text = (secret or "").encode()
        self._secret = text if len(text) >= _SHORTEST else b""
        self._mask = _MASK.ljust(len(text), b"*")
        self._held = b""

    def __bool__(self) -> bool:
        return bool(self._secret)

    def feed(self, data: bytes) -> bytes:
        """The next piece of the text; what may be the beginning of the secret is held back."""
        if not self._secret:
            return data
        text = self.masked(self._held + data)
        held = next(
            size
            for size in range(min(len(self._secret) - 1, len(text)), -1, -1)
            if self._secret.startswith(text[len(text) - size :])
        )
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def close(self) -> bytes:
        """What was held back, at the end of the text."""
        held, self._held = self._held, b""
        return held

    def masked(self, text: bytes) -> bytes:
        """A whole text."""
        return text.replace(self._secret, self._mask) if self._secret else text

    def in_error(self, error: ChatError) -> ChatError:
        """The error as it may be shown."""
        if not self._secret:
            return error
        verbatim = error.verbatim
        if verbatim is not None:
            payload = verbatim.payload
            if payload is not None:
                payload = loads(self.masked(dumps(payload)))
            verbatim = evolve(verbatim, body=self.masked(verbatim.body), payload=payload)
        return evolve(
            error,
            message=self._shown(error.message),
            type=self._shown(error.type),
            code=error.code and self._shown(error.code),
            verbatim=verbatim,
        )

    def _shown(self, text: str) -> str:
        return text.replace(self._secret.decode(), self._mask.decode())
