"""
Marks on the parts of a conversation, so that what the CLI sends can be told from what it adds.

The CLI is made for coding: it drops messages that look like commands to it and puts notes of its
own between the client's turns. Every part of a conversation therefore goes into its session
behind a mark that nobody can guess. On the way to the API the marks come off, what has none is the
CLI's own and stays behind, and a conversation that lost a part is not sent.

Only text is handed to the CLI; any other part stays here and is represented by its mark alone. So
is the text of a long conversation: the CLI would judge by an estimate of its own whether it is too
long for the model, and shorten it or refuse it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import field, frozen

from gemproxy.gemini.turns import Part, Turn

# Characters of a conversation up to which the CLI is given the texts. It reckons with up to 1.5
# tokens for one, and at some million of them it acts.
_GIVEN_CHARACTERS = 200_000


_PROMPT = ":go:"


class ConversationAltered(Exception):
    """The CLI left a part of the conversation out, or changed the order."""


@frozen
class Marks:
    """
    The marks of one conversation.

    @ivar nonce: unguessable, and nothing that the CLI would take for a command of its own.
    """

    nonce: str
    turns: tuple[Turn, ...]
    _texts_given: bool = field(init=False, repr=False)

    @_texts_given.default
    def _are_texts_given(self) -> bool:
        texts = (part.get("text", "") for turn in self.turns for part in turn.parts)
        return sum(map(len, texts)) <= _GIVEN_CHARACTERS

    @property
    def prompt(self) -> str:
        """The text that prompts the CLI to send the conversation; it is not sent itself."""
        return f"{self.nonce}{_PROMPT}"

    def marked(self) -> list[Turn]:
        """The turns as the CLI may have them: each part a mark, with its text behind it."""
        turns = []
        index = 0
        for turn in self.turns:
            parts = []
            for part in turn.parts:
                parts.append({"text": self._stand_in(part, index)})
                index += 1
            turns.append(Turn(turn.role, tuple(parts)))
        return turns

    def restored(self, contents: Any) -> list[dict[str, Any]]:
        """
        The C{contents} of an API request as the client meant them.

        @param contents: those that the CLI wrote.
        @raise ConversationAltered: they are not the conversation that the CLI was given.
        """
        originals = [(turn.role, part) for turn in self.turns for part in turn.parts]
        restored = []
        index = 0
        for content in _dicts(contents):
            parts = []
            for part in _dicts(content.get("parts")):
                if index == len(originals):
                    break
                role, original = originals[index]
                if content.get("role") == role and self._stands_for(part, index, original):
                    parts.append(original)
                    index += 1
            if parts:
                restored.append({"role": content["role"], "parts": parts})
        if index < len(originals):
            raise ConversationAltered(f"part {index} of {len(originals)} is missing")
        return restored

    def _stands_for(self, part: dict[str, Any], index: int, original: Part) -> bool:
        return part.get("text") == self._stand_in(original, index)

    def _stand_in(self, original: Part, index: int) -> str:
        text = original.get("text", "") if self._texts_given else ""
        return f"{self.nonce}:{index}:{text}"


def nonce_in(contents: Any) -> str | None:
    """
    The nonce of the conversation that the CLI was prompted to send; None if it was none.

    @param contents: those of an API request that it wrote.
    """
    for content in reversed(_dicts(contents)):
        for part in _dicts(content.get("parts")):
            text = part.get("text")
            # No part of a client's has a prompt's text: each has a mark of its own before it.
            if isinstance(text, str) and text.endswith(_PROMPT) and text.count(":") == 2:
                return text.removesuffix(_PROMPT)
    return None


def _dicts(values: Any) -> Sequence[dict[str, Any]]:
    return (
        [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []
    )
