"""What Google's own tools find and run, as clients know it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred

from gemproxy.gemini.translate.citations import Transcript, cited_sources
from testing.google import scenarios
from tests.support import Product, Reply, chat

pytestmark = pytest.mark.both_engines

SEARCH = [{"type": "google_search"}]


def last_chunk(*parts: Any, **candidate: Any) -> bytes:
    """The last response of a stream, with more than text."""
    content = {"role": "model", "parts": list(parts)}
    return json.dumps(
        {"candidates": [{"content": content, "finishReason": "STOP"} | candidate]}
    ).encode()


def grounding(text: str, *cited: str) -> dict[str, Any]:
    """Google's metadata for an answer in which these texts are from the web."""
    supports = [
        {
            "segment": {
                "startIndex": len(text[: text.index(part)].encode()),
                "endIndex": len(text[: text.index(part) + len(part)].encode()),
                "text": part,
            },
            "groundingChunkIndices": [number],
        }
        for number, part in enumerate(cited)
    ]
    sources = [{"web": {"uri": f"https://{n}.example/", "title": f"{n}"}} for n in range(3)]
    return {"groundingChunks": sources, "groundingSupports": supports}


def annotations_of(reply: Reply) -> list[dict[str, Any]]:
    if reply.headers["content-type"].startswith("application/json"):
        return reply.json["choices"][0]["message"].get("annotations", [])
    deltas = [c["choices"][0]["delta"] for c in reply.data if c != "[DONE]" and c["choices"]]
    return [item for delta in deltas for item in delta.get("annotations", ())]


@pytest.mark.parametrize("stream", [False, True])
@ensureDeferred
async def test_sources_have_their_places_in_the_content(product: Product, stream: bool) -> None:
    text = "\u00dcber \U0001f600 steht: Regen. Und: Sonne."
    metadata = grounding(text, "Regen", "Sonne")
    for ask in product.both_ports:
        product.api.play(
            scenarios.answer(text[:9], text[9:], last_chunk(groundingMetadata=metadata))
        )
        reply = await ask(chat("Wetter?", tools=SEARCH, stream=stream))
        assert reply.content == text
        cited = [item["url_citation"] for item in annotations_of(reply)]
        assert [item["type"] for item in annotations_of(reply)] == ["url_citation"] * 3
        assert [text[c["start_index"] : c["end_index"]] for c in cited] == ["Regen", "Sonne", ""]
        assert [c["url"] for c in cited] == [f"https://{n}.example/" for n in range(3)]
        assert [c["title"] for c in cited] == ["0", "1", "2"]
    assert [asked.body["tools"] for asked in product.asked] == [[{"googleSearch": {}}]] * 2


@pytest.mark.parametrize("stream", [False, True])
@ensureDeferred
async def test_code_and_its_output_are_part_of_the_content(product: Product, stream: bool) -> None:
    code = {"executableCode": {"language": "PYTHON", "code": "print(6 * 7)"}}
    result = {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "42\n"}}
    said = grounding("So: It is 42.", "It is 42.")
    product.api.play(
        scenarios.answer(
            "So: ", code, result, last_chunk({"text": "It is 42."}, groundingMetadata=said)
        )
    )
    body = chat("6 * 7?", tools=[{"type": "code_execution"}], stream=stream)
    reply = await product.ask(body)
    assert reply.content == "So: \n```python\nprint(6 * 7)\n```\n\n```\n42\n```\nIt is 42."
    place = annotations_of(reply)[0]["url_citation"]
    assert reply.content[place["start_index"] : place["end_index"]] == "It is 42."
    assert product.asked[0].body["tools"] == [{"codeExecution": {}}]


@ensureDeferred
async def test_pages_that_were_read_are_sources(product: Product) -> None:
    read = [
        {
            "retrievedUrl": "https://a.example/",
            "urlRetrievalStatus": "URL_RETRIEVAL_STATUS_SUCCESS",
        },
        {"retrievedUrl": "https://b.example/", "urlRetrievalStatus": "URL_RETRIEVAL_STATUS_ERROR"},
    ]
    cited = {"citationSources": [{"startIndex": 0, "endIndex": 2, "uri": "https://c.example/"}]}
    product.api.play(
        scenarios.answer(
            "Read.", last_chunk(urlContextMetadata={"urlMetadata": read}, citationMetadata=cited)
        )
    )
    reply = await product.ask(chat("Read", tools=[{"type": "url_context"}]))
    places = [
        (c["start_index"], c["end_index"], c["url"])
        for c in (item["url_citation"] for item in annotations_of(reply))
    ]
    assert places == [(0, 2, "https://c.example/"), (5, 5, "https://a.example/")]


@ensureDeferred
async def test_an_answer_without_sources_has_no_annotations(product: Product) -> None:
    product.api.play(scenarios.answer("x", last_chunk(groundingMetadata={})))
    reply = await product.ask(chat("Hi", web_search_options={}))
    assert "annotations" not in reply.json["choices"][0]["message"]


TEXTS = st.lists(st.tuples(st.text(max_size=8), st.booleans()), max_size=6)


@given(TEXTS, st.data())
def test_a_place_in_the_model_s_text_is_the_same_in_the_content(pieces: Any, data: Any):
    transcript = Transcript()
    for text, by_model in pieces:
        transcript.add(text, by_model)
    assert transcript.content == "".join(text for text, _ in pieces)
    model_text = "".join(text for text, by_model in pieces if by_model)
    cut = data.draw(st.integers(0, len(model_text)))
    size = len(model_text[:cut].encode("utf-8", "surrogatepass"))
    before = transcript.content[: transcript.position(size)]
    assert len(before) >= cut
    # What is before the place has the model's text so far in it, in order.
    rest = iter(before)
    assert all(character in rest for character in model_text[:cut])
    assert transcript.position(size + 10**6) <= len(transcript.content)


@given(
    st.recursive(
        st.none() | st.integers(-5, 99) | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        *(
                            "groundingChunks",
                            "groundingSupports",
                            "segment",
                            "startIndex",
                            "endIndex",
                        ),
                        *("groundingChunkIndices", "web", "uri", "title", "text", "urlMetadata"),
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
    ).filter(lambda value: isinstance(value, dict))
)
def test_any_metadata_gives_places_within_the_content(metadata: Any):
    transcript = Transcript()
    transcript.add("\u00e4b")
    for item in cited_sources(metadata, metadata, metadata, transcript):
        place = item["url_citation"]
        assert 0 <= place["start_index"] <= place["end_index"] <= 2
