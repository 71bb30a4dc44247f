"""Puts the translation of a request together. Pure, so that it can be done in another process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from gemproxy.chat.errors import bad_request
from gemproxy.chat.jsontext import dumps
from gemproxy.chat.request import ChatRequest
from gemproxy.gemini.cli.marks import texts_to_mark
from gemproxy.gemini.translate.families import family_of
from gemproxy.gemini.translate.messages import Conversation, translate_messages
from gemproxy.gemini.translate.native import NativeConversation, needs_files
from gemproxy.gemini.translate.parameters import Defaults, Parameters, parameters
from gemproxy.gemini.translate.remote_pictures import remote_pictures, with_pictures
from gemproxy.gemini.translate.signatures import AskedSignatures, Signatures

# Stands for a picture that is not fetched yet.
_PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="


@frozen
class Needs:
    """
    What the translation of a request needs besides the request.

    @ivar pictures: see L{remote_pictures}.
    @ivar signatures: the ids for which it needs the signatures.
    """

    pictures: dict[str, str]
    signatures: set[str]


@frozen
class Prepared:
    """
    A request in Gemini's words.

    @ivar wanted: what the client wants, without what is in the body.
    @ivar body: the JSON for the API.
    @ivar texts: for the L{Marks}.
    @ivar key: the API key to prefer: it made the last of the signatures; None if unknown.
    @ivar is_signed: whether it has signatures that the API may find corrupted.
    @ivar is_native: whether the client speaks Google's API itself, and wants the answer so.
    @ivar needs_files: whether it names a file or a cache, which are one key's own.
    """

    wanted: Parameters
    body: bytes = field(repr=False)
    texts: tuple[str, ...] = field(repr=False)
    key: str | None = field(repr=False)
    is_signed: bool
    is_native: bool = False
    needs_files: bool = False


RELEASED = Prepared(Parameters(1, {}, False, ()), b"", (), None, is_signed=False)
"""Stands for a request whose answer is there, so that it takes no memory."""


def needs_of(request: ChatRequest, defaults: Defaults) -> Needs:
    """
    Finds out by translating it.

    @raise ChatError: 400, see L{prepare}.
    """
    body, asked = request.body, AskedSignatures()
    if (native := _native(body)) is not None:
        native.key(asked)
        return Needs({}, asked.ids)
    pictures = remote_pictures(body.get("messages"))
    _translated(body, request.model, defaults, asked, dict.fromkeys(pictures, _PIXEL))
    return Needs(pictures, asked.ids)


def prepare(
    request: ChatRequest,
    defaults: Defaults,
    signatures: Signatures,
    pictures: Mapping[str, str],
    unsigned: bool = False,
) -> Prepared:
    """
    @param pictures: those that were fetched, by their URLs.
    @param unsigned: whether signatures are replaced by one that is always taken.
    @raise ChatError: 400, the request is invalid; the error names the parameter or message.
    """
    body = request.body
    if (native := _native(body)) is not None:
        return _prepare_native(native, signatures, unsigned)
    wanted, conversation = _translated(body, request.model, defaults, signatures, pictures)
    if unsigned:
        conversation = conversation.without_signatures()
    sent = conversation.api_request(wanted.request)
    rendered = dumps(sent)
    # They are in the body now, and need not be kept as well.
    wanted.request.clear()
    return Prepared(
        wanted,
        rendered,
        texts_to_mark([part.get("text", "") for turn in conversation.turns for part in turn.parts]),
        conversation.key,
        conversation.is_signed,
        needs_files=needs_files(sent, rendered),
    )


def _translated(
    body: Mapping[str, Any],
    model: str,
    defaults: Defaults,
    signatures: Signatures,
    pictures: Mapping[str, str],
) -> tuple[Parameters, Conversation]:
    family = family_of(model)
    wanted = parameters(body, family, defaults)
    messages = with_pictures(body.get("messages"), pictures)
    return wanted, translate_messages(messages, family, signatures, wanted.instruction)


def _native(body: Mapping[str, Any]) -> NativeConversation | None:
    """The request of a client that speaks Google's API; None of all others."""
    request = body.get("google_request")
    if request is None:
        return None
    if not isinstance(request, dict):
        raise bad_request("'google_request' must be an object.", "google_request")
    return NativeConversation(request)


def _prepare_native(
    conversation: NativeConversation, signatures: Signatures, unsigned: bool
) -> Prepared:
    """It goes to Google as it came."""
    if unsigned:
        conversation = conversation.without_signatures()
    rendered = dumps(conversation.request)
    return Prepared(
        Parameters(1, {}, False, ()),
        rendered,
        texts_to_mark(conversation.texts),
        conversation.key(signatures),
        conversation.is_signed,
        is_native=True,
        needs_files=needs_files(conversation.request, rendered),
    )
