"""OpenAI's image generation in terms of chat completions: the request, and the answer. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from attrs import field, frozen

from gemproxy.chat.errors import SERVER_ERROR, ChatError, bad_request
from gemproxy.chat.jsontext import dumps
from gemproxy.chat.request import BOM, ChatRequest, Headers, body_and_model
from gemproxy.chat.shapes import objects_in

MAX_PICTURES = 4

# Those that Gemini's image models draw: https://ai.google.dev/gemini-api/docs/image-generation
ASPECT_RATIOS = ("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9")
_IMAGE_SIZES = ("1K", "2K", "4K")

# A longer side from which the next size is nearer than the one before: about 1.25 times the 1536
# pixels of OpenAI's largest pictures, and halfway between 2K and 4K.
_LEAST_FOR_2K = 1920
_LEAST_FOR_4K = 3072

_SIDES = re.compile(r"([1-9][0-9]{0,4}) ?([x\u00d7:]) ?([1-9][0-9]{0,4})", re.I)
_DATA_URL = re.compile(r"data:([a-z]+/[a-z0-9.+-]+)?(?:;[^,]{0,100})?;base64,", re.I)

# They become something else in the chat request, or must not reach it.
_TRANSLATED = frozenset(
    {
        "image_config",
        "messages",
        "modalities",
        "model",
        "n",
        "prompt",
        "response_format",
        "size",
        "stream",
        "stream_options",
    }
)
_TEXT_LENGTH = 500


@frozen
class ImagesRequest:
    """
    @ivar raw: the body as received.
    @ivar chat: the chat completion request that asks for the same.
    @ivar as_urls: whether the client wants data URLs instead of base64.
    """

    raw: bytes = field(repr=False)
    chat: ChatRequest
    as_urls: bool


def parse_images_request(raw: bytes, headers: Headers = ()) -> ImagesRequest:
    """
    Parameters that have no meaning here are left in the chat request, so that its backend decides
    on them as it does for others.

    @raise ChatError: 400, the request is invalid; C{param} names the field.
    """
    body, model = body_and_model(raw.removeprefix(BOM))
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise bad_request("'prompt' must be a non-empty string.", "prompt")
    stream = body.get("stream")
    if stream is not None and stream is not False:
        raise bad_request("'stream' is not supported for the pictures of this model.", "stream")
    form = body.get("response_format")
    if form not in (None, "b64_json", "url"):
        raise bad_request("'response_format' must be 'b64_json' or 'url'.", "response_format")
    asked: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "modalities": ["image", "text"],
    }
    if (number := _number(body.get("n"))) is not None:
        asked["n"] = number
    if (config := _image_config(body)) != {}:
        asked["image_config"] = config
    asked |= {
        name: value
        for name, value in body.items()
        if name not in _TRANSLATED and not _is_default(name, value)
    }
    return ImagesRequest(
        raw, ChatRequest(dumps(asked), asked, model, False, False, headers), form == "url"
    )


def _is_default(name: str, value: Any) -> bool:
    return value is None or value == "auto" or (name == "partial_images" and value == 0)


def _number(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_PICTURES:
        raise bad_request(f"'n' must be a whole number from 1 to {MAX_PICTURES}.", "n")
    return value


def _image_config(body: dict[str, Any]) -> Any:
    config = image_config(body.get("size"))
    given = body.get("image_config")
    if given is None:
        return config
    # What is no object is for the backend to refuse.
    return config | given if isinstance(given, dict) else given


def image_config(size: Any) -> dict[str, str]:
    """
    The nearest aspect ratio and size that Gemini draws; empty for the model's own.

    @param size: such as C{1536x1024}, C{16:9}, C{2K} or C{auto}.
    @raise ChatError: 400, it is none of these.
    """
    if size is None:
        return {}
    text = size.strip() if isinstance(size, str) else ""
    if text.lower() == "auto":
        return {}
    if text.upper() in _IMAGE_SIZES:
        return {"image_size": text.upper()}
    sides = _SIDES.fullmatch(text)
    if sides is None:
        raise bad_request(
            "'size' must be like '1536x1024', '16:9' or '2K', or 'auto'.",
            "size",
        )
    width, height = int(sides[1]), int(sides[3])
    config = {"aspect_ratio": nearest_ratio(width, height)}
    longer = max(width, height)
    if sides[2] != ":" and longer >= _LEAST_FOR_2K:
        config["image_size"] = "4K" if longer >= _LEAST_FOR_4K else "2K"
    return config


def nearest_ratio(width: int, height: int) -> str:
    """The one of Gemini's aspect ratios by which the least has to be cut off."""

    def distance(ratio: str) -> float:
        across, down = map(int, ratio.split(":"))
        return abs(math.log(width * down / (height * across)))

    return min(ASPECT_RATIOS, key=distance)


def images_document(
    completion: dict[str, Any], as_urls: bool, created: int, usage: Any = None
) -> dict[str, Any] | None:
    """
    OpenAI's response with the pictures of a completion; None if it has none.

    @param created: for a completion without a time.
    @param usage: for a completion without one.
    """
    urls = list(_pictures(completion))
    if not urls:
        return None
    when = completion.get("created")
    document: dict[str, Any] = {
        "created": when if isinstance(when, int) else created,
        "data": [_picture(url, as_urls) for url in urls],
    }
    kinds = {picture.get("mime_type", "") for picture in document["data"]}
    if len(kinds) == 1 and (kind := kinds.pop()).startswith("image/"):
        document["output_format"] = kind.removeprefix("image/")
    usage = completion.get("usage") or usage
    if isinstance(usage, dict):
        document["usage"] = _usage(usage)
    return document


# Google's reasons that say nothing against the prompt.
_UNABLE = ("NO_IMAGE", "IMAGE_OTHER", "OTHER")


def no_picture(completion: dict[str, Any]) -> ChatError:
    """Why a completion without pictures is no answer."""
    refused, reasons, texts = False, [], []
    for choice in objects_in(completion.get("choices")):
        message = choice.get("message")
        message = message if isinstance(message, dict) else {}
        is_filtered = choice.get("finish_reason") == "content_filter"
        refused = refused or (is_filtered and choice.get("native_finish_reason") not in _UNABLE)
        reasons += [choice.get("native_finish_reason") or choice.get("finish_reason")]
        texts += [message.get("refusal") or message.get("content")]
    reason = ", ".join(dict.fromkeys(word for word in reasons if word and isinstance(word, str)))
    text = " ".join(text for text in texts if text and isinstance(text, str)).strip()
    message = "The picture was blocked" if refused else "The model answered without a picture"
    message += f" ({reason})" if reason else ""
    message += f": {text[:_TEXT_LENGTH]}" if text else "."
    if refused:
        # OpenAI's own type and code for this.
        return ChatError(400, "image_generation_user_error", message, code="moderation_blocked")
    # Each repetition costs as much, and the model has said what it had to say.
    return ChatError(502, SERVER_ERROR, message, code="no_image", final=True)


def _pictures(completion: dict[str, Any]) -> Iterator[str]:
    """The URLs of the pictures, in the shape that OpenRouter gave to C{message.images}."""
    for choice in objects_in(completion.get("choices")):
        message = choice.get("message")
        for part in objects_in(message.get("images") if isinstance(message, dict) else None):
            image = part.get("image_url")
            url = image.get("url") if isinstance(image, dict) else None
            if isinstance(url, str) and url:
                yield url


def _picture(url: str, as_url: bool) -> dict[str, str]:
    start = _DATA_URL.match(url)
    if start is None:
        return {"url": url}
    picture = {"url": url} if as_url else {"b64_json": url[start.end() :]}
    if start[1]:
        picture["mime_type"] = start[1].lower()
    return picture


def _usage(usage: dict[str, Any]) -> dict[str, Any]:
    """The usage of a completion in the words of the images API."""

    def count(name: str) -> int:
        value = usage.get(name)
        return value if isinstance(value, int) else 0

    tokens: dict[str, Any] = {
        "input_tokens": count("prompt_tokens"),
        "output_tokens": count("completion_tokens"),
        "total_tokens": count("total_tokens")
        or count("prompt_tokens") + count("completion_tokens"),
        # The prompt is a text.
        "input_tokens_details": {"text_tokens": count("prompt_tokens"), "image_tokens": 0},
    }
    details = usage.get("completion_tokens_details")
    if isinstance(details, dict) and details:
        tokens["output_tokens_details"] = details
    return tokens
