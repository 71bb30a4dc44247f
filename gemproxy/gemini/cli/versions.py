"""Which versions of the CLI run."""

from __future__ import annotations

from gemproxy.gemini.cli.install import PINNED_VERSION
from gemproxy.util.log import make_logger


class Versions:
    """Warns of each version but the pinned one, once: a worker starts often."""

    log = make_logger()

    def __init__(self) -> None:
        self._seen: set[str | None] = {PINNED_VERSION}

    def saw(self, version: str | None) -> None:
        """@param version: what a worker says; None if it says nothing."""
        if version in self._seen:
            return
        self._seen.add(version)
        self.log.warn(
            "the Gemini CLI is version {version}, and gemproxy is tested with {pinned}: "
            "`gemproxy doctor --cli` finds out whether it will do",
            version=version or "unknown",
            pinned=PINNED_VERSION,
        )
