"""The dialects that are spoken, and where."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from gemproxy.chat.form import CHAT_FORM, ErrorForm
from gemproxy.dialects.completions import COMPLETIONS
from gemproxy.dialects.dialect import Counting, Dialect, ModelsForm
from gemproxy.dialects.messages.dialect import MESSAGES, MESSAGES_COUNTING
from gemproxy.dialects.messages.models import MESSAGES_MODELS
from gemproxy.dialects.native.dialect import NATIVE
from gemproxy.dialects.native.models import NATIVE_MODELS
from gemproxy.dialects.responses.dialect import RESPONSES, RESPONSES_COUNTING

DIALECTS: Sequence[Dialect] = (COMPLETIONS, RESPONSES, MESSAGES, NATIVE)
COUNTINGS: Sequence[Counting] = (MESSAGES_COUNTING, RESPONSES_COUNTING)
# Google's alone; at /v1/models it is the client's headers that count.
_GOOGLES_MODELS = re.compile(rb"/v1(?:beta|alpha)/models(?:/[^:]*)?", re.S)
_MODELS: Sequence[ModelsForm] = (MESSAGES_MODELS, NATIVE_MODELS)


def dialect_at(path: bytes) -> Dialect | None:
    """
    The dialect to which a path belongs; None if it belongs to none of them.

    @param path: a tidy one.
    """
    return next((dialect for dialect in DIALECTS if dialect.owns(path)), None)


def models_form_for(sends: Callable[[bytes], bool]) -> ModelsForm | None:
    """
    The shape of lists of models that a client wants; None for OpenAI's.

    @param sends: whether it sends a header, by the name in lower case.
    """
    return next((form for form in _MODELS if sends(form.header)), None)


def models_form_at(path: bytes) -> ModelsForm | None:
    """
    The same at a path that leaves no choice; None at others.

    @param path: a tidy one.
    """
    return NATIVE_MODELS if _GOOGLES_MODELS.fullmatch(path) else None


def error_form_at(path: bytes) -> ErrorForm:
    """
    The shape of the errors that clients expect at a path.

    @param path: a tidy one.
    """
    return dialect_at(path) or CHAT_FORM
