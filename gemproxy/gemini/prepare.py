"""Puts the translation of a request together. Pure, so that it can be done in another process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve, field, frozen

from gemproxy.chat.jsontext import dumps
from gemproxy.chat.request import ChatRequest
from gemproxy.gemini.cli.marks import texts_to_mark
from gemproxy.gemini.translate.families import family_of
from gemproxy.gemini.translate.messages import translate_messages
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
    """

    wanted: Parameters
    body: bytes = field(repr=False)
    texts: tuple[str, ...] = field(repr=False)
    key: str | None = field(repr=False)
    is_signed: bool

    def released(self) -> Prepared:
        """The same without what takes memory."""
        return evolve(self, body=b"", texts=())


def needs_of(request: ChatRequest, defaults: Defaults) -> Needs:
    """
    Finds out by translating it.

    @raise ChatError: 400, see L{prepare}.
    """
    pictures, asked = remote_pictures(request.body.get("messages")), AskedSignatures()
    prepare(request, defaults, asked, dict.fromkeys(pictures, _PIXEL))
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
    body: Mapping[str, Any] = request.body
    family = family_of(request.model)
    wanted = parameters(body, family, defaults)
    messages = with_pictures(body.get("messages"), pictures)
    conversation = translate_messages(messages, family, signatures, wanted.instruction)
    if unsigned:
        conversation = conversation.without_signatures()
    return Prepared(
        evolve(wanted, request={}),
        dumps(conversation.api_request(wanted.request)),
        texts_to_mark(conversation.turns),
        conversation.key,
        conversation.is_signed,
    )
