"""Why a request has got no response."""

from __future__ import annotations

import pytest
from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed, ResponseNeverReceived

from gemproxy.http.errors import describe_request_error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError("refused"), "cannot be reached: Connection was refused by other"),
        (ValueError(), "cannot be reached: ValueError."),
        (ResponseNeverReceived([Failure(ConnectionDone())]), "closed the connection without"),
        (ResponseNeverReceived([Failure(ConnectionLost())]), "closed the connection without"),
        (
            ResponseNeverReceived([Failure(SSL.Error([("SSL", "", "wrong version number")]))]),
            "cannot be reached: the TLS handshake failed: wrong version number.",
        ),
        (ResponseNeverReceived([Failure(SSL.Error())]), "cannot be reached: the TLS handshake"),
        (ResponseFailed([Failure(ConnectionLost())]), "closed the connection before"),
        (
            ResponseFailed([Failure(ValueError("no verb."))]),
            "sent an invalid HTTP response: no verb.",
        ),
        (ResponseFailed([Failure(ValueError("x" * 9999))]), "sent an invalid HTTP response: xxx"),
    ],
)
def test_it_is_a_sentence(error: Exception, words: str) -> None:
    sentence = describe_request_error("Whoever", error)
    assert sentence.startswith(f"Whoever {words}")
    assert sentence.endswith(".")
    assert not sentence.endswith("..")
    assert len(sentence) < 400
