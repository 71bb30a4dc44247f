"""
Google's token server: trades what a service account has signed for an access token.

developers.google.com/identity/protocols/oauth2/service-account
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from google.auth import jwt
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

EXCHANGE = b"urn:ietf:params:oauth:grant-type:token-exchange"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
AUDIENCE = "https://oauth2.googleapis.com/token"
ACCOUNT = "me@my-project-1.iam.gserviceaccount.com"


class TokenServer(Resource):
    """
    @ivar url: its address, to be set as soon as it listens.
    @ivar lifetime: of a token, in seconds.
    @ivar given: the tokens that were given, the oldest first.
    @ivar failures: statuses to answer with instead, one for each request.
    @ivar drops: how many connections are closed without an answer.
    """

    isLeaf = True

    def __init__(self, accept: Callable[[str], object]) -> None:
        """@param accept: called with each token that is given."""
        super().__init__()
        self.url = ""
        self.lifetime = 3600
        self.given: list[str] = []
        self.failures: list[int] = []
        self.drops = 0
        self._accept = accept
        self._key = rsa.generate_private_key(65537, 2048)

    def account(self, folder: Path) -> Path:
        """The file of a service account whose tokens are had here."""
        private = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file = folder / "service-account.json"
        file.write_text(
            json.dumps(
                {
                    "type": "service_account",
                    "project_id": "my-project-1",
                    "private_key_id": "1",
                    "private_key": private.decode(),
                    "client_email": ACCOUNT,
                    "token_uri": self.url,
                }
            )
        )
        return file

    def render_POST(self, request: Request) -> bytes | int:
        request.setHeader("content-type", "application/json")
        if self.drops:
            self.drops -= 1
            request.loseConnection()
            return NOT_DONE_YET
        if self.failures:
            request.setResponseCode(self.failures.pop(0))
            return _json({"error": "invalid_grant", "error_description": "Invalid JWT Signature."})
        fields: dict[bytes, list[bytes]] = request.args or {}
        try:
            scope = self._claims(fields)["scope"]
        except ValueError as error:
            request.setResponseCode(400)
            return _json({"error": "invalid_grant", "error_description": str(error)})
        assert scope == "https://www.googleapis.com/auth/cloud-platform"
        token = f"ya29.token-{len(self.given)}"
        self.given.append(token)
        self._accept(token)
        return _json({"access_token": token, "expires_in": self.lifetime, "token_type": "Bearer"})

    def _claims(self, fields: dict[bytes, list[bytes]]) -> Any:
        """@raise ValueError: the request is not signed by the account, and has no subject token."""
        if fields.get(b"grant_type") == [EXCHANGE] and fields.get(b"subject_token"):
            # Workload identity: docs.cloud.google.com/iam/docs/reference/sts/rest
            return {"scope": fields[b"scope"][0].decode()}
        if fields.get(b"grant_type") != [GRANT.encode()]:
            raise ValueError("Unsupported grant.")
        public = self._key.public_key()
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return jwt.decode(fields[b"assertion"][0], certs=pem, audience=AUDIENCE)


def _json(document: Any) -> bytes:
    return json.dumps(document).encode()
