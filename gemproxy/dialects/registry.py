"""The dialects that are spoken, and where."""

from __future__ import annotations

from collections.abc import Sequence

from gemproxy.chat.form import CHAT_FORM, ErrorForm
from gemproxy.dialects.completions import COMPLETIONS
from gemproxy.dialects.dialect import Dialect
from gemproxy.dialects.responses.dialect import RESPONSES

DIALECTS: Sequence[Dialect] = (COMPLETIONS, RESPONSES)


def dialect_at(path: bytes) -> Dialect | None:
    """
    The dialect to which a path belongs; None if it belongs to none of them.

    @param path: a tidy one.
    """
    return next((dialect for dialect in DIALECTS if dialect.owns(path)), None)


def error_form_at(path: bytes) -> ErrorForm:
    """
    The shape of the errors that clients expect at a path.

    @param path: a tidy one.
    """
    return dialect_at(path) or CHAT_FORM
