"""Bounds of what clients send as JSON, checked before it is parsed. Pure."""

from __future__ import annotations

from attrs import frozen

from gemproxy.chat.errors import ChatError, bad_request
from gemproxy.chat.json_structure import DEEPEST, levels_of, openers


@frozen
class JsonLimits:
    """
    @ivar depth: levels of arrays and objects in each other, up to L{DEEPEST}.
    @ivar containers: arrays and objects.
    @ivar values: values of all kinds, whatever they are in.
    @ivar messages: messages of a conversation.
    """

    depth: int = DEEPEST
    containers: int = 100_000
    values: int = 1_000_000
    messages: int = 20_000

    def check(self, text: bytes, is_deep_refused: bool = True) -> None:
        """
        Count without parsing. Of what is not JSON, the part up to the mistake is judged rightly.

        @param is_deep_refused: whether the depth counts; it does not for what is only glanced at.
        @raise ChatError: 400, there is too much; the message names the setting.
        """
        if self._is_plainly_within(text):
            return
        containers = values = 0
        for structure, level in levels_of(text, self.depth):
            opened = openers(structure)
            containers += opened
            values += opened + structure.count(b",")
            if containers > self.containers:
                raise _too_much(f"more than {self.containers} arrays and objects", "CONTAINERS")
            if values > self.values:
                raise _too_much(f"more than {self.values} values", "VALUES")
            if is_deep_refused and level > self.depth:
                raise _too_much(f"more than {self.depth} levels", "DEPTH")

    def _is_plainly_within(self, text: bytes) -> bool:
        """Whether there are not too many even if those in texts count."""
        opened = openers(text)
        if opened > min(self.depth, self.containers):
            return False
        return len(text) <= self.values or opened + text.count(b",") <= self.values

    def check_messages(self, messages: object) -> None:
        """@raise ChatError: 400, there are too many."""
        if isinstance(messages, list) and len(messages) > self.messages:
            raise bad_request(
                f"'messages' has more than {self.messages} messages, which is the limit"
                " (MAX_MESSAGES).",
                "messages",
            )


def _too_much(what: str, setting: str) -> ChatError:
    return bad_request(f"The request body has {what}, which is the limit (MAX_{setting}).")
