"""The deltas of a chat completion as the blocks of a message."""

from __future__ import annotations

from typing import Any

from attrs import define, field

from gemproxy.chat.deltas import Pieces
from gemproxy.chat.extra_content import given_signature
from gemproxy.chat.shapes import as_object, objects_in
from gemproxy.dialects.calls import Calls
from gemproxy.dialects.messages.display import Display
from gemproxy.dialects.messages.kept import Kept
from gemproxy.dialects.messages.writers import BlockWriter
from gemproxy.dialects.seal import Seal

Json = dict[str, Any]

# Characters that are kept of the arguments of a call in a stream, and of a refusal.
_MOST_KEPT = 1_000_000
_MOST_REFUSED = 10_000


@define(eq=False)
class _Call:
    """
    A call that is being written.

    @ivar number: that of its block.
    """

    number: int
    _arguments: Pieces = field(factory=Pieces, init=False)
    _length: int = field(default=0, init=False)

    def add(self, arguments: str) -> None:
        self._length += len(arguments)
        if self._length <= _MOST_KEPT:
            self._arguments.append(arguments)

    @property
    def is_complete(self) -> bool:
        """Whether the arguments are certainly whole; they are not kept if they are too long."""
        return self._length <= _MOST_KEPT and self._arguments.is_json_object()


class Blocks:
    """
    Makes blocks of deltas, however the answer is cut into these.

    @ivar refusal: why there is no answer, as far as it was said.
    @ivar has_calls: whether there was a call.
    """

    def __init__(
        self, writer: BlockWriter, seal: Seal, display: Display, id: str, searches: bool
    ) -> None:
        """
        @param id: begins the ids of what has none.
        @param searches: whether the model may search the web.
        """
        self.refusal = ""
        self.has_calls = False
        self._writer = writer
        self._seal = seal
        self._display = display
        self._id = id
        self._searches = searches
        # The type and the number of the block that is open, besides calls.
        self._kind = ""
        self._number = 0
        self._calls: Calls[_Call] = Calls()
        self._count = 0
        self._text_signature: str | None = None

    def add(self, delta: Json) -> None:
        """@param delta: a delta, or a whole message."""
        content = delta.get("content")
        if self._kind == "text" and len(delta) == 1 and isinstance(content, str):
            # Most are like this.
            self._writer.add(self._number, "text_delta", "text", content)
            return
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        signature = given_signature(delta)
        is_thought = not content and "reasoning_content" in delta
        if isinstance(thought, str) or (is_thought and signature):
            self._think(thought or "", signature if is_thought else None)
        if content:
            self._add_content(content)
        for picture in objects_in(delta.get("images")):
            self._say(_without_data(as_object(picture.get("image_url")).get("url")))
        if delta.get("audio"):
            self._say("[Sound, which answers in this dialect cannot have.]")
        if isinstance(refusal := delta.get("refusal"), str):
            self.refusal = (self.refusal + refusal)[:_MOST_REFUSED]
        if citations := _citations(delta.get("annotations")):
            self._cite(citations)
        if signature is not None and not is_thought:
            self._text_signature = signature
        for call in objects_in(delta.get("tool_calls")):
            self._add_call(call)

    def finish(self) -> None:
        """The answer is complete."""
        self._close()
        for call in self._calls.all():
            self._stop(call)
        if self._text_signature is not None:
            self._keep({})

    def _add_content(self, content: Any) -> None:
        if isinstance(content, str):
            self._say(content)
            return
        for part in content if isinstance(content, list) else ():
            if isinstance(part, str):
                self._say(part)
            elif isinstance(part, dict) and part.get("type") == "thinking":
                # Mistral has the text in parts of its own.
                inner = part.get("thinking")
                texts = [inner] if isinstance(inner, str) else _texts_of(inner)
                self._think("".join(texts), None)
            elif isinstance(part, dict) and isinstance(text := part.get("text"), str):
                self._say(text)

    def _say(self, text: str) -> None:
        if self._kind != "text":
            if not text:
                return
            self._open({"type": "text", "text": ""})
        self._writer.add(self._number, "text_delta", "text", text)

    def _think(self, text: str, signature: str | None) -> None:
        if self._display is Display.HIDDEN or not (text or signature):
            return
        if self._kind != "thinking":
            self._open({"type": "thinking", "thinking": "", "signature": ""})
        if text and self._display is Display.SHOWN:
            self._writer.add(self._number, "thinking_delta", "thinking", text)
        if signature is not None:
            self._close(Kept(thought=signature))

    def _cite(self, citations: list[Json]) -> None:
        if self._kind == "text":
            for citation in citations:
                self._writer.add(self._number, "citations_delta", "citation", citation)
        if self._searches:
            self._close()
            for block in _search(f"srvtoolu_{self._id}", citations):
                self._writer.stop(self._writer.start(block))

    def _add_call(self, delta: Json) -> None:
        function = as_object(delta.get("function"))
        call = self._calls.of(delta)
        if call is None:
            id = delta.get("id")
            id = id if isinstance(id, str) and id else f"toolu_{self._id}_{self._count}"
            call = self._begin_call(delta, id, str(function.get("name") or ""))
        if isinstance(arguments := function.get("arguments"), str) and arguments:
            call.add(arguments)
            self._writer.add(call.number, "input_json_delta", "partial_json", arguments)

    def _begin_call(self, delta: Json, id: str, name: str) -> _Call:
        signature = given_signature(delta)
        calls = {} if signature is None else {id: signature}
        if self._kind == "thinking":
            self._close(Kept(calls=calls))
        else:
            self._close()
            if calls or self._text_signature is not None:
                self._keep(calls)
        # A call whose arguments are not complete may go on after this one.
        for complete in [call for call in self._calls.all() if call.is_complete]:
            self._stop(complete)
        block = {"type": "tool_use", "id": id, "name": name, "input": {}}
        call = _Call(self._writer.start(block))
        self._calls.add(delta, id, call)
        self._count += 1
        self.has_calls = True
        return call

    def _stop(self, call: _Call) -> None:
        self._calls.remove(call)
        self._writer.stop(call.number)

    def _keep(self, calls: Json) -> None:
        """Write a block that has only signatures."""
        kept = Kept(text=self._text_signature, calls=calls)
        self._text_signature = None
        if self._display is not Display.HIDDEN:
            block = {"type": "redacted_thinking", "data": kept.sealed(self._seal)}
            self._writer.stop(self._writer.start(block))

    def _open(self, block: Json) -> None:
        self._close()
        self._kind, self._number = block["type"], self._writer.start(block)

    def _close(self, kept: Kept | None = None) -> None:
        """@param kept: for the client to keep, if the block is one of thinking."""
        if self._kind == "thinking":
            signature = (kept or Kept()).sealed(self._seal)
            self._writer.add(self._number, "signature_delta", "signature", signature)
        if self._kind:
            self._writer.stop(self._number)
        self._kind = ""


def _texts_of(parts: Any) -> list[str]:
    return [text for part in objects_in(parts) if isinstance(text := part.get("text"), str)]


def _without_data(url: Any) -> str:
    """What is said of a picture, for which messages of the assistant have no block."""
    head, comma, data = url.partition(",") if isinstance(url, str) else ("", "", "")
    if not comma:
        return f"[A picture: {url}]"
    kind = head.removeprefix("data:").partition(";")[0]
    size = len(data) * 3 // 4
    return f"[A picture ({kind}, {size} bytes), which answers in this dialect cannot have.]"


def _citations(annotations: Any) -> list[Json]:
    cited = [as_object(each.get("url_citation")) for each in objects_in(annotations)]
    return [
        {
            "type": "web_search_result_location",
            "url": each["url"],
            "title": str(each.get("title") or each["url"]),
            "cited_text": "",
            "encrypted_index": "",
        }
        for each in cited
        if isinstance(each.get("url"), str)
    ]


def _search(id: str, citations: list[Json]) -> list[Json]:
    """A search that was done for the answer, of which only the outcome is known."""
    found = {
        each["url"]: {
            "type": "web_search_result",
            "url": each["url"],
            "title": each["title"],
            "encrypted_content": "",
            "page_age": None,
        }
        for each in citations
    }
    return [
        {"type": "server_tool_use", "id": id, "name": "web_search", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": id, "content": [*found.values()]},
    ]
