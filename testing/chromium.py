"""Chromium, as it is installed on this machine."""

from __future__ import annotations

import shutil

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# The sandbox needs a user who is not root, and a kernel that lets him; the pages are ours.
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
MISSING = "Chromium is not installed; on Debian: apt-get install chromium"


def find_chromium() -> str | None:
    """Its path; None if it is not there."""
    return next((path for name in _NAMES if (path := shutil.which(name)) is not None), None)
