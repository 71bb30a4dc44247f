"""What every program in Python shares: it does what it is told, line by line."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

MODEL = os.environ["MODEL"]
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
PICTURE = f"data:image/png;base64,{PNG}"
SYSTEM = "Be brief."
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


def weather(city: str) -> str:
    """Tells the weather."""
    return f"Sunny in {city}."


def serve(clients: Mapping[str, Mapping[str, Callable[[], Any]]]) -> None:
    """Say for each line, a client and a feature, what came of it."""
    said = sys.stdout
    # Libraries print.
    sys.stdout = sys.stderr
    for line in sys.stdin:
        wanted = json.loads(line)
        try:
            result = clients[wanted["client"]][wanted["feature"]]()
            print(json.dumps({"result": result}), file=said, flush=True)
        except BaseException:
            print(json.dumps({"failed": traceback.format_exc()[-5000:]}), file=said, flush=True)


def words_of_error(ask: Callable[[], Any]) -> str:
    """The words of what is raised."""
    try:
        return f"no error: {ask()}"
    except Exception as error:
        return str(error)
