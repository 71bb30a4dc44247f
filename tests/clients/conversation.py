"""A program that uses an SDK, in a process of its own, which is told line by line what to do."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from tests.clients.clients import HERE, INSTALLED, SDKS
from tests.clients.page import MODEL, configuration

_NOWHERE = "http://127.0.0.1:9"
_PATIENCE = 60.0


def environ(home: Path) -> dict[str, str]:
    """For a client: a home of its own, and no way to the world."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "HTTP_PROXY": _NOWHERE,
        "HTTPS_PROXY": _NOWHERE,
        "NO_PROXY": "127.0.0.1,localhost",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "DO_NOT_TRACK": "1",
    }


class Conversation(ProcessProtocol):
    """
    One process; it writes a line of JSON for each line that it gets.

    @ivar errors: what it wrote besides.
    """

    def __init__(self) -> None:
        self.errors = bytearray()
        self.ended: Deferred[None] = Deferred()
        self._received = b""
        self._waiting: Deferred[Any] | None = None

    async def do(self, name: str, feature: str) -> Any:
        """
        @return: what the program says that came of it.
        @raise RuntimeError: if it failed.
        """
        assert self._waiting is None, "one at a time"
        self._waiting = Deferred()
        self._waiting.addTimeout(_PATIENCE, reactor)
        self.transport.write(json.dumps({"client": name, "feature": feature}).encode() + b"\n")
        try:
            said = await self._waiting
        finally:
            self._waiting = None
        if "failed" in said:
            raise RuntimeError(said["failed"])
        return said["result"]

    async def end(self) -> None:
        if self.transport.pid is not None:
            self.transport.signalProcess("KILL")
        await self.ended

    def outReceived(self, data: bytes) -> None:
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            assert self._waiting is not None, line
            self._waiting.callback(json.loads(line))

    def errReceived(self, data: bytes) -> None:
        self.errors += data

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(None)
        if self._waiting is not None and not self._waiting.called:
            words = self.errors.decode(errors="replace")[-3000:]
            self._waiting.errback(RuntimeError(f"it has ended: {words}"))


def start(program: str, place: str, port: int) -> Conversation:
    """
    Start a program of C{programs/}, with what the page says for the clients that it uses.

    Packages of npm are found from where a program lies, so it is copied to where they are.
    """
    folder = INSTALLED / place / "run" / f"{port}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(HERE / "programs", folder)
    (folder / "home").mkdir()
    node = place == "node"
    for sdk in SDKS:
        if sdk.program == program:
            block = configuration(sdk.name, "js" if node else "python", port)
            (folder / f"{sdk.module}.{'mjs' if node else 'py'}").write_text(block)
    conversation = Conversation()
    command = ["node" if node else str(INSTALLED / place / "bin" / "python"), program]
    env = environ(folder / "home") | {"MODEL": MODEL}
    reactor.spawnProcess(conversation, command[0], command, env, str(folder))
    return conversation
