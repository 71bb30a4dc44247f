"""What Google keeps for the owner of a key: files and caches."""

from __future__ import annotations

from typing import Any

import orjson
from twisted.web.server import Request

from testing.google import refusals
from testing.google.playback import Playback
from testing.google.recorded_request import ReceivedRequest
from testing.google.refusals import Refusal

KEPT_METHODS = ("upload", "files", "cachedContents")

Json = dict[str, Any]


class Kept:
    """
    ai.google.dev/api/files and ai.google.dev/api/caching. The bytes of files are counted only.
    """

    def __init__(self) -> None:
        self._things: dict[str, dict[str, Json]] = {"files": {}, "cachedContents": {}}
        self._owners: dict[str, str | None] = {}
        self._sizes: dict[str, int] = {}
        self._count = 0

    def upload(
        self,
        playback: Playback,
        request: Request,
        received: ReceivedRequest,
        refusal: Refusal | None,
    ) -> None:
        """Begin a resumable upload, or take some of its bytes."""
        if refusal is not None:
            return playback.refuse(refusal)
        id = (request.args or {}).get(b"upload_id", [b""])[0].decode()
        data = received.raw
        if not id:
            self._count += 1
            id = f"upload-{self._count}"
            name = f"files/file-{self._count}"
            declared = orjson.loads(data or b"{}").get("file", {})
            kind = request.getHeader("x-goog-upload-header-content-type") or ""
            host = request.getHeader("host")
            self._things["files"][id] = {
                "name": name,
                "mimeType": kind,
                "state": "ACTIVE",
                "uri": f"https://generativelanguage.googleapis.com/v1beta/{name}",
            } | {key: declared[key] for key in ("displayName",) if key in declared}
            self._owners[name] = request.getHeader("x-goog-api-key")
            url = f"http://{host}/upload/v1beta/files?upload_id={id}&upload_protocol=resumable"
            request.setHeader("x-goog-upload-url", url)
            request.setHeader("x-goog-upload-status", "active")
            return playback.document(b"{}")
        self._sizes[id] = self._sizes.get(id, 0) + len(data)
        if "finalize" not in (request.getHeader("x-goog-upload-command") or ""):
            request.setHeader("x-goog-upload-status", "active")
            return playback.document(b"{}")
        file = self._things["files"].pop(id) | {"sizeBytes": str(self._sizes.pop(id))}
        self._things["files"][file["name"]] = file
        request.setHeader("x-goog-upload-status", "final")
        return playback.document(orjson.dumps({"file": file}))

    def answer(
        self,
        playback: Playback,
        request: Request,
        received: ReceivedRequest,
        name: str,
        refusal: Refusal | None,
    ) -> None:
        """Make, list, show or delete something."""
        if refusal is not None:
            return playback.refuse(refusal)
        kind = received.method
        things, full = self._things[kind], f"{kind}/{name}"
        if request.method == b"POST":
            self._count += 1
            full = f"{kind}/thing-{self._count}"
            things[full] = {"name": full} | (received.body or {})
            self._owners[full] = received.key
        elif not name:
            return playback.document(orjson.dumps({kind: list(things.values())}))
        if full not in things or self._owners.get(full) != received.key:
            # As Google says of what is there, and somebody else's.
            return playback.refuse(
                refusals.error(
                    403, f"You do not have permission to access the {kind} or it may not exist."
                )
            )
        if request.method == b"DELETE":
            del things[full]
            return playback.document(b"{}")
        return playback.document(orjson.dumps(things[full]))
