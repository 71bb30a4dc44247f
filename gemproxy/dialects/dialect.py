"""What an API dialect is: a pure pair of translators beside OpenAI's chat completions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from attrs import evolve, field, frozen

from gemproxy.chat.form import AnswerForm, ErrorForm
from gemproxy.chat.request import ChatRequest, Headers
from gemproxy.dialects.seal import Seal


@frozen
class DialectRequest:
    """
    A client's request in some dialect.

    @ivar path: a tidy one, without the query.
    @ivar raw: the body.
    @ivar id: identifies the request; what needs an id in the answer is named after it.
    @ivar now: the time, in seconds since the epoch.
    @ivar seal: for what the client is to bring back unchanged.
    @ivar query: the values of each of its parameters.
    @ivar has_hosted_tools: whether whoever answers can search the web and execute code.
    @ivar keeps: whether answers are kept for later requests to refer to.
    @ivar kept: the records of those that it refers to, by id; None if they are not looked up yet.
    @ivar takes_google: whether all who may answer take a request of Google's API as it is, as
        C{google_request} in place of the messages.
    """

    path: bytes
    raw: bytes = field(repr=False)
    id: str
    now: int
    seal: Seal
    headers: Headers = field(default=(), repr=False)
    query: Mapping[bytes, Sequence[bytes]] = field(factory=dict)
    has_hosted_tools: bool = True
    keeps: bool = False
    kept: Mapping[str, Any] | None = field(default=None, repr=False)
    takes_google: bool = True


def _not_kept() -> None:
    return None


@frozen
class Translation:
    """
    A request of a dialect in OpenAI's chat completions, and the shape of its answer.

    @ivar chats: what to ask the backend. The choices of all of them are numbered through.
    @ivar stops: texts that end the answer, if the answer has to say which of them did.
    @ivar record: the id and the record of the answer, once it is complete, for later requests to
        refer to; None if it is not to be kept.
    """

    chats: tuple[ChatRequest, ...]
    form: AnswerForm
    stops: tuple[str, ...] = ()
    record: Callable[[], tuple[str, dict[str, Any]] | None] = _not_kept

    def renamed(self, name: Callable[[str], str]) -> Translation:
        """@param name: makes the backend's name of a model of the client's."""
        chats = tuple(evolve(chat, model=name(chat.model)) for chat in self.chats)
        return evolve(self, chats=chats)


class RecordsNeeded(Exception):
    """
    A request refers to earlier answers, whose records it has to have.

    @ivar ids: those of the answers.
    """

    def __init__(self, ids: Sequence[str]) -> None:
        super().__init__(ids)
        self.ids = ids


class Dialect(ErrorForm, Protocol):
    """
    Another shape of requests and answers. It knows no backend.

    @ivar name: by which the log and the configuration know it.
    @ivar rules: the paths of its requests, as werkzeug's URL rules; the first is shown to people.
    """

    @property
    def name(self) -> str: ...

    @property
    def rules(self) -> Sequence[str]: ...

    def owns(self, path: bytes) -> bool:
        """Whether a tidy path belongs to it, so that errors there have its shape."""

    def translate(self, request: DialectRequest) -> Translation:
        """
        @raise ChatError: 400, the request cannot be understood; the error names the field.
        @raise RecordsNeeded: it has to come again, with these records.
        """


@frozen
class Counting:
    """
    A path at which the tokens of a request are counted.

    @ivar rule: the path, as one of werkzeug's URL rules.
    @ivar dialect: that of the request.
    @ivar document: makes the answer of the number.
    """

    rule: str
    dialect: Dialect
    document: Callable[[int], Any]


class ModelsForm(ErrorForm, Protocol):
    """
    The shape of lists of models.

    @ivar header: which clients of it send, in lower case.
    """

    @property
    def header(self) -> bytes: ...

    def listed(
        self, models: Sequence[dict[str, Any]], query: Mapping[bytes, Sequence[bytes]]
    ) -> Any:
        """
        @param models: as OpenAI's model objects.
        @raise ChatError: 400, the query cannot be understood.
        """

    def one(self, model: dict[str, Any]) -> Any:
        """A single one of them."""
