"""What the CLI is given of a reply of the API."""

from __future__ import annotations

from typing import Any

from gemproxy.chat.jsontext import dumps
from gemproxy.chat.sse import Event, encode
from gemproxy.gemini.translate.reply import News


def event_of(news: News) -> bytes:
    """
    A single event with the text and the finish reason alone: every event and field costs the CLI
    time, it would count a prompt's tokens for the session's next conversation too, it would try to
    run a function, and would reformat a thought.
    """
    text = "".join(news.texts)
    candidate: dict[str, Any] = {
        "content": {"role": "model", "parts": [{"text": text}] if text else []}
    }
    if news.finish_reason is not None:
        candidate["finishReason"] = news.finish_reason
    data = dumps({"candidates": [candidate]})
    # The CLI treats U+2028 and U+2029 as line ends, although JSON allows them unescaped.
    data = data.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return encode(Event(data))


END = event_of(News(is_any=True, finish_reason="STOP"))
"""The end of a reply, for a CLI whose response is no longer needed."""
