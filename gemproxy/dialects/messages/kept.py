"""What blocks of thinking carry beside the text: Gemini's signatures, under a seal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from gemproxy.chat.shapes import as_object
from gemproxy.dialects.seal import Seal


@frozen
class Kept:
    """
    What a client keeps in the C{signature} of a thinking block, or as a redacted one.

    @ivar thought: the signature of the thought itself.
    @ivar text: that of the text before the block.
    @ivar calls: those of calls after it, by their ids.
    """

    thought: str | None = None
    text: str | None = None
    calls: Mapping[str, str] = field(factory=dict)

    def sealed(self, seal: Seal) -> str:
        named: dict[str, Any] = {"thought": self.thought, "text": self.text, "calls": self.calls}
        return seal.close({name: value for name, value in named.items() if value})


def opened(seal: Seal, text: Any) -> Kept | None:
    """What a client has brought back; None if it is not this daemon's, or was changed."""
    value = seal.open(text)
    if not isinstance(value, dict):
        return None
    return Kept(value.get("thought"), value.get("text"), as_object(value.get("calls")))
