"""
Marks on the parts of a conversation, to tell them from the text that the CLI adds.

The CLI is a coding agent: it drops messages that look like its commands and inserts notes between
the client's turns. Every part of a conversation is therefore passed to its session with an
unguessable mark in front. In the request to the API, the marks are removed, and so is all text
without a mark of this conversation: it is the CLI's own, or belongs to an earlier conversation in
the session. A conversation with a missing part is not sent.

The CLI receives a conversation as one prompt with many parts, because ACP has no roles. The roles
are kept here.

Only text is passed to the CLI; all other parts are kept here and represented by their marks alone.
The same applies to the text of a long conversation: the CLI keeps two copies of each text for as
long as its process lives, and would shorten or reject a very long one by its own estimate of the
token count. A conversation of very many parts is represented as a whole
by one mark: the CLI needs some kilobytes for each part, and would end for want of memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from attrs import field, frozen

from gemproxy.chat.shapes import objects_in

# The maximum length of a conversation, in characters, whose texts are passed to the CLI. Of one as
# long as this, it keeps 0.13 MB.
_GIVEN_CHARACTERS = 50_000

# The maximum number of parts that have marks of their own.
_MARKED_PARTS = 1000

_GO = re.compile(r"([0-9a-z]+):go:")


class ConversationAltered(Exception):
    """The CLI dropped a part of the conversation or changed the order."""


def texts_to_mark(texts: Iterable[str]) -> tuple[str, ...]:
    """
    What the CLI receives of each part of a conversation, besides its mark; empty if there are so
    many parts that they get none.

    @param texts: that of each part; empty of what has none.
    """
    texts = tuple(texts)
    if len(texts) > _MARKED_PARTS:
        return ()
    return texts if sum(map(len, texts)) <= _GIVEN_CHARACTERS else ("",) * len(texts)


@frozen
class Marks:
    """
    The marks of one conversation.

    @ivar nonce: an unguessable text that the CLI does not treat as a command.
    @ivar texts: see L{texts_to_mark}.
    """

    nonce: str
    texts: tuple[str, ...] = field(repr=False)

    @property
    def prompt(self) -> list[str]:
        """
        The prompt for the CLI: each part as a mark followed by its text, and a final mark by which
        L{prompted} identifies the conversation.
        """
        return [*self._stand_ins(), f"{self.nonce}:go:"]

    def check(self, contents: Any) -> None:
        """
        Make sure that the CLI means this conversation, with all of its parts in their order.

        @param contents: the C{contents} that the CLI wrote for the API.
        @raise ConversationAltered: a part is missing, or elsewhere.
        """
        # Computed once: there may be hundreds of parts of earlier conversations to compare.
        expected = self._stand_ins()
        index = 0
        for content in objects_in(contents):
            if content.get("role") != "user":
                continue
            for part in objects_in(content.get("parts")):
                if index == len(expected):
                    break
                if part.get("text") == expected[index]:
                    index += 1
        if index < len(expected):
            raise ConversationAltered(f"part {index} of {len(expected)} is missing")

    def _stand_ins(self) -> list[str]:
        """The text passed to the CLI for each part."""
        return [f"{self.nonce}:{index}:{text}" for index, text in enumerate(self.texts)]


def prompted(contents: Any) -> str | None:
    """
    The nonce of the conversation in the CLI's last prompt.

    @param contents: the contents written by the CLI.
    """
    for content in reversed(objects_in(contents)):
        for part in reversed(objects_in(content.get("parts"))):
            text = part.get("text")
            if isinstance(text, str) and (go := _GO.fullmatch(text)):
                return go[1]
    return None
