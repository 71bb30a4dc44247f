"""What the tests of offloading have done in child processes, which import nothing else of them."""

from __future__ import annotations

import os
from typing import Any

from gemproxy.chat.errors import bad_request


def reply(*values: Any) -> Any:
    return values


def pid() -> int:
    return os.getpid()


def refuse(text: str) -> None:
    raise bad_request(text, "param")


def unpicklable(how: str) -> Any:
    if how == "raised":
        raise type("Local", (Exception,), {})("why")
    return lambda: None


def end_by(number: int) -> None:
    os.kill(os.getpid(), number)


def environment() -> dict[str, str]:
    return dict(os.environ)


def run_out_of_memory() -> None:
    raise MemoryError
