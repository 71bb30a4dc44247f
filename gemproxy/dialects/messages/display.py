"""How much of its thinking an answer shows."""

from __future__ import annotations

from enum import Enum


class Display(Enum):
    """
    @cvar SHOWN: thoughts, and the signatures of what else is signed.
    @cvar OMITTED: the signatures alone.
    @cvar HIDDEN: nothing: the client expects no blocks but texts and calls.
    """

    SHOWN = "summarized"
    OMITTED = "omitted"
    HIDDEN = "hidden"
