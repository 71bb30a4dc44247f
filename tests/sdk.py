"""OpenAI's own SDK, at work in a thread while the proxy runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from openai import DefaultHttpxClient, OpenAI
from twisted.internet.threads import deferToThread

_T = TypeVar("_T")


async def with_openai(
    port: int,
    work: Callable[[OpenAI], _T],
    key: str = "x",
    path: str = "/v1",
    retries: int = 0,
) -> _T:
    """Have work done with a client of its own."""

    def run() -> _T:
        url = f"http://127.0.0.1:{port}{path}"
        # Nothing here has TLS, and to read the certificates of all authorities takes longer than
        # a request.
        http = DefaultHttpxClient(verify=False)
        with OpenAI(
            base_url=url, api_key=key, max_retries=retries, timeout=60, http_client=http
        ) as client:
            return work(client)

    return await deferToThread(run)
