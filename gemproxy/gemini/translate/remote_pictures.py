"""The pictures that messages give as URLs, to be fetched. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from gemproxy.chat.errors import bad_request
from gemproxy.gemini.translate.file_addresses import file_uri
from gemproxy.gemini.translate.media import is_remote

MOST_PICTURES = 16

# By the type of a content part, the key of the picture's URL or of an object with it.
_KEYS = {"image_url": "image_url", "input_image": "image_url", "image": "source"}


def remote_pictures(messages: Any) -> dict[str, str]:
    """
    The http and https URLs of pictures, with the first part that each is in. The messages are not
    validated otherwise.

    @raise ChatError: 400, there are too many; the error names a part.
    """
    places: dict[str, str] = {}
    for where, url in _addresses(messages):
        if url not in places and len(places) == MOST_PICTURES:
            raise bad_request(
                f"'{where}': at most {MOST_PICTURES} pictures are fetched for one request.",
                where,
            )
        places.setdefault(url, where)
    return places


def _addresses(messages: Any) -> Iterator[tuple[str, str]]:
    """The paths of the URLs of pictures to be fetched, and the URLs."""
    for number, message in enumerate(messages if isinstance(messages, list) else ()):
        content = message.get("content") if isinstance(message, dict) else None
        for position, part in enumerate(content if isinstance(content, list) else ()):
            picture = _picture_at(part)
            if picture is not None:
                place, url = picture
                yield f"messages[{number}].content[{position}].{place}", url


def _picture_at(part: Any) -> tuple[str, str] | None:
    """The path in a part of the URL of a picture to be fetched, and the URL."""
    kind = part.get("type") if isinstance(part, dict) else None
    key = _KEYS.get(kind) if isinstance(kind, str) else None
    if key is None:
        return None
    inner = part.get(key)
    url = inner.get("url") if isinstance(inner, dict) else inner
    # Gemini reads the files of these addresses by itself.
    if not is_remote(url) or file_uri(url) is not None:
        return None
    return key if kind == "input_image" and inner is url else f"{key}.url", cast("str", url)


def with_pictures(messages: Any, pictures: Mapping[str, str]) -> Any:
    """
    A copy of the messages with URLs of pictures replaced.

    @param pictures: by their URLs; empty if there is nothing to replace.
    """
    if not pictures:
        return messages

    def part_with_picture(part: Any) -> Any:
        found = _picture_at(part)
        if found is None:
            return part
        place, url = found
        key, _, inner = place.partition(".")
        return part | {key: {"url": pictures[url]} if inner else pictures[url]}

    return [
        message | {"content": [part_with_picture(part) for part in message["content"]]}
        if isinstance(message, dict) and isinstance(message.get("content"), list)
        else message
        for message in messages
    ]
