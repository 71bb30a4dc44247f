"""Describes why an HTTP request failed, for error messages."""

from __future__ import annotations

from OpenSSL import SSL
from twisted.internet.error import ConnectionClosed
from twisted.web.client import ResponseFailed, ResponseNeverReceived

_MESSAGE_LENGTH = 300


def describe_request_error(who: str, error: Exception) -> str:
    """
    Describe a failed request in a sentence.

    @param who: the server, as the subject of the sentence.
    @param error: the exception of the agent's request.
    """
    kind = type(error)
    # Twisted wraps errors of an established connection.
    if isinstance(error, ResponseFailed) and error.reasons:
        error = error.reasons[0].value
    reason = (str(error) or type(error).__name__)[:_MESSAGE_LENGTH].rstrip(".")
    if not issubclass(kind, ResponseFailed):
        return f"{who} cannot be reached: {reason}."
    if issubclass(kind, ResponseNeverReceived):
        if isinstance(error, SSL.Error):
            return f"{who} cannot be reached: the TLS handshake failed: {_tls_reason(error)}."
        return f"{who} closed the connection without a response."
    if isinstance(error, ConnectionClosed):
        return f"{who} closed the connection before the response headers were complete."
    return f"{who} sent an invalid HTTP response: {reason}."


def _tls_reason(error: SSL.Error) -> str:
    """OpenSSL's words, without its names of libraries and functions."""
    reasons = [entry[2] for entry in (error.args[0] if error.args else ()) if entry[2:]]
    return ", ".join(map(str, reasons))[:_MESSAGE_LENGTH] or "the connection was closed"
