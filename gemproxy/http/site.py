"""A Twisted Web site that logs no accesses."""

from __future__ import annotations

from io import BytesIO
from typing import IO, Any

from twisted.web.server import Site


class QuietSite(Site):
    """Its requests are logged elsewhere, or not at all since their paths are secrets."""

    noisy = False
    displayTracebacks = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Otherwise Twisted parses the Content-Type of each POST with the email package.
        super().__init__(*args, parsePOSTFormSubmission=False, **kwargs)

    def getContentFile(self, length: int | None) -> IO[bytes]:
        """Bodies are in memory: Twisted would write those of 100 kB and more to a disk."""
        return BytesIO()

    def log(self, request: Any) -> None:
        """Not called for anything but accesses."""
