"""Describes why an HTTP request failed, for error messages."""

from __future__ import annotations

import errno
from typing import cast

from OpenSSL.SSL import Error as TLSError
from service_identity import VerificationError
from twisted.internet.error import ConnectBindError, ConnectionClosed
from twisted.web.client import ResponseFailed, ResponseNeverReceived

_MESSAGE_LENGTH = 300


def describe_request_error(who: str, error: Exception) -> str:
    """
    Describe a failed request in a sentence.

    @param who: the server, as the subject of the sentence.
    @param error: the exception of the agent's request.
    """
    kind = type(error)
    untrusted = is_untrusted(error)
    error = _cause(error)
    if untrusted:
        return f"{who} has a certificate that is not trusted: {_tls_reason(error)}."
    reason = (str(error) or type(error).__name__)[:_MESSAGE_LENGTH].rstrip(".")
    if not issubclass(kind, ResponseFailed):
        return f"{who} cannot be reached: {reason}."
    if issubclass(kind, ResponseNeverReceived):
        if isinstance(error, TLSError):
            return f"{who} cannot be reached: the TLS handshake failed: {_tls_reason(error)}."
        return f"{who} closed the connection without a response."
    if isinstance(error, ConnectionClosed):
        return f"{who} closed the connection before the response headers were complete."
    return f"{who} sent an invalid HTTP response: {reason}."


def is_untrusted(error: Exception) -> bool:
    """Whether a request failed because the server's certificate is not trusted."""
    cause = _cause(error)
    if isinstance(cause, VerificationError):
        return True
    return isinstance(cause, TLSError) and "certificate" in _tls_reason(cause)


def lacks_descriptors(error: Exception) -> bool:
    """Whether a request failed because this process has no file descriptor left."""
    cause = _cause(error)
    return isinstance(cause, ConnectBindError) and cause.osError in (errno.EMFILE, errno.ENFILE)


def _cause(error: Exception) -> Exception:
    # Twisted wraps errors of an established connection.
    if isinstance(error, ResponseFailed) and error.reasons:
        return cast("Exception", error.reasons[0].value)
    return error


def _tls_reason(error: Exception) -> str:
    """OpenSSL's words, without its names of libraries and functions."""
    if isinstance(error, VerificationError):
        return "it is for another host"
    # OpenSSL's queue of errors: library, function and reason of each.
    queue = error.args[0] if error.args and isinstance(error.args[0], list) else []
    reasons = ", ".join(str(entry[-1]) for entry in queue if entry)[:_MESSAGE_LENGTH]
    return reasons or "the connection was closed"
