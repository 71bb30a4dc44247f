"""
Marks on the parts of a conversation, so that what the CLI sends can be told from what it adds.

The CLI is made for coding: it drops messages that look like commands to it and puts notes of its
own between the client's turns. Every part of a conversation therefore goes into its session
behind a mark that nobody can guess. On the way to the API the marks come off, what has none is the
CLI's own, or of an earlier conversation in that session, and stays behind, and a conversation that
lost a part is not sent.

The CLI is given a conversation as one prompt of many parts: ACP has no way to tell it who said
what. Who did is known here.

Only text is handed to the CLI; any other part stays here and is represented by its mark alone. So
is the text of a long conversation: the CLI would judge by an estimate of its own whether it is too
long for the model, and shorten it or refuse it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from attrs import field, frozen

from gemproxy.gemini.translate.messages import Turn

# Characters of a conversation up to which the CLI is given the texts. It reckons with up to 1.5
# tokens for one, and at some million of them it acts.
_GIVEN_CHARACTERS = 200_000

_GO = re.compile(r"([0-9a-z]+):go:")


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
    def prompt(self) -> list[str]:
        """
        What the CLI is prompted with: each part as a mark with its text behind it, and a last mark,
        by which L{prompted} knows the conversation.
        """
        return [*self._stand_ins(), f"{self.nonce}:go:"]

    def restored(self, contents: Any) -> list[dict[str, Any]]:
        """
        The C{contents} of an API request as the client meant them. Turns of one role that follow
        each other are one, as the API wants it.

        @param contents: those that the CLI wrote.
        @raise ConversationAltered: they are not the conversation that the CLI was given.
        """
        # Made once: there may be hundreds of parts of earlier conversations to compare with.
        expected = self._stand_ins()
        index = 0
        for content in _dicts(contents):
            if content.get("role") != "user":
                continue
            for part in _dicts(content.get("parts")):
                if index == len(expected):
                    break
                if part.get("text") == expected[index]:
                    index += 1
        if index < len(expected):
            raise ConversationAltered(f"part {index} of {len(expected)} is missing")
        restored: list[dict[str, Any]] = []
        for turn in self.turns:
            if restored and restored[-1]["role"] == turn.role:
                restored[-1]["parts"].extend(turn.parts)
            else:
                restored.append({"role": turn.role, "parts": list(turn.parts)})
        return restored

    def _stand_ins(self) -> list[str]:
        """What the CLI is given for each part."""
        parts = (part for turn in self.turns for part in turn.parts)
        return [
            f"{self.nonce}:{index}:{part.get('text', '') if self._texts_given else ''}"
            for index, part in enumerate(parts)
        ]


def prompted(contents: Any) -> str | None:
    """
    The nonce of the conversation that the CLI was prompted with last.

    @param contents: those that the CLI wrote.
    """
    for content in reversed(_dicts(contents)):
        for part in reversed(_dicts(content.get("parts"))):
            text = part.get("text")
            if isinstance(text, str) and (go := _GO.fullmatch(text)):
                return go[1]
    return None


def _dicts(values: Any) -> Sequence[dict[str, Any]]:
    return (
        [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []
    )
