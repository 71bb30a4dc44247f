"""Masks keys in texts: those that are known, and what looks like one. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

MASK = "[secret]"
# Shorter keys are not masked: they are placeholders such as "none", or ordinary words.
SHORTEST_SECRET = 8
# Those of which half and more stays hidden, and more than can be guessed.
_LONG_ENOUGH_FOR_ENDS = 20
# Of the keys that a client shows with one request. Each costs a search of the request's texts.
MOST_SHOWN_KEYS = 8
# A credential is a scheme and one word (RFC 9110, section 11.4).
_WORDS_OF_A_CREDENTIAL = 2

# The keys of Google (API keys old and new, OAuth), of OpenAI and those who follow it (Anthropic,
# OpenRouter, New-API), of Groq and of xAI; and what follows the word Bearer, if there is a digit in
# it. No part can match in two ways, so that the time grows with the length of the text only.
_LOOKALIKE = (
    rb"(?<![A-Za-z0-9])(?:(?:AIza|AQ\.|sk-|gsk_|xai-)[A-Za-z0-9_-]{16,}"
    # Access tokens have parts: ya29.c.c0AS...
    rb"|ya29\.[A-Za-z0-9._-]{15,}[A-Za-z0-9_-])"
    rb"|(?<=Bearer |bearer |BEARER )(?=[A-Za-z._~+/-]{0,99}[0-9])[A-Za-z0-9._~+/-]{16,}={0,2}"
)

# What JSON has otherwise than it is, among visible ASCII characters.
_ESCAPED = re.compile(r'["\\]')

# Without any of these there is none. Looking for them takes a tenth of the time.
_HINTS = (b"AIza", b"AQ.", b"ya29.", b"sk-", b"gsk_", b"xai-", b"earer ", b"EARER ")


def shown_keys(values: Iterable[str]) -> list[str]:
    """
    What may be keys among the values of a request's headers for keys: words of visible ASCII
    characters, at most L{MOST_SHOWN_KEYS}.
    """
    words = [word for value in values for word in value.split(None, 2)[:_WORDS_OF_A_CREDENTIAL]]
    return list(dict.fromkeys(filter(_is_plausible, words)))[:MOST_SHOWN_KEYS]


def ends_of(key: str) -> str:
    """A key as its owner knows it again, and nobody else can use it: the ends, if it is long."""
    return f"{key[:4]}...{key[-4:]}" if len(key) >= _LONG_ENOUGH_FOR_ENDS else MASK


def _is_plausible(word: str) -> bool:
    return len(word) >= SHORTEST_SECRET and word.isascii() and word.isprintable()


class Masking:
    """
    Replaces keys by L{MASK}, all in one pass: what a mask has put in is not searched again.
    """

    def __init__(self, secrets: Iterable[str], lookalikes: bool = False) -> None:
        """
        @param secrets: the known keys; those shorter than L{SHORTEST_SECRET} are not masked.
        @param lookalikes: whether to mask what looks like a key, too: for the words of others, who
            may quote keys that only they know.
        """
        self._known = {form for secret in secrets for form in _forms(secret)}
        self._lookalikes = lookalikes

    def with_keys(self, secrets: Iterable[str]) -> Masking:
        """The same with more known keys."""
        more = Masking(secrets, self._lookalikes)
        # They are the same set as long as there are no others.
        more._known = more._known | self._known if more._known else self._known
        return more

    def in_errors(self, secrets: Iterable[str] = ()) -> Masking:
        """That for the words of others, with more known keys."""
        more = self.with_keys(secrets)
        more._lookalikes = True
        return more

    def learn(self, secrets: Iterable[str]) -> None:
        """Mask these from now on, too."""
        self._known |= Masking(secrets)._known

    def in_bytes(self, text: bytes, keeps_length: bool = False) -> bytes:
        """
        @param text: UTF-8, such as JSON.
        @param keeps_length: whether a mask is as long as the key in whose place it is.
        """
        # There are hardly ever any. Looking for one after the other takes a tenth of the time of a
        # pattern of all of them; by "in", which asks first whether bytes are a number, twice that.
        found = [secret for secret in self._known if text.find(secret) >= 0]
        # Longer ones first, because one may be the beginning of another.
        parts = [re.escape(secret) for secret in sorted(found, key=len, reverse=True)]
        if self._lookalikes and any(text.find(hint) >= 0 for hint in _HINTS):
            parts.append(_LOOKALIKE)
        if not parts:
            return text
        mask = MASK.encode()
        return re.sub(
            b"|".join(parts),
            (lambda match: mask.ljust(len(match[0]), b"*")) if keeps_length else mask,
            text,
        )

    def in_text(self, text: str) -> str:
        encoded = text.encode("utf-8", "surrogatepass")
        masked = self.in_bytes(encoded)
        return text if masked is encoded else masked.decode("utf-8", "surrogatepass")


def _forms(secret: str) -> set[bytes]:
    """A secret as it is, and as it is written in JSON; none of one that is too short."""
    if len(secret) < SHORTEST_SECRET:
        return set()
    if secret.isascii() and secret.isprintable() and not _ESCAPED.search(secret):
        return {secret.encode()}
    in_json = (json.dumps(secret, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False))
    return {form.encode("utf-8", "surrogatepass") for form in (secret, *in_json)}


NO_KEYS = Masking(())
LOOKALIKES = Masking((), lookalikes=True)
