"""Sound in answers, as OpenAI has it."""

from __future__ import annotations

import binascii
import io
import re
import secrets
import wave
from collections.abc import Sequence
from typing import Any

from attrs import frozen

_RATE = re.compile(r"rate=(\d{4,6})")
_DEFAULT_RATE = 24000
_IS_PCM = re.compile(r"audio/(?:L16|pcm)", re.I)
# Seconds for which OpenAI would keep it. Here, it is not kept at all.
_KEPT = 3600


@frozen
class Media:
    """A picture, or a piece of sound, as Base64."""

    mime_type: str
    data: str

    @property
    def url(self) -> str:
        return f"data:{self.mime_type};base64,{self.data}"


def audio_object(pieces: Sequence[Media], encoding: str, now: float) -> dict[str, Any]:
    """
    OpenAI's C{audio} object of a message.

    @param pieces: the pieces of one sound, in order.
    @param encoding: C{wav} or C{pcm16}, for models that give samples. Other sound is not changed.
    @param now: the current time, in seconds since the epoch.
    """
    data = b"".join(binascii.a2b_base64(piece.data) for piece in pieces)
    mime_type = pieces[0].mime_type
    if encoding == "wav" and _IS_PCM.match(mime_type):
        rate = _RATE.search(mime_type)
        data = _as_wav(data, int(rate[1]) if rate else _DEFAULT_RATE)
    return {
        "id": f"audio_{secrets.token_hex(12)}",
        "data": binascii.b2a_base64(data, newline=False).decode(),
        "expires_at": int(now) + _KEPT,
        "transcript": "",
    }


def _as_wav(samples: bytes, rate: int) -> bytes:
    """@param samples: of 16 bits, of one channel."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(samples)
    return file.getvalue()
