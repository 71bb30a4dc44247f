"""Why a request over HTTP has got no response, in words for whoever asked."""

from __future__ import annotations

from twisted.internet.error import ConnectionClosed
from twisted.web.client import ResponseFailed, ResponseNeverReceived

_MESSAGE_LENGTH = 300


def describe_request_error(who: str, error: Exception) -> str:
    """
    A sentence.

    @param who: was asked, as the beginning of the sentence.
    @param error: what an agent's request failed with.
    """
    kind = type(error)
    # Twisted wraps what happened to a connection that was there already.
    if isinstance(error, ResponseFailed) and error.reasons:
        error = error.reasons[0].value
    reason = (str(error) or type(error).__name__)[:_MESSAGE_LENGTH].rstrip(".")
    if not issubclass(kind, ResponseFailed):
        return f"{who} cannot be reached: {reason}."
    if issubclass(kind, ResponseNeverReceived):
        return f"{who} closed the connection without a response."
    if isinstance(error, ConnectionClosed):
        return f"{who} closed the connection before the response headers were complete."
    return f"{who} sent an invalid HTTP response: {reason}."
